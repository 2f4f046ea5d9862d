"""Noise of a row that does not depend on its batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator
from torch.overrides import TorchFunctionMode


class RowNoise(TorchFunctionMode):
    """In this context, random tensors with the rows of the batch are drawn row by row, each from its own generator.

    Every row gets the same noise as in a batch of one row.
    """

    def __init__(self, generators: list[Generator]) -> None:
        super().__init__()
        self.generators = generators
        self.generator = Generator(generators[0].device)  # represents all of them in calls

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("generator") is not self.generator:
            return func(*args, **kwargs)
        if func not in (torch.rand, torch.randn):
            raise NotImplementedError(f"noise keyed by row supports torch.rand and torch.randn, not {func}")
        rows, *rest = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
        if rows != len(self.generators):
            raise NotImplementedError(f"noise keyed by row has the rows first; {(rows, *rest)} was requested")
        return torch.cat([func((1, *rest), **kwargs | {"generator": own}) for own in self.generators])
