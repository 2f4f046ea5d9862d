"""The command line: finds the command, runs it, turns errors into one line and an exit status.

Only the chosen command's module is imported, so that ``unsup --help`` starts fast and without torch.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence

from unsup.cli.show import Log, show_warning, write, write_error
from unsup.core.errors import InputError, UnsupError, nearest

COMMANDS = {
    "models": "every model: family, what it can do, which data it takes, its paper",
    "data": "every data set, or what one holds",
    "fit": "train a model on data and write a run folder",
    "eval": "measures of a run: the likelihood of its test split, how good its samples are, …",
    "measures": "every measure: what it is, what it needs, which way is better",
    "sample": "draw examples from a run, as a picture or an array",
    "score": "log-likelihood of each example of your own file",
    "outliers": "the oddest rows of a table or images, with the columns that make them so",
    "predict": "the class of each example of your own file, with probabilities",
    "encode": "codes of examples, to .npz",
    "decode": "examples of codes, to .npy or .png",
    "translate": "images of one domain into the other, as .png files",
    "compare": "which model for my data? a contest under a time budget, and one page",
    "report": "the same page of runs that exist already",
    "check": "the laws of a model, of a run, or of all models",
    "reproduce": "the recipes, or one run of one that adds to the results table",
    "cite": "BibTeX of what a run or model uses",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status: 0, 1 (it failed), 2 (bad input), 128 + n (signal n).

    Started several times by ``torchrun``, the processes work as one and the first of them speaks.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _logging():
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                return _dispatch_together(given)
            return _dispatch(given)
    except UnsupError as error:
        _complain(f"unsup: error: {error}")
        return error.exit_status
    except KeyboardInterrupt:
        _complain("unsup: interrupted")
        return 130
    except BrokenPipeError:
        # The reader (head, a pager) has gone; what is left in the buffer must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        _complain(f"unsup: error: {where}{error.strerror or error}; is the path right, and may it be written?")
        return 2


def _complain(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal has gone
        write_error(line)


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """What libraries log and warn of is shown as all else is: file names, too, in one line each."""
    handler, before = Log(logging.WARNING), warnings.showwarning
    logging.getLogger().addHandler(handler)
    warnings.showwarning = show_warning
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        warnings.showwarning = before


def _dispatch(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help", "help"):
        write(*_help())
        return 0
    if given[0] == "--version":
        import unsup

        write(f"unsup {unsup.__version__}")
        return 0
    name, rest = given[0], given[1:]
    if name not in COMMANDS:
        raise InputError(f"there is no command {name!r}{nearest(name, COMMANDS)}")
    module = importlib.import_module(f"unsup.cli.{name}")
    # What a command asks for, such as --max-memory, ends with it.
    status: int = contextvars.copy_context().run(module.main, rest)
    return status


def _dispatch_together(given: list[str]) -> int:
    from unsup.train.parallel import process_group

    first = int(os.environ["RANK"]) == 0
    with process_group(), contextlib.redirect_stdout(sys.stdout if first else open(os.devnull, "w")):
        try:
            return _dispatch(given)
        except InputError as error:
            # Every process meets bad input alike; one of them says so.
            if first:
                raise
            return error.exit_status


def _help() -> list[str]:
    width = max(map(len, COMMANDS))
    return [
        "unsup: deep unsupervised learning on your own data",
        "",
        "usage: unsup COMMAND …",
        "",
        *(f"  {name:<{width}}  {about}" for name, about in COMMANDS.items()),
        "",
        "Try:",
        "  unsup fit digits made -o runs/made --minutes 1",
        "  unsup eval runs/made",
        "  unsup sample runs/made -n 64 -o grid.png --sample.temperature 0.9",
        "  unsup fit digits pixelcnn --given label -o runs/pixelcnn --minutes 5",
        "  unsup sample runs/pixelcnn --given 3 -o threes.png",
        "",
        "unsup COMMAND --help tells more.",
    ]


if __name__ == "__main__":
    sys.exit(main())
