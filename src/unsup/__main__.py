"""``python -m unsup`` is the command line."""

from unsup.cli.main import console

if __name__ == "__main__":
    console()
