"""Pictures as data URIs, the most important ones first where not all fit into the page."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from unsup.evaluate.records import Measures, Picture, Results, is_below
from unsup.report.figures import in_order

ORDER = (
    "samples",
    "reconstructions",
    "interpolation",
    "anomalies",
    "bits",
    "most_likely",
    "least_likely",
    "neighbours",
)
"""A run's pictures, the most important first."""
TITLES = {
    "real": "Real data",
    "samples": "Samples",
    "neighbours": "Samples and their nearest training examples",
    "reconstructions": "Reconstructions",
    "interpolation": "Between two examples",
    "most_likely": "Most likely held-out examples",
    "least_likely": "Least likely held-out examples",
    "anomalies": "Ranking of anomalies",
    "bits": "Where the bits go",
}
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Shown:
    """A picture as a page shows it, or (without ``uri``) the reason why it does not.

    Attributes:
        look: ``plot``, whose colours follow those of the page, or ``pixels``, which stay as they are.
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


def is_png(content: bytes) -> bool:
    return content.startswith(_SIGNATURE)


def embedded(content: bytes, alt: str, title: str, caption: str, scale: float, *, plot: bool) -> Shown:
    """A PNG at ``scale`` screen pixels for one of its own."""
    width, height = (round(int.from_bytes(content[i : i + 4], "big") * scale) for i in (16, 20))
    uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return Shown(title, caption, alt, uri, width, height, "plot" if plot else "pixels")


def title_of(name: str) -> str:
    return TITLES.get(name, name.replace("_", " ").capitalize())


def pictured(runs: list[Measures]) -> Measures | None:
    """The run of a contestant whose pictures are shown: the first that has any."""
    return next((r for r in runs if r["pictures"]), None)


def ranked(names: dict[str, Picture]) -> list[str]:
    """Names of pictures, the known ones first and in order."""
    return sorted(names, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n))


class Album:
    """Decides which pictures of a contest fit into ``budget`` bytes of page, and shows them.

    Args:
        root: the folder the records' paths start from.
        budget: bytes of base64 text; 0 leaves every picture out.
    """

    def __init__(self, results: Results, root: Path, budget: int) -> None:
        self.root = root
        self.left_out: list[str] = []
        self._content: dict[Path, bytes] = {}
        self._missing: set[Path] = set()
        wanted = [(0, f"{n} of the data", self._path("", p["file"])) for n, p in results["pictures"].items()]
        for contestant in in_order(results):
            run = pictured(contestant["runs"])
            if run is not None:
                for i, name in enumerate(ranked(run["pictures"])):
                    path = self._path(run.get("folder", run["run"]), run["pictures"][name]["file"])
                    wanted.append((1 + i, f"{title_of(name).lower()} of {contestant['name']}", path))
        for _, name, path in sorted(wanted, key=lambda w: w[0]):
            content = path.read_bytes() if path.is_file() else b""
            if not is_png(content):
                self._missing.add(path)
            elif (size := -(-len(content) // 3) * 4) > budget:
                self.left_out.append(name)
            else:
                self._content[path] = content
                budget -= size

    def _path(self, folder: str, file: str) -> Path:
        """A picture of a run, whose folder is named from the contest's or, where it lies elsewhere, by itself."""
        if not is_below(file):
            return self.root / "pictures" / Path(file).name
        tried = [self.root / folder / file, Path(folder) / file]
        return next((p for p in tried if p.is_file()), tried[0])

    def width(self, picture: Picture, folder: str = "") -> int:
        """Of the picture itself in pixels; 0 where it is not shown."""
        return int.from_bytes(self._content.get(self._path(folder, picture["file"]), b"")[16:20], "big")

    def show(self, picture: Picture, folder: str = "", title: str = "", scale: float | None = None) -> Shown:
        """A picture at ``scale`` or its own."""
        path = self._path(folder, picture["file"])
        said = picture["caption"].rstrip(".").lower()
        caption = "" if said in (title.lower(), f"samples of {title.lower()}") else picture["caption"]
        content = self._content.get(path)
        if content is None:
            missing = path in self._missing
            why = "was not found or is no PNG" if missing else "is left out: the page would grow too large"
            return Shown(title, caption, file=f"{folder}/{picture['file']}".lstrip("/"), reason=why)
        own = max(1, int(picture["scale"])) if scale is None else scale
        return embedded(content, picture["alt"], title, caption, own, plot=picture.get("plot", False))
