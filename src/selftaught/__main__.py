"""`python -m selftaught`: the command line."""

import sys

from selftaught.cli import main

if __name__ == "__main__":
    sys.exit(main())
