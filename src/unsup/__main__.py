"""``python -m unsup`` is the command line."""

import sys

from unsup.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
