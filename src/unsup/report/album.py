"""Pictures of a comparison as data URIs, the most important ones first where not all fit into the page."""

from __future__ import annotations

import base64
from pathlib import Path

from unsup.core.escapes import markup
from unsup.evaluate.records import Measures, Picture, Results
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


def pictured(runs: list[Measures]) -> Measures | None:
    """The run of a contestant whose pictures are shown: the first that has any."""
    return next((r for r in runs if r["pictures"]), None)


def ranked(names: dict[str, Picture]) -> list[str]:
    """Names of pictures, the known ones first and in order."""
    return sorted(names, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n))


class Album:
    """Decides which pictures fit into ``budget`` bytes of page, and shows them.

    Args:
        root: the folder the records' paths start from.
        budget: bytes of base64 text; 0 leaves every picture out.
    """

    def __init__(self, results: Results, root: Path, budget: int) -> None:
        self.root = root
        self.left_out: list[str] = []
        self._content: dict[Path, bytes] = {}
        self._missing: set[Path] = set()
        wanted: list[tuple[int, str, Path]] = []
        wanted += [(0, f"{n} of the data", self._path("", p["file"])) for n, p in results["pictures"].items()]
        for contestant in in_order(results["contestants"]):
            run = pictured(contestant["runs"])
            if run is not None:
                wanted += [
                    (
                        1 + i,
                        f"{TITLES.get(n, n).lower()} of {contestant['name']}",
                        self._path(run.get("folder", run["run"]), p["file"]),
                    )
                    for i, n in enumerate(ranked(run["pictures"]))
                    for p in [run["pictures"][n]]
                ]
        for _, name, path in sorted(wanted, key=lambda w: w[0]):
            content = path.read_bytes() if path.is_file() else b""
            if not content.startswith(_SIGNATURE):
                self._missing.add(path)
            elif (size := -(-len(content) // 3) * 4) > budget:
                self.left_out.append(name)
            else:
                self._content[path] = content
                budget -= size

    def _path(self, folder: str, file: str) -> Path:
        """A picture of a run, whose folder is named from the contest's or, where it lies elsewhere, by itself."""
        if Path(file).is_absolute() or ".." in Path(file).parts:
            return self.root / "pictures" / Path(file).name  # it would lead out of the folder
        tried = [self.root / folder / file, Path(folder) / file]
        return next((p for p in tried if p.is_file()), tried[0])

    def width(self, picture: Picture, folder: str = "") -> int:
        """Of the picture itself in pixels; 0 where it is not shown."""
        return int.from_bytes(self._content.get(self._path(folder, picture["file"]), b"")[16:20], "big")

    def figure(
        self, picture: Picture, folder: str = "", title: str = "", heading: str = "h4", scale: float | None = None
    ) -> str:
        """A ``<figure>`` at ``scale`` or the picture's own, or with the reason why it is not there."""
        path = self._path(folder, picture["file"])
        said = picture["caption"].rstrip(".").lower()
        repeats = said in (title.lower(), f"samples of {title.lower()}")
        caption = "" if repeats else f"<figcaption>{markup(picture['caption'])}</figcaption>"
        head = f"<{heading}>{markup(title)}</{heading}>" if title else ""
        content = self._content.get(path)
        if content is None:
            where = markup(f"{folder}/{picture['file']}".lstrip("/"))
            why = (
                "was not found or is no PNG" if path in self._missing else "is left out: the page would grow too large"
            )
            return f'<figure>{head}<p class="absent">The picture <code>{where}</code> {why}.</p>{caption}</figure>'
        scale = max(1, int(picture["scale"])) if scale is None else scale
        width, height = (round(int.from_bytes(content[i : i + 4], "big") * scale) for i in (16, 20))
        sharp = ' class="sharp"' if scale > 1 else ""
        uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        alt = markup(picture["alt"])
        image = f'<img{sharp} width="{width}" height="{height}" alt="{alt}" src="{uri}">'
        return f'<figure style="--width:{width}px">{head}{image}{caption}</figure>'
