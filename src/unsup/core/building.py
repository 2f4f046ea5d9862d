"""Limits on a model that is being built: it is refused before it uses more memory than is available."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from unsup.core import memory
from unsup.core.deadline import sets_mode
from unsup.core.errors import InputError
from unsup.core.event import Event

_TENSORS = 20_000
"""The most parameters and buffers of one model. A larger number is a mistake that would take minutes to notice."""
_CALLS = 200_000
"""The most torch operations while one model is built, for the same reason."""
_BYTES_AN_ENTRY = 256
"""Bytes per number of an example while a model is built: a few numbers and Python objects."""
_WIDEST = 16
"""Bytes of one entry of the widest type."""
_SLACK = 2**28
"""Bytes allowed for Python modules that are imported in the meantime."""
_REFUSED = ("can't allocate memory", "not enough memory", "verflow", "negative dimension")
"""Messages with which torch reports that it could not create a tensor of that size."""


def check_size(event: Event) -> None:
    """Raise `InputError` for examples so large that no model of them could be built."""
    if event.dims * _BYTES_AN_ENTRY > memory.limit():
        raise InputError(
            f"one example of {event} has {event.dims:,} numbers, and a model of it needs more than the "
            f"{memory.said(memory.limit())} of memory available; use smaller examples"
        )


@contextmanager
def bounded(name: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Build one model inside this context; refuse it as soon as it is known not to fit into `memory.limit`.

    Args:
        name: name of the model, for the message.
        options: options of the model; the message lists the largest ones.

    Raises:
        InputError: one tensor, the total size, or the number of tensors is too large.
    """
    watch = _Watch(name, options)
    try:
        with watch, watch.registrations():
            yield
    except (MemoryError, OverflowError) as error:
        raise watch.refusal("one of its parts") from error
    except (RuntimeError, TypeError) as error:
        if any(words in str(error) for words in _REFUSED):
            raise watch.refusal("one of its tensors") from error
        raise


class _Watch(TorchFunctionMode):
    """Watches the torch calls of this thread while a model is built."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        super().__init__()
        self._name, self._options = name, options
        self._limit = memory.limit()
        self._thread = threading.get_ident()
        self._most = _peak() + self._limit + _SLACK
        self._calls = 0
        self._held: dict[int, Tensor] = {}
        self._bytes = self._parameters = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if sets_mode(func.__name__):  # a refusal here would leave the mode as it is inside
            return func(*args, **kwargs)
        self._calls += 1
        if self._calls > _CALLS:
            raise self.refusal(f"building it takes more than {_CALLS:,} operations; it", more=False)
        if _peak() > self._most:
            raise self.refusal("the part built so far")
        if _reach((args, kwargs)) * _WIDEST > self._limit:
            size = _bytes_to_come(func, args, kwargs)
            if size > self._limit:
                raise self.refusal(f"a single tensor takes {memory.said(size)} and", more=False)
        return func(*args, **kwargs)

    @contextmanager
    def registrations(self) -> Iterator[None]:
        """Count parameters and buffers inside this context, as modules register them."""
        with ExitStack() as stack:
            for register in (
                hooks.register_module_parameter_registration_hook,
                hooks.register_module_buffer_registration_hook,
            ):
                stack.callback(register(self._registered).remove)
            yield

    def _registered(self, module: nn.Module, name: str, tensor: Tensor | None) -> None:
        if tensor is None or threading.get_ident() != self._thread or id(tensor) in self._held:
            return
        self._held[id(tensor)] = tensor  # kept, so that no other tensor gets the same id
        self._bytes += tensor.numel() * tensor.element_size()
        self._parameters += tensor.numel() if isinstance(tensor, nn.Parameter) else 0
        if len(self._held) > _TENSORS:
            raise self.refusal(f"it has more than {_TENSORS:,} tensors and", more=False)
        if self._bytes > self._limit:
            counted = f"{self._parameters:,} parameters" if self._parameters else "tensors"
            raise self.refusal(f"the {counted} built so far take {memory.said(self._bytes)}; it")

    def refusal(self, what: str, *, more: bool = True) -> InputError:
        needs = "needs more memory than" if more else "is larger than"
        dials = ", ".join(f"{k}={v}" for k, v in _dials(self._options))
        return InputError(
            f"{self._name} is too large: {what} {needs} the {memory.said(self._limit)} available; choose smaller "
            f"{'options (now ' + dials + ')' if dials else 'examples'}, --preset tiny, or raise --max-memory"
        )


def _peak() -> int:
    """The peak memory of this process in bytes, or 0 if the system does not report it."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list)):
        for v in value:
            yield from _leaves(v)
    elif isinstance(value, Mapping):
        yield from _leaves(tuple(value.values()))
    else:
        yield value


def _reach(value: Any) -> int:
    """An upper bound on the entries that a call can create: the product of all sizes and integers in its arguments."""
    if isinstance(value, Tensor):
        return max(1, value.numel())
    if isinstance(value, int):
        return max(1, abs(value))
    if isinstance(value, (tuple, list)):
        return math.prod(map(_reach, value))
    return math.prod(map(_reach, value.values())) if isinstance(value, Mapping) else 1


def _bytes_to_come(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Bytes that the call will allocate, found with meta tensors; 0 if they cannot tell."""
    meta = torch.device("meta")

    def hollow(value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch.empty_like(value, device=meta, requires_grad=False)
        if isinstance(value, (tuple, list)):
            return type(value)(hollow(v) for v in value) if type(value) in (tuple, list) else value
        return value

    options = {k: hollow(v) for k, v in kwargs.items() if k not in ("generator", "out")}
    if not any(isinstance(leaf, Tensor) for leaf in _leaves((args, kwargs))):
        options["device"] = meta
    try:
        made = func(*hollow(args), **options)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return 0  # it needs values, or fails: then the call itself reports it
    sizes = (leaf.untyped_storage().nbytes() for leaf in _leaves(made) if isinstance(leaf, Tensor) and leaf.is_meta)
    return max(sizes, default=0)


def _dials(options: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """The options with the largest integers, three at most."""

    def largest(value: Any) -> float:
        found = (leaf for leaf in _leaves(value) if isinstance(leaf, int) and not isinstance(leaf, bool))
        return max(found, default=-math.inf)

    counts = {k: v for k, v in options.items() if largest(v) > 1 and not k.endswith("seed")}
    return sorted(counts.items(), key=lambda item: -largest(item[1]))[:3]
