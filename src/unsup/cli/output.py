"""The output file of ``-o``."""

from __future__ import annotations

import os
from pathlib import Path

from unsup.core.errors import InputError
from unsup.core.storage import write_atomically


def write_file(out: str | Path, content: bytes) -> None:
    """Write ``content`` to ``out``; a missing folder is created.

    A link is kept, and its target is written. A device or a pipe is written to, not replaced.

    Raises:
        InputError: the folder cannot be created.
        TrainingError: the file cannot be written.
    """
    path = Path(out)
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    path = Path(os.path.realpath(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create the folder of {out}: {error.strerror}; choose another place") from error
    write_atomically(path, content)
