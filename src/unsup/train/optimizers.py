"""A table of optimizers by name, with functions that build them from common settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adamax, AdamW, Optimizer, RMSprop

from unsup.core.errors import InputError, nearest

OptimizerName = Literal["adam", "rmsprop", "sgd", "adagrad", "adamax", "lars"]


@dataclass(frozen=True)
class Rates:
    """The settings of an optimizer.

    Attributes:
        lr: learning rate.
        betas: the first is a momentum, the second the decay of an average of squares.
        eps: term added to denominators.
        weight_decay: weight decay of the parameters that decay.
        sharded: whether parameters are sharded over processes, which not all fast kernels support.
    """

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    sharded: bool = False


Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """One optimizer: its paper, and a function that builds it from parameter groups and `Rates`."""

    paper: str
    build: Callable[[Groups, Rates], Optimizer]


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling, for large batches (You, Gitman, Ginsburg 2017, https://arxiv.org/abs/1708.03888).

        λ = η ‖w‖ / (‖g‖ + β ‖w‖),   v ← m v + γ λ (g + β w),   w ← w − v

    for each tensor w with gradient g; λ is 1 if ‖w‖ or ‖g‖ is 0, so that parameters initialised to 0 are updated. In
    groups with ``adapt`` False, λ is 1, as is usual for biases and gains.

    Args:
        parameters: tensors, or groups of them.
        lr: γ.
        momentum: m.
        weight_decay: β.
        trust: η.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 1e-3,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapt": True}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update with the current gradients."""
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is not None:
                    update = w.grad.add(w, alpha=group["weight_decay"])
                    rate = group["lr"] * self._trust(w, w.grad, group) if group["adapt"] else group["lr"]
                    state = self.state[w]
                    if "momentum" not in state:
                        state["momentum"] = torch.zeros_like(w)
                    w.sub_(state["momentum"].mul_(group["momentum"]).add_(update * rate))

    @staticmethod
    def _trust(w: Tensor, g: Tensor, group: dict[str, Any]) -> Tensor:
        of_w, of_g = w.norm(), g.norm()
        ratio = group["trust"] * of_w / (of_g + group["weight_decay"] * of_w)
        return torch.where((of_w > 0) & (of_g > 0), ratio, 1.0)


def _adam(groups: Groups, s: Rates) -> Optimizer:
    return AdamW(groups, lr=s.lr, betas=s.betas, eps=s.eps, weight_decay=s.weight_decay, fused=True)


def _rmsprop(groups: Groups, s: Rates) -> Optimizer:
    return RMSprop(groups, lr=s.lr, alpha=s.betas[1], eps=s.eps, weight_decay=s.weight_decay, foreach=True)


def _sgd(groups: Groups, s: Rates) -> Optimizer:
    return SGD(groups, lr=s.lr, momentum=s.betas[0], weight_decay=s.weight_decay, fused=not s.sharded)


def _adagrad(groups: Groups, s: Rates) -> Optimizer:
    return Adagrad(groups, lr=s.lr, eps=s.eps, weight_decay=s.weight_decay, foreach=True)


def _adamax(groups: Groups, s: Rates) -> Optimizer:
    return Adamax(groups, lr=s.lr, betas=s.betas, eps=s.eps, weight_decay=s.weight_decay, foreach=True)


def _lars(groups: Groups, s: Rates) -> Optimizer:
    return LARS(groups, s.lr, momentum=s.betas[0], weight_decay=s.weight_decay)


OPTIMIZERS: dict[OptimizerName, Row] = {
    "adam": Row("Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101", _adam),
    "rmsprop": Row("Tieleman & Hinton 2012, lecture 6.5 of Neural Networks for Machine Learning", _rmsprop),
    "sgd": Row("Sutskever, Martens, Dahl, Hinton 2013, https://proceedings.mlr.press/v28/sutskever13.html", _sgd),
    "adagrad": Row("Duchi, Hazan, Singer 2011, https://jmlr.org/papers/v12/duchi11a.html", _adagrad),
    "adamax": Row("Kingma & Ba 2015, section 7, https://arxiv.org/abs/1412.6980", _adamax),
    "lars": Row("You, Gitman, Ginsburg 2017, https://arxiv.org/abs/1708.03888", _lars),
}


def build_optimizer(
    name: OptimizerName, parameters: Sequence[Tensor], undecayed: Iterable[Tensor], rates: Rates
) -> Optimizer:
    """Build the optimizer ``name`` for ``parameters``; those in ``undecayed`` have no weight decay.

    LARS does not adapt the rate of the latter either.

    >>> w, b = torch.ones(2, 2, requires_grad=True), torch.ones(2, requires_grad=True)
    >>> found = build_optimizer("sgd", [w, b], [b], Rates(0.1, (0.0, 0.0), 0.0, 0.5))
    >>> [group["weight_decay"] for group in found.param_groups]
    [0.5, 0.0]
    """
    if name not in OPTIMIZERS:
        raise InputError(f"there is no optimizer {name!r}{nearest(name, OPTIMIZERS)}")
    spared = {id(p) for p in undecayed} if rates.weight_decay or name == "lars" else set()
    apart: dict[str, Any] = {"weight_decay": 0.0} | ({"adapt": False} if name == "lars" else {})
    kept = [p for p in parameters if id(p) not in spared]
    rest = [p for p in parameters if id(p) in spared]
    groups: Groups = ([{"params": kept}] if kept else []) + ([{"params": rest} | apart] if rest else [])
    return OPTIMIZERS[name].build(groups, rates)
