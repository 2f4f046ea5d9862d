"""Running averages of batch normalisations that are those of given examples.

They are 0 and 1 where nothing has been trained, and codes in evaluation mode are then far from those in training mode.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unsup.core.errors import CapabilityError
from unsup.core.model import CanEncode, Model, keyed_generator
from unsup.nn.norm import BatchNorm


@torch.no_grad()
def set_running_moments(model: Model, x: Tensor, *, size: int) -> bool:
    """Set the running averages of every `BatchNorm` to the means of the moments of batches of examples, in place.

    Args:
        model: an encoder; all batches pass it in training mode, and its mode is restored.
        x: raw examples, ``(N, *event.shape)``, two or more; they are shuffled, since data may be sorted by class.
        size: of a batch; a remainder is spread over the batches.

    Returns:
        Whether there is a `BatchNorm`; if not, nothing is computed.

    Raises:
        CapabilityError: the model does not encode.

    >>> import unsup
    >>> digits = unsup.load_data("digits")
    >>> set_running_moments(unsup.create("vae", digits.event, preset="tiny"), digits.train.x, size=128)
    False
    >>> set_running_moments(unsup.create("simclr", digits.event, preset="tiny"), digits.train.x, size=128)
    True
    """
    if not isinstance(model, CanEncode):
        raise CapabilityError(f"{type(model).__name__} has no codes; unsup models lists models that encode")
    norms = {norm: norm.momentum for norm in model.modules() if isinstance(norm, BatchNorm)}
    if not norms:
        return False
    was_training = model.training
    model.train()
    order = torch.randperm(len(x), generator=keyed_generator(0))
    for number, rows in enumerate(order.tensor_split(max(1, len(x) // size)), start=1):
        for norm in norms:
            norm.momentum = 1 / number  # a mean over batches
        model.encode(x[rows].to(model.device))
    for norm, momentum in norms.items():
        norm.momentum = momentum
    model.train(was_training)
    return True
