"""K Gaussians with full, diagonal or tied covariances, for mixtures.

Each covariance is held by the upper-triangular factor of its inverse, Σ_k⁻¹ = U_k U_kᵀ, with the logarithm of its
diagonal: log N costs one product y U_k, and any value of the parameters is a proper density, so gradient ascent needs
no constraint. Missing entries (NaN) are integrated out: log N is that of the observed entries, and EM completes them by
their conditional means and covariances (Ghahramani, Jordan 1994, https://proceedings.neurips.cc/paper/1993/hash/
f2201f5191c4e92cc5af043eebfd0946-Abstract.html). Rows with the same entries missing are computed together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Generator, Tensor, nn

from unsup.core import random
from unsup.nn.columns import patterns
from unsup.prob import gaussian_em as em
from unsup.prob.distributions import LOG_2PI
from unsup.prob.gaussian_em import Structure
from unsup.prob.gaussians import conditional_moments, marginal_log_prob

_EMPTY = 1e-10  # of an entry that no example of a component has observed


class Gaussians(nn.Module):
    """Means and covariances of K components.

    Args:
        components: K.
        dims: D.
        structures: the forms that the covariances may have; ``form`` is the number of that in use.
        chooses: whether every component has a matrix of its own even if it is tied, so that the form may change.
    """

    form: Tensor

    def __init__(self, components: int, dims: int, structures: tuple[Structure, ...], *, chooses: bool) -> None:
        super().__init__()
        self.components, self.structures, self.chooses = components, structures, chooses
        if chooses:
            self.register_buffer("form", torch.zeros((), dtype=torch.int64))
        matrices = 1 if structures == ("tied",) and not chooses else components
        self.means = nn.Parameter(torch.randn(components, dims, dtype=torch.float64))
        self.log_diagonal = nn.Parameter(torch.zeros(matrices, dims, dtype=torch.float64))
        # The entries of U above its diagonal, row by row.
        above = dims * (dims - 1) // 2 if structures != ("diagonal",) else 0
        self.above = nn.Parameter(torch.zeros(matrices, above, dtype=torch.float64)) if above else None
        self.requires_grad_(dims > 0)  # a table may have no real column

    @property
    def structure(self) -> Structure:
        return self.structures[int(self.form)] if self.chooses else self.structures[0]

    @property
    def dims(self) -> int:
        return self.means.shape[1]

    def free(self, slots: Tensor, width: float) -> None:
        """Make components wide, bool ``(K,)``."""
        self.means[slots] = 0.0
        self.log_diagonal[slots] = -math.log(width)
        if self.above is not None:
            self.above[slots] = 0.0

    # --- matrices -------------------------------------------------------------------------------------------------

    def above_indices(self, device: torch.device) -> tuple[Tensor, Tensor]:
        row, column = torch.triu_indices(self.dims, self.dims, 1, device=device)
        return row, column

    def factors(self, used: Tensor) -> Tensor:
        """U with Σ⁻¹ = U Uᵀ, upper-triangular: ``(K, D, D)``, or ``(1, D, D)`` when tied.

        Args:
            used: which components are in use, bool ``(K,)``.
        """
        factor = torch.diag_embed(self.shared(self.log_diagonal, used).exp())
        if self.above is None or self.structure == "diagonal":
            return factor
        row, column = self.above_indices(factor.device)
        numbers = torch.arange(len(factor), device=factor.device)[:, None]
        return factor.index_put((numbers, row, column), self.shared(self.above, used))

    def shared(self, rows: Tensor, used: Tensor) -> Tensor:
        """Parameters of each component's matrix: where a tied one was chosen, all have that of the first."""
        if not self.chooses or self.structure != "tied":
            return rows
        return torch.where(used[:, None], rows[used.long().argmax()], rows)

    def covariances(self, used: Tensor) -> Tensor:
        """Σ = U⁻ᵀ U⁻¹ of every component, ``(K, D, D)``."""
        factors = self.factors(used)
        identity = torch.eye(self.dims, dtype=factors.dtype, device=factors.device)
        inverse = torch.linalg.solve_triangular(factors, identity.expand_as(factors), upper=True)
        return (inverse.mT @ inverse).expand(self.components, -1, -1)

    # --- densities ------------------------------------------------------------------------------------------------

    def log_prob(self, y: Tensor, used: Tensor, live: Tensor) -> Tensor:
        """log N(y; μ_k, Σ_k): ``(B, D)`` → ``(B, K)``; of components that are not ``live``, anything."""
        if not bool(y.isnan().any()):
            return self._log_prob_complete(y, used, live)
        if self.structure == "diagonal":
            return self.log_each(y, used).sum(1)
        found, covariances = y.new_zeros(len(y), self.components), self.covariances(used)
        for rows, seen in patterns(y):
            if len(seen) == y.shape[1]:
                part = self._log_prob_complete(y[rows], used, live)
            else:
                residual = y[rows][:, seen] - self.means[:, None, seen]
                part = marginal_log_prob(residual, covariances[:, seen][:, :, seen]).T
            found = found.index_copy(0, rows, part)
        return found

    def _log_prob_complete(self, y: Tensor, used: Tensor, live: Tensor) -> Tensor:
        factors = None if self.structure == "diagonal" else self.factors(used)
        diagonal = self.shared(self.log_diagonal, used)
        if not self.chooses:
            return em.log_normals(y, self.means, diagonal, factors)
        own = em.log_normals(y, self.means[live], diagonal[live], None if factors is None else factors[live])
        return y.new_zeros(len(y), self.components).index_copy(1, live.nonzero()[:, 0], own)

    def log_each(self, y: Tensor, used: Tensor) -> Tensor:
        """log p(y_d | the other observed entries, k), 0 for a missing entry: ``(B, D)`` → ``(B, D, K)``.

        With Λ = Σ⁻¹ of the observed entries that is a Gaussian of variance 1/Λ_dd whose residual is
        (Λ (y − μ))_d / Λ_dd.
        """
        found = y.new_zeros(*y.shape, self.components)
        if self.structure == "diagonal":
            gaps = y.isnan()
            white = (y.masked_fill(gaps, 0.0).unsqueeze(-1) - self.means.T) * self.log_diagonal.T.exp()
            each = -0.5 * (white.square() + LOG_2PI) + self.log_diagonal.T
            return each.masked_fill(gaps.unsqueeze(-1), 0.0)
        factors = self.factors(used).expand(self.components, -1, -1)
        for rows, seen in patterns(y):
            if len(seen) == y.shape[1]:
                precision = factors @ factors.mT
            else:
                precision = torch.linalg.inv(self.covariances(used)[:, seen][:, :, seen])
            diagonal = precision.diagonal(dim1=-2, dim2=-1)
            pull = (y[rows][:, seen] - self.means[:, None, seen]) @ precision  # (K, N, o)
            own = 0.5 * (diagonal.log() - LOG_2PI)[:, None] - 0.5 * pull.square() / diagonal[:, None]
            found[rows[:, None], seen] = own.permute(1, 2, 0)
        return found

    def in_turn(self, n: int, used: Tensor, gaps: Tensor | None) -> InTurn:
        """The distributions of the entries of ``n`` points, each given those before it.

        Args:
            gaps: which entries are missing, ``(n, D)``.
        """
        return InTurn(self, n, used, gaps)

    def draw(self, component: Tensor, used: Tensor, generator: Generator | None) -> Tensor:
        """y = μ_k + U_k⁻ᵀ ε: ``(N,)`` → ``(N, D)``."""
        y = self.means[component]
        noise = random.normal(y.shape, generator, like=y)
        if self.structure == "diagonal":
            return y + noise * (-self.log_diagonal[component]).exp()
        factors = self.factors(used).expand(self.components, -1, -1)
        for k in component.unique().tolist():
            rows = component == k
            y[rows] += torch.linalg.solve_triangular(factors[k].T, noise[rows].T, upper=False).T
        return y

    def fill(self, y: Tensor, component: Tensor, used: Tensor, generator: Generator | None) -> Tensor:
        """Missing entries (NaN) drawn given the others and a component: ``(N, D)``, ``(N,)`` → ``(N, D)``.

        With Λ = U Uᵀ and U_u the rows of the unknown entries, U_uᵀ = Q R,

            y_u ~ N(μ_u − Λ_uu⁻¹ Λ_uo (y_o − μ_o), Λ_uu⁻¹) = μ_u + R⁻¹ (ε − Qᵀ Uᵀ r),

        where the residual r = y − μ is 0 for unknown entries.
        """
        mean, gaps = self.means[component], y.isnan()
        noise = random.normal(y.shape, generator, like=mean)
        if self.structure == "diagonal":
            return torch.where(gaps, mean + noise * (-self.log_diagonal[component]).exp(), y)
        factors = self.factors(used).expand(self.components, -1, -1)
        residual, filled = (y - mean).masked_fill(gaps, 0.0), y.clone()
        for rows, _ in patterns(y):
            unknown = gaps[rows[0]].nonzero().squeeze(1)
            for k in component[rows].unique().tolist() if len(unknown) else ():
                own = rows[component[rows] == k]
                q, r = torch.linalg.qr(factors[k][unknown].T)
                white = noise[own[:, None], unknown] - residual[own] @ factors[k] @ q
                drawn = mean[own[:, None], unknown] + torch.linalg.solve_triangular(r, white.T, upper=True).T
                filled[own[:, None], unknown] = drawn
        return filled

    def given(self, y: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
        """p(y_d | the entries that are there, k) of missing entries (NaN): means and log-deviations, ``(N, K, D)``.

        Those of entries that are there mean nothing.
        """
        shape = (len(y), self.components, self.dims)
        if self.structure == "diagonal" or not self.dims:
            log_std = -self.shared(self.log_diagonal, used)
            return self.means.expand(shape), log_std.expand(shape)
        covariances = self.covariances(used).expand(self.components, -1, -1)
        means, variances = self.means.new_zeros(shape), self.means.new_ones(shape)
        for rows, seen in patterns(y):
            mean, left = conditional_moments(y[rows][:, seen] - self.means[:, None, seen], covariances, seen)
            means[rows] = mean.movedim(1, 0) + self.means
            variances[rows] = left.diagonal(dim1=-2, dim2=-1)
        return means, 0.5 * variances.clamp(min=torch.finfo(variances.dtype).tiny).log()

    # --- learning -------------------------------------------------------------------------------------------------

    def moments(self, y: Tensor, responsibility: Tensor, weight: Tensor | None, used: Tensor) -> dict[str, Tensor]:
        """``first`` and ``second`` moments of y: the second about the current means when full, else about zero.

        Missing entries are those of their conditional distribution. Diagonal Gaussians do not need them: ``seen`` is
        the weight of the observed ones.
        """
        if not self.dims:
            return {}
        if not bool(y.isnan().any()):
            seen = (
                {"seen": responsibility.sum(0)[:, None].expand_as(self.means)} if self.structure == "diagonal" else {}
            )
            return self._moments_complete(y, responsibility, weight) | seen
        if self.structure == "diagonal":
            there = ~y.isnan()
            y = y.masked_fill(~there, 0.0)
            seen = {"seen": responsibility.T @ there.to(y.dtype)}
            return {"first": responsibility.T @ y, "second": responsibility.T @ y.square()} | seen
        covariances, tied = self.covariances(used), self.structure == "tied"
        if self.chooses:
            responsibility = responsibility.clone()
            noise = responsibility[:, -1:].clone()
            responsibility[:, -1] = 0.0
        first, second = torch.zeros_like(self.means), torch.zeros_like(covariances)
        for rows, seen_entries in patterns(y):
            residual = y[rows][:, seen_entries] - self.means[:, None, seen_entries]
            mean, left = conditional_moments(residual, covariances, seen_entries)  # about µ_k
            own = responsibility[rows].T  # (K, N)
            sums = (own.unsqueeze(-1) * mean).sum(1)
            first += sums
            second += (own.unsqueeze(-1) * mean).mT @ mean + own.sum(1)[:, None, None] * left
        total = responsibility.sum(0)
        if tied:  # about zero, all components together
            cross = first[:, :, None] * self.means[:, None, :]
            outer = total[:, None, None] * self.means[:, :, None] * self.means[:, None, :]
            second = (second + cross + cross.mT + outer).sum(0)
        first = first + total[:, None] * self.means
        if self.chooses:
            first[-1] += noise.sum() * self.means[-1]  # of no use: noise learns nothing
        return {"first": first, "second": second}

    def _moments_complete(self, y: Tensor, responsibility: Tensor, weight: Tensor | None) -> dict[str, Tensor]:
        first = {"first": responsibility.T @ y}  # (K, D)
        if self.structure == "diagonal":
            return first | {"second": responsibility.T @ y.square()}  # (K, D)
        if self.chooses:
            responsibility = responsibility.clone()
            responsibility[:, -1] = 0.0  # the noise learns no shape
            weight = responsibility.sum(1)
        if self.structure == "tied":
            return first | {"second": (y if weight is None else y * weight[:, None]).T @ y}  # (D, D)
        some = responsibility.sum(0) > 0  # others are not used, or noise
        second = y.new_zeros(len(some), y.shape[1], y.shape[1])
        second[some] = em.scatters(y, responsibility[:, some], self.means[some])
        return first | {"second": second}  # (K, D, D)

    def maximize(
        self, sums: Mapping[str, Tensor], alive: Tensor, *, floor: float, spread: Tensor | None, prior: float
    ) -> None:
        """The M step of the components that are ``alive``.

        Args:
            sums: `moments`, ``weight`` and ``count``.
            floor: added to variances.
            spread: V of the prior, ``(D,)``, which is worth ``prior`` examples; None without a prior.
        """
        if not self.dims:
            return
        weight, second = sums["weight"], sums["second"]
        each = sums["seen"] if self.structure == "diagonal" else weight[:, None].expand_as(self.means)
        there = alive[:, None] & (each > _EMPTY)
        safe = torch.where(there, each, 1.0)
        means = torch.where(there, sums["first"] / safe, self.means)
        kept, above = there, None

        def smoothed(covariance: Tensor, weight: Tensor) -> Tensor:
            """Variances ``(M, D)`` or covariances ``(M, D, D)`` with what the prior adds: N Σ + V over N + 1."""
            if spread is None:
                return covariance
            own = spread if covariance.ndim == 2 else spread.diag()
            return (weight * covariance + prior * own) / (weight + prior)

        if self.structure == "diagonal":
            variance = smoothed(second / safe - means.square(), safe) + floor
            variance[~there] = 1.0
            em.check_positive((variance <= 0).any(1), floor)
            log_diagonal = -0.5 * variance.log()
        elif self.structure == "tied":
            own = torch.where(alive, weight, 0.0) if self.chooses else weight
            total = own.sum() if self.chooses else sums["count"]
            scatter = second - (means * own[:, None]).T @ means
            log_diagonal, above = self._factorise(smoothed((scatter / total)[None], total), floor)
            kept = alive[:, None] if self.chooses else alive.new_ones(1, 1)
        else:
            safe = torch.where(alive, weight, 1.0)
            shift = means - self.means
            matrix = second / safe[:, None, None] - shift[:, :, None] * shift[:, None, :]
            matrix = smoothed(matrix, safe[:, None, None])
            matrix[~alive] = torch.eye(self.dims, dtype=means.dtype, device=means.device)
            log_diagonal, above = self._factorise(matrix, floor)
            kept = alive[:, None]
        self.means.copy_(means)
        self.log_diagonal.copy_(torch.where(kept, log_diagonal, self.log_diagonal))
        if self.above is not None and above is not None:
            self.above.copy_(torch.where(kept, above, self.above))

    def _factorise(self, matrix: Tensor, floor: float) -> tuple[Tensor, Tensor]:
        """Covariances ``(M, D, D)`` without the floor → log-diagonal and upper part of U with Σ⁻¹ = U Uᵀ."""
        factor = em.inverse_factors(matrix, floor)
        row, column = self.above_indices(matrix.device)
        return factor.diagonal(dim1=-2, dim2=-1).log(), factor[:, row, column]

    def log_prior(self, used: Tensor, spread: Tensor, prior: float) -> Tensor:
        """Σ_k −½ (log|Σ_k| + tr(V Σ_k⁻¹)), V the spread: a prior worth one example each."""
        own = used & (used.cumsum(0) == 1) if self.structure == "tied" else used
        trace = (2 * self.log_diagonal[own]).exp() @ spread
        if self.above is not None:
            row, _ = self.above_indices(self.above.device)
            trace = trace + self.above[own].square() @ spread[row]
        return 0.5 * prior * (2 * self.log_diagonal[own].sum() - trace.sum())


class InTurn:
    """p(y_d | y_<d, k) of every component, for entries in turn.

    With r = y − μ, |Uᵀ r|² has the terms w_d = U_dd r_d + Σ_{j<d} U_jd r_j, so that

        y_d ~ N(μ_d − Σ_{j<d} U_jd r_j / U_dd, 1 / U_dd²),

    without an inverse. Where entries are missing, Uᵀ = Q R with the columns of the missing entries first and the
    others in reverse: the lower right part of R is the Uᵀ of the observed entries, reversed.
    """

    def __init__(self, gaussians: Gaussians, n: int, used: Tensor, gaps: Tensor | None) -> None:
        self.means, self.residual, self.parts = gaussians.means, None, []
        self.log_diagonal = gaussians.shared(gaussians.log_diagonal, used)
        if gaussians.structure == "diagonal" or not gaussians.dims:
            return
        factors = gaussians.factors(used)
        self.residual = self.means.new_zeros(n, *self.means.shape)
        raw = self.means.new_zeros(n, gaussians.dims)
        for rows, seen in patterns(raw if gaps is None else raw.masked_fill(gaps, math.nan)):
            self.parts.append((rows, seen.tolist(), _marginal_factors(factors, seen)))

    def of(self, entry: int) -> tuple[Tensor, Tensor]:
        """Means and log-deviations: ``(n, K)``, or ``(K,)`` where they do not depend on the point."""
        if self.residual is None:
            return self.means[:, entry], (-self.log_diagonal[:, entry]).expand(len(self.means))
        mean = self.means[:, entry].expand(len(self.residual), -1).clone()
        log_std = torch.zeros_like(mean)
        for rows, seen, factors in self.parts:
            if entry in seen:
                diagonal = factors[:, entry, entry]
                pull = torch.einsum(
                    "nkj,kj->nk", self.residual[rows, :, :entry], factors[:, :entry, entry].expand(len(self.means), -1)
                )
                mean[rows] -= pull / diagonal
                log_std[rows] = -diagonal.log()
        return mean, log_std

    def put(self, entry: int, y: Tensor) -> None:
        """Take an entry of the points, ``(n,)``; NaN is missing."""
        if self.residual is not None:
            self.residual[:, :, entry] = (y[:, None] - self.means[:, entry]).nan_to_num(0.0)


def _marginal_factors(factors: Tensor, seen: Tensor) -> Tensor:
    """Upper-triangular factors of the precisions of some entries, at their places: ``(K, D, D)`` → ``(K, D, D)``."""
    dims = factors.shape[-1]
    if len(seen) == dims:
        return factors
    hidden = torch.tensor([d for d in range(dims) if d not in seen.tolist()], device=seen.device)
    order = torch.cat([hidden, seen.flip(0)])
    upper = torch.linalg.qr(factors.mT[:, :, order], mode="r").R[:, len(hidden) :, len(hidden) :]
    upper = upper * upper.diagonal(dim1=-2, dim2=-1).sign()[:, :, None]
    found = torch.zeros_like(factors)
    found[:, seen[:, None], seen] = upper.flip(-1, -2).mT
    return found
