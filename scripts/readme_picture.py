"""Picture of the top of a comparison's page for the README: ``python scripts/readme_picture.py REPORT``."""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]
LIMIT = 400_000


def picture(page: Path, width: int, height: int) -> Image.Image:
    """The first ``height`` pixels of ``page`` in a window ``width`` wide, in its light colours."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"no Chromium found; expected one of {', '.join(BROWSERS)} on the path")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        command = [browser, *FLAGS, f"--user-data-dir={folder}/profile", f"--window-size={width},{height}"]
        command += [f"--screenshot={shot}", page.resolve().as_uri()]
        subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return Image.open(io.BytesIO(shot.read_bytes())).convert("RGB")


def small_png(image: Image.Image) -> bytes:
    """A PNG below the limit, with as many colours as fit into it."""
    for colours in (None, 256, 128, 64):
        buffer = io.BytesIO()
        (image if colours is None else image.quantize(colours)).save(buffer, format="PNG", optimize=True)
        if buffer.tell() < LIMIT:
            return buffer.getvalue()
    sys.exit(f"the picture takes {buffer.tell():,} bytes; expected fewer than {LIMIT:,}: choose a smaller --height")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="folder that holds index.html")
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/compare.png"))
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=1400)
    chosen = parser.parse_args()
    page = chosen.report / "index.html"
    if not page.is_file():
        sys.exit(f"there is no {page}; expected a folder written by unsup compare")
    content = small_png(picture(page, chosen.width, chosen.height))
    chosen.out.write_bytes(content)
    print(f"{chosen.out}: {len(content):,} bytes")


if __name__ == "__main__":
    main()
