"""Images from the web as shards: with leave, within bounds, and only from public addresses.

for n, block in enumerate(blocks(fetch.addresses(Path("urls.txt"), asked))):
    fetch.shard(block, Path(f"pool/{n:05d}"), asked)      # pool/00000.tar, pool/00000.parquet
"""

from typing import TYPE_CHECKING

from selftaught.lazily import lazily

if TYPE_CHECKING:
    from selftaught.curate.fetch.address import Address as Address
    from selftaught.curate.fetch.settings import Fetching as Fetching
    from selftaught.curate.fetch.shards import Counts as Counts
    from selftaught.curate.fetch.shards import shard as shard
    from selftaught.curate.fetch.shards import transient as transient
    from selftaught.curate.fetch.sources import addresses as addresses
    from selftaught.curate.fetch.web import Web as Web

__all__, __getattr__ = lazily(__name__, __file__)
