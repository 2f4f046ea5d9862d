"""``unsup cite``: BibTeX of the methods that were used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unsup.cli.options import Parser
from unsup.cli.show import write
from unsup.core.registry import Paper, row


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="unsup cite", description="BibTeX of the papers behind a run or a model.")
    parser.add_argument("what", metavar="RUN_OR_MODEL", help="a run folder or the name of a model")
    options = parser.parse(arguments)
    papers = _papers(options.what)
    write(*"\n\n".join(p.bibtex for p in dict.fromkeys(papers)).split("\n"))
    return 0


def _papers(what: str) -> list[Paper]:
    if not Path(what).is_dir():
        found = row(what)
        return [found.paper, *found.also]
    from unsup.train.runs import open_model

    config = open_model(what).config
    found = row(config["model"]["model"])
    return [found.paper, *found.also]
