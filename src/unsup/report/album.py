"""Pictures as data URIs; if not all fit into a page, the most important ones come first."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from unsup.evaluate.records import Measures, Picture, Results, is_below
from unsup.report.figures import in_order

TITLES = {
    "real": "Real data",
    "samples": "Samples",
    "reconstructions": "Reconstructions",
    "interpolation": "Interpolation between two examples",
    "anomalies": "Ranking of anomalies",
    "bits": "Bits by entry",
    "most_likely": "Most likely held-out examples",
    "least_likely": "Least likely held-out examples",
    "neighbours": "Samples and their nearest training examples",
}
"""Titles of pictures, the most important first."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Shown:
    """A picture on a page, or (without ``uri``) the reason why it is missing.

    Attributes:
        look: ``plot``, whose colours follow those of the page, or ``pixels``, which do not.
    """

    title: str
    caption: str
    alt: str = ""
    uri: str = ""
    width: int = 0
    height: int = 0
    look: str = "pixels"
    file: str = ""
    reason: str = ""


def embedded(content: bytes, alt: str, title: str, caption: str, scale: float, *, plot: bool) -> Shown:
    """A PNG, enlarged by ``scale`` on the screen."""
    width, height = (round(int.from_bytes(content[i : i + 4], "big") * scale) for i in (16, 20))
    uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return Shown(title, caption, alt, uri, width, height, "plot" if plot else "pixels")


def title_of(name: str) -> str:
    return TITLES.get(name, name.replace("_", " ").capitalize())


def pictured(runs: list[Measures]) -> Measures | None:
    """The run of a contestant whose pictures are shown: the first that has any."""
    return next((r for r in runs if r["pictures"]), None)


def ranked(names: dict[str, Picture]) -> list[str]:
    """Names of pictures, the most important first."""
    return [*(n for n in TITLES if n in names), *sorted(n for n in names if n not in TITLES)]


class Album:
    """Selects the pictures of a contest that fit into ``budget`` bytes of base64 text, and shows them.

    Args:
        root: the folder that the paths in the records start from.
    """

    def __init__(self, results: Results, root: Path, budget: int) -> None:
        self.root = root
        self.left_out: list[str] = []
        self._content: dict[Path, bytes] = {}  # empty if there is no PNG file
        wanted = [(0, f"{n} of the data", self._path("", p["file"])) for n, p in results["pictures"].items()]
        for contestant in in_order(results):
            if (run := pictured(contestant["runs"])) is not None:
                for i, name in enumerate(ranked(run["pictures"])):
                    path = self._path(folder_of(run), run["pictures"][name]["file"])
                    wanted.append((1 + i, f"{title_of(name).lower()} of {contestant['name']}", path))
        for _, name, path in sorted(wanted, key=lambda w: w[0]):
            content = path.read_bytes() if path.is_file() else b""
            content = content if content.startswith(_SIGNATURE) else b""
            size = -(-len(content) // 3) * 4
            if size > budget:
                self.left_out.append(name)
            else:
                self._content[path] = content
                budget -= size

    def _path(self, folder: str, file: str) -> Path:
        """The file of a picture; the folder of its run is relative to the contest, or absolute if it is elsewhere."""
        if not is_below(file):
            return self.root / "pictures" / Path(file).name
        tried = [self.root / folder / file, Path(folder) / file]
        return next((p for p in tried if p.is_file()), tried[0])

    def width(self, picture: Picture, folder: str = "") -> int:
        """The width of the file in pixels; 0 if it is not shown."""
        return int.from_bytes(self._content.get(self._path(folder, picture["file"]), b"")[16:20], "big")

    def show(self, picture: Picture, folder: str, title: str, scale: float | None = None) -> Shown:
        """A picture at ``scale``, by default its own."""
        path = self._path(folder, picture["file"])
        repeated = (title.lower(), f"samples of {title.lower()}")
        caption = "" if picture["caption"].rstrip(".").lower() in repeated else picture["caption"]
        content = self._content.get(path)
        if not content:
            why = (
                "is omitted: the page would become too large"
                if content is None
                else "was not found or is not a PNG file"
            )
            return Shown(title, caption, file=f"{folder}/{picture['file']}".lstrip("/"), reason=why)
        own = max(1, int(picture["scale"])) if scale is None else scale
        return embedded(content, picture["alt"], title, caption, own, plot=picture.get("plot", False))


def folder_of(run: Measures) -> str:
    """The folder of a run's pictures."""
    return run.get("folder", run["run"])
