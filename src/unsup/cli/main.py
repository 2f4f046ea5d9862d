"""The command line: find and run the command; errors become one line and an exit status.

Only the chosen command's module is imported, so that ``unsup --help`` starts fast and without torch.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import NoReturn

from unsup.cli.show import Log, show_warning, write, write_error
from unsup.core.errors import InputError, UnsupError, nearest
from unsup.core.process import leave

COMMANDS = {
    "models": "list all models: family, abilities, supported data, paper",
    "data": "list all data sets, or describe one",
    "augment": "write examples with random views of them, as a model trained on views sees them",
    "fit": "train a model on data and write a run folder",
    "eval": "evaluate a run: likelihood of its test split, quality of its samples, and other measures",
    "measures": "list all measures: explanation, requirements, direction",
    "sample": "draw samples from a run, in the form of its data, as a picture or an array",
    "score": "log-likelihood of each example of a file",
    "probe": "examine the codes of a run: probes, neighbours, clusters, beside an untrained encoder and raw data",
    "map": "draw the codes of a run in the plane, coloured by class",
    "neighbours": "find the training examples with the codes nearest to those of your own files",
    "outliers": "list the most anomalous rows of a data set, with the columns that explain them",
    "predict": "class probabilities of each example of a file",
    "encode": "encode examples to .npz or .csv",
    "decode": "decode codes to examples, in the form of the data",
    "complete": "draw the missing cells of a table, or the lower part of images, given the rest",
    "compress": "compress files losslessly with a run",
    "decompress": "restore compressed files",
    "translate": "translate images to the other domain, as .png files",
    "compare": "train and compare models for your data within a time budget; writes one page",
    "report": "compare existing runs; writes the same page",
    "check": "check the mathematical properties (laws) of a model, a run, or all models",
    "reproduce": "list the recipes, or run one and add it to the results table",
    "cite": "BibTeX of the methods of a run or model",
}


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # options of mallopt


def console() -> NoReturn:
    """Run the command line of this process, and end it with the exit status."""
    _keep_freed_memory()
    leave(main())


def _keep_freed_memory() -> None:
    """Keep freed memory for later tensors: each page that glibc gives back to the system is zeroed when it comes again.

    A training step allocates and frees the same sizes as the one before; up to a third of its time were page faults.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            for option, value in ((_MMAP_THRESHOLD, 2**30), (_TRIM_THRESHOLD, 2**31 - 1)):
                library.mallopt(option, value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status: 0, 1 (it failed), 2 (bad input), 128 + n (signal n).

    If ``torchrun`` starts several processes, they work together, and only the first one writes output.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _logging():
            if _together():
                return _dispatch_together(given)
            return _dispatch(given)
    except UnsupError as error:
        _complain(f"unsup: error: {error}")
        return error.exit_status
    except KeyboardInterrupt:
        _complain("unsup: interrupted")
        return 130
    except BrokenPipeError:
        # The reader (head, a pager) is closed; the rest of the buffer must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        _complain(f"unsup: error: {where}{error.strerror or error}; check the path and its permissions")
        return 2


def _together() -> bool:
    """Whether ``torchrun`` started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _complain(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal is closed
        write_error(line)


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """Show log messages and warnings of libraries like other output, one line each."""
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
    # Settings of a command, such as --max-memory, end with it.
    status: int = contextvars.copy_context().run(module.main, rest)
    return status


def _dispatch_together(given: list[str]) -> int:
    from unsup.train.parallel import process_group

    first = int(os.environ["RANK"]) == 0
    with process_group() as once, contextlib.redirect_stdout(sys.stdout if first else open(os.devnull, "w")):
        try:
            return _dispatch(given)
        except InputError as error:
            told = f"unsup: error: {error}"
            once(lambda: _complain(told))
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
        "See unsup COMMAND --help for details.",
    ]


if __name__ == "__main__":
    console()
