"""Variable elimination in products of tables: sums over many discrete variables, exactly.

Σ_v Π_f f = (Π of the factors without v) · Σ_v (Π of the factors with v): variables are summed out one at a time, and
the cost is that of the largest product on the way, which the order decides (Koller, Friedman 2009, chapter 9). The
order is greedy by *min-fill*: next is the variable whose elimination adds the fewest edges between others (the cheaper
one of several), which is optimal in trees. Evidence is sliced out of the factors before any product.

Factors have a batch axis, so that examples with the same variables observed are one computation. Values are
probabilities; after each sum they are divided by their maximum, whose logarithm is kept, so that nothing underflows.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unsup.core.errors import InputError

MOST_CELLS = 2**25
"""Of one product of factors, for one example."""


@dataclass(frozen=True)
class Factor:
    """A nonnegative table over some variables, for each of B examples, or one for all.

    Attributes:
        variables: in the order of the axes.
        values: ``(B, *sizes)`` or ``(1, *sizes)``.
    """

    variables: tuple[int, ...]
    values: Tensor


@dataclass(frozen=True)
class Plan:
    """The order of an elimination, and the number of cells of its largest product."""

    order: tuple[int, ...]
    cells: int


def ancestors(parents: Sequence[Sequence[int]], nodes: Iterable[int]) -> set[int]:
    """``nodes`` and all their ancestors. Other nodes are *barren*: their tables sum to one.

    >>> sorted(ancestors([[], [0], [1], [1]], [2]))
    [0, 1, 2]
    """
    found: set[int] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(parents[node])
    return found


def connected(scopes: Sequence[Collection[int]], variables: Iterable[int]) -> set[int]:
    """All variables that are joined to ``variables`` by chains of factors with these scopes.

    >>> sorted(connected([(0, 1), (1, 2), (3, 4)], [2]))
    [0, 1, 2]
    """
    owners: dict[int, list[int]] = {}
    for number, scope in enumerate(scopes):
        for v in scope:
            owners.setdefault(v, []).append(number)
    found, waiting = set(variables), list(variables)
    while waiting:
        for number in owners.get(waiting.pop(), ()):
            new = set(scopes[number]) - found
            found |= new
            waiting.extend(new)
    return found


def min_fill(scopes: Iterable[Collection[int]], sizes: Sequence[int], keep: Collection[int]) -> Plan:
    """An order in which to sum out all variables of these factors but those to ``keep``.

    >>> min_fill([(0, 1), (1, 2), (2, 3)], [2, 2, 2, 2], keep=[3])
    Plan(order=(0, 1, 2), cells=4)
    """
    neighbours: dict[int, set[int]] = {}
    for scope in scopes:
        for v in scope:
            neighbours.setdefault(v, set()).update(scope)
    for v, near in neighbours.items():
        near.discard(v)
    waiting = sorted(neighbours.keys() - set(keep))
    order: list[int] = []
    most = 1
    while waiting:
        best, lowest = waiting[0], (math.inf, math.inf)
        for v in waiting:
            near = neighbours[v]
            # Each missing edge between two neighbours is seen from both sides.
            fill = sum(len(near) - 1 - len(near & neighbours[a]) for a in near)
            cost = (fill, math.prod(sizes[a] for a in near))
            if cost < lowest:
                best, lowest = v, cost
            if not fill:  # such a variable may come first in an optimal order
                best = v
                break
        near = neighbours.pop(best)
        most = max(most, sizes[best] * math.prod(sizes[a] for a in near))
        for a in near:
            neighbours[a] |= near
            neighbours[a] -= {a, best}
        waiting.remove(best)
        order.append(best)
    kept = math.prod(sizes[v] for v in keep)
    return Plan(tuple(order), max(most, kept))


def check_width(plan: Plan, what: str) -> None:
    """Raise `InputError` if an elimination needs a table of more than `MOST_CELLS` cells."""
    if plan.cells > MOST_CELLS:
        raise InputError(
            f"{what} needs a table of {plan.cells:,} cells, because many variables depend on each other given the "
            f"observed ones; at most {MOST_CELLS:,} are possible; use fewer parents, or structure='chow-liu'"
        )


def product(factors: Sequence[Factor]) -> Factor:
    """The product, over the union of the variables in ascending order."""
    variables = tuple(sorted({v for f in factors for v in f.variables}))
    total: Tensor | None = None
    for factor in sorted(factors, key=lambda f: f.values.numel()):
        order = sorted(range(len(factor.variables)), key=factor.variables.__getitem__)
        values = factor.values.permute(0, *(1 + a for a in order))
        sizes = dict(zip((factor.variables[a] for a in order), values.shape[1:], strict=True))
        values = values.reshape(len(values), *(sizes.get(v, 1) for v in variables))
        total = values if total is None else total * values
    assert total is not None
    return Factor(variables, total)


def eliminate(factors: Iterable[Factor], order: Sequence[int]) -> tuple[list[Factor], Tensor, list[Factor]]:
    """Sum variables out of a product of factors, in this order.

    Returns:
        The factors that are left, over the other variables; the logarithm of what they are to be multiplied with,
        ``(B,)`` or ``(1,)``; and the product from which each variable was summed out, for draws backwards.
    """
    left: dict[int, Factor] = dict(enumerate(factors))
    owners: dict[int, set[int]] = {}
    for number, factor in left.items():
        for v in factor.variables:
            owners.setdefault(v, set()).add(number)
    like = next(iter(left.values())).values
    log_scale, products, following = like.new_zeros(1), [], len(left)
    for v in order:
        numbers = owners.pop(v)
        whole = product([left.pop(number) for number in sorted(numbers)])
        products.append(whole)
        summed, log_top = scaled(whole.values.sum(1 + whole.variables.index(v)))
        log_scale = log_scale + log_top
        rest = tuple(a for a in whole.variables if a != v)
        for a in rest:
            owners[a] = owners[a] - numbers | {following}
        left[following] = Factor(rest, summed)
        following += 1
    return list(left.values()), log_scale, products


def scaled(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values ``(B, ...)`` divided by their maximum in each example, and its logarithm, ``(B,)``."""
    top = values.amax(tuple(range(1, values.ndim))) if values.ndim > 1 else values
    safe = torch.where(top > 0, top, torch.ones_like(top))
    return values / safe.view(-1, *(1,) * (values.ndim - 1)), top.log()


def table_over(factors: Sequence[Factor], variables: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The product of factors over ``variables`` in this order, ``(B, *sizes)``, scaled, and its log-scale ``(B,)``."""
    whole = product(factors)
    assert set(whole.variables) == set(variables)
    values, log_top = scaled(whole.values.permute(0, *(1 + whole.variables.index(v) for v in variables)))
    return values, log_top


def sliced(table: Tensor, variables: Sequence[int], cells: Tensor, seen: Collection[int]) -> Factor:
    """A table over ``variables`` at the observed values of some of them.

    Args:
        table: one axis for each variable.
        variables: their numbers.
        cells: values of all variables, ``(B, D)``; only those of ``seen`` are read.
        seen: the observed variables.
    """
    fixed = [a for a, v in enumerate(variables) if v in seen]
    free = [a for a, v in enumerate(variables) if v not in seen]
    sizes = [table.shape[a] for a in free]
    values = table.permute(*fixed, *free).reshape(-1, *sizes)
    if fixed:
        index = cells.new_zeros(len(cells))
        for a in fixed:
            index = index * table.shape[a] + cells[:, variables[a]]
        values = values[index]
    return Factor(tuple(variables[a] for a in free), values)


def sliced_batch(factor: Factor, cells: Tensor, free: int) -> Tensor:
    """A factor at the values of all its variables but one: ``(B, levels of that)``; ``cells`` are ``(B, D)``."""
    axis = 1 + factor.variables.index(free)
    others = [v for v in factor.variables if v != free]
    values = factor.values.movedim(axis, -1)
    values = values.expand(len(cells), *values.shape[1:])
    return values[(torch.arange(len(cells), device=cells.device), *(cells[:, v] for v in others))]


def beliefs(order: Sequence[int], products: Sequence[Factor]) -> list[Factor]:
    """p(variables of each product | evidence), from one elimination of all variables, backwards.

    The sum over v of a product is part of a later product, that of the other variable which is summed out first. There
    p(others) is known, and p(v, others) = p(v | others) p(others), where p(v | others) is the product over its sum.

    Args:
        order, products: of `eliminate`, nothing kept; the evidence has a probability above 0.
    """
    place = {v: k for k, v in enumerate(order)}
    found: list[Factor] = list(products)
    for k in reversed(range(len(order))):
        whole = products[k]
        axis = 1 + whole.variables.index(order[k])
        others = [v for v in whole.variables if v != order[k]]
        given = whole.values / whole.values.sum(axis, keepdim=True).clamp(min=torch.finfo(whole.values.dtype).tiny)
        if others:
            above = marginal(found[min(place[v] for v in others)], others)
            given = given * above.values.unsqueeze(axis)
        found[k] = Factor(whole.variables, given)
    return found


def marginal(factor: Factor, variables: Sequence[int]) -> Factor:
    """The sum over all variables but these, which stay in the order of the factor."""
    rest = [1 + a for a, v in enumerate(factor.variables) if v not in variables]
    kept = tuple(v for v in factor.variables if v in variables)
    return Factor(kept, factor.values.sum(rest) if rest else factor.values)
