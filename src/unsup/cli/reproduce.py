"""``unsup reproduce [NAME]``: list the recipes, or run one and add it to the results table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unsup.cli.options import Parser, add_memory
from unsup.cli.show import table, write
from unsup.core.errors import InputError


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="unsup reproduce", description="List the recipes, or run one and add it to the results table.")
    parser.add_argument("name", metavar="NAME", nargs="?", help="name of a recipe, or path of your own .toml")
    parser.add_out("results table [RESULTS.md]", metavar="FILE", default="RESULTS.md")
    parser.add_argument(
        "--runs", default="runs/recipes", metavar="FOLDER", help="folder for the run folders [runs/recipes]"
    )
    add_memory(parser)
    options = parser.parse(arguments)
    if not options.out.endswith(".md"):
        raise InputError(f"{options.out} should end in .md")

    from unsup.train.recipes import read_recipe, reproduce, shipped

    if options.name is None:
        recipes = [read_recipe(name) for name in shipped()]
        cells = [(r.name, r.data, " ".join(str(s) for s in r.seeds), r.summary) for r in recipes]
        write(*table(("recipe", "data", "seeds", "what"), cells))
        return 0
    recipe = read_recipe(options.name)
    reproduce(recipe, runs=Path(options.runs), results=Path(options.out), say=write)
    write(f"table written to {options.out}")
    return 0
