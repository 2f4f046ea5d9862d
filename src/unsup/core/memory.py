"""The memory limit: the free memory of the machine, or the limit that was set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from unsup.core.errors import InputError

_ASKED: ContextVar[int | None] = ContextVar("memory limit", default=None)
_MEMINFO = Path("/proc/meminfo")
_CGROUPS = (  # version 2 and version 1: the limit, the usage, and the statistics that separate caches from other memory
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
_UNKNOWN = 2**33  # if the system does not report its free memory


def limit() -> int:
    """Bytes that this process may still allocate: as set by `within`, else the free memory of the machine or cgroup.

    >>> with within(2**30):
    ...     limit()
    1073741824
    >>> limit() > 0
    True
    """
    asked = _ASKED.get()
    return _free() if asked is None else asked


@contextmanager
def within(limit_bytes: int | None) -> Iterator[None]:
    """Set `limit` to ``limit_bytes`` inside this context; None leaves it unchanged.

    Raises:
        InputError: ``limit_bytes`` is not above 0.
    """
    if limit_bytes is None:
        yield
        return
    if limit_bytes < 1:
        raise InputError(f"a memory limit of {limit_bytes} bytes is too small; expected a number above 0")
    token = _ASKED.set(limit_bytes)
    try:
        yield
    finally:
        _ASKED.reset(token)


def ask(limit_bytes: int) -> None:
    """Set `limit` to ``limit_bytes`` until the end of the current context (`contextvars`).

    Raises:
        InputError: ``limit_bytes`` is not above 0.
    """
    if limit_bytes < 1:
        raise InputError(f"a memory limit of {limit_bytes} bytes is too small; expected a number above 0")
    _ASKED.set(limit_bytes)


def said(size: float) -> str:
    """A number of bytes as text.

    >>> said(163_000_000 * 4), said(3e4), said(2.5e13)
    ('652 MB', '0.03 MB', '25,000 GB')
    """
    if size >= 1e9:
        return f"{size / 1e9:,.0f} GB" if size >= 1e10 else f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e6:.2f} MB"


def _free() -> int:
    found = [_available(), _left_of_cgroup(), _left_of_rlimits()]
    return max(1, min((n for n in found if n is not None), default=_UNKNOWN))


def _available() -> int | None:
    """The memory that the machine can provide without swapping."""
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        lines = []
    sizes = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    if "MemAvailable" in sizes:
        return 1024 * int(sizes["MemAvailable"][0])
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def _left_of_cgroup() -> int | None:
    for folder, most, used, cache in _CGROUPS:
        try:
            allowed = (folder / most).read_text().strip()
            if not allowed.isdigit():
                continue
            taken = int((folder / used).read_text())
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        # Cached pages of files count as used, but can be reclaimed.
        return int(allowed) - taken + int(statistics.get(cache, 0))
    return None


def _left_of_rlimits() -> int | None:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return None
    used = _own_pages()
    kinds = ((resource.RLIMIT_AS, used[0]), (resource.RLIMIT_DATA, used[1]))
    left = [resource.getrlimit(kind)[0] - own for kind, own in kinds if resource.getrlimit(kind)[0] != -1]
    return min(left, default=None)


def _own_pages() -> tuple[int, int]:
    """Bytes of the address space and of the data of this process."""
    try:
        fields = Path("/proc/self/statm").read_text().split()
    except OSError:
        return 0, 0
    size = os.sysconf("SC_PAGE_SIZE")
    return int(fields[0]) * size, int(fields[5]) * size
