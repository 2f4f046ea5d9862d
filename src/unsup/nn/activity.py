"""How the units of a code vary over examples, as sentences."""

from __future__ import annotations

from torch import Tensor

from unsup.core.words import counted
from unsup.nn.nets import UnitName

CONSTANT = 1e-3
"""A unit of a code is constant if its standard deviation over examples is smaller."""
_FEWEST_EXAMPLES = 20  # for a standard deviation


def activity_sentences(code: Tensor, activation: UnitName) -> tuple[str, ...]:
    """What a reader should know about the codes ``(B, F)`` of some examples.

    >>> import torch
    >>> activity_sentences(torch.linspace(0, 1, 100)[:, None] * torch.tensor([1.0, 0.0]), "linear")
    ('1 of 2 units of the code varies between examples',)
    """
    if len(code) < _FEWEST_EXAMPLES:
        return ()
    units, varying = code.shape[1], int((code.std(0, correction=0) > CONSTANT).sum())
    if not varying:
        return (f"the code has collapsed: its {counted(units, 'unit')} are the same for all examples",)
    told = f"{varying} of {units} units of the code {'varies' if varying == 1 else 'vary'} between examples"
    if activation == "sigmoid":
        told += f"; the mean activity is {float(code.mean()):.3f}"
    return (told,)
