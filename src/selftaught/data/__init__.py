"""Reading samples: folders, list files, Parquet, Hugging Face data, tar shards, arrays, objects.

Nothing heavy is imported before a name is used.
"""

from typing import TYPE_CHECKING

from selftaught.lazily import lazily

if TYPE_CHECKING:
    from selftaught.data.image.decode import MAX_PIXELS as MAX_PIXELS
    from selftaught.data.image.decode import BadSample as BadSample
    from selftaught.data.image.decode import Header as Header
    from selftaught.data.image.decode import inspect as inspect
    from selftaught.data.opening import open_data as open_data
    from selftaught.data.source import Samples as Samples
    from selftaught.data.source import Skipped as Skipped

__all__, __getattr__ = lazily(__name__, __file__)
