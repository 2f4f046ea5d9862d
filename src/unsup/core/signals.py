"""Signals that stop long work."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def signals_to(handle: Callable[[int, object], None], *names: str) -> Iterator[None]:
    """In this context, ``handle`` takes the signals of these names, except a SIGHUP that is ignored (nohup).

    Only the main thread gets signals; in other threads nothing changes. Names that the platform lacks are left out.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = [s for s in signal.Signals if s.name in names]
    taken = [s for s in wanted if s.name != "SIGHUP" or signal.getsignal(s) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
