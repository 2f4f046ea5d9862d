"""Factor analysis: x = W z + μ + ε with z ~ N(0, I) of M numbers and ε ~ N(0, Ψ) with a diagonal Ψ, so that

    x ~ N(μ, W Wᵀ + Ψ).

Each entry has noise of its own, so that W explains what entries share, in any units. EM (Rubin, Thayer 1982,
https://doi.org/10.1007/BF02293851) alternates

    E:  E[z | x] = G⁻¹WᵀΨ⁻¹(x − μ),  Cov[z | x] = G⁻¹,  G = I + WᵀΨ⁻¹W
    M:  (w_d, μ_d) is the regression of x_d on z, and ψ_d the mean square of what it leaves.

From a covariance S, W is maximised exactly in every step, given Ψ, by the eigenvalues of Ψ^-½ S Ψ^-½ (Jöreskog 1967,
https://doi.org/10.1007/BF02289658), so that EM is left with Ψ = diag(S − W Wᵀ).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from unsup.core.config import Count, Weight
from unsup.core.event import Event
from unsup.core.model import Advice, Symptom
from unsup.nn.linear_gaussian import LinearGaussian
from unsup.prob import linear_gaussian as lg

_MOST_NAMED = 5  # columns in a message


class FactorAnalysis(LinearGaussian):
    """Factor analysis: M common factors, and noise of its own in every entry (EM: Rubin, Thayer 1982).

    If no entry may be missing and there are at most 1,024 entries, one pass counts the covariance, and EM works on it.
    Otherwise every pass is an EM step on sums of size D × M, from the principal directions of training examples. No
    step lowers the likelihood. The fit does not depend on the units of the entries. Missing entries are integrated out.

    The likelihood of real data is exact. Levels are dequantised, so that it is a bound. Categories are refused. An
    entry that the factors explain completely (a Heywood case) has the noise variance ``floor``, and is reported. The
    ``paper`` preset is the default, since the method has no architecture.

    Args:
        event: two or more entries, none of them of three or more unordered symbols.
        components: M, less than the number of entries, or ``auto``: the number with the lowest BIC of 1, 2, 3, 5, 8,
            12, … 64, each fitted to up to 2,000 training examples until two in a row have not helped.
        floor: the least noise variance, in units of each entry's variance.
        iterations: the most EM steps.
        tolerance: EM stops when a step raises the mean log-likelihood by less than this, in nats per entry.

    Raises:
        InputError: as many components as entries, or more.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = FactorAnalysis(Event((5,), Support("real")), components=2)
    >>> model.decode(torch.zeros(3, 2)).shape
    torch.Size([3, 5])
    """

    presets = {"tiny": {"components": 1, "iterations": 200}, "paper": {}}

    converged: Tensor

    def __init__(
        self,
        event: Event,
        *,
        components: Count | Literal["auto"] = "auto",
        floor: Weight = 1e-6,
        iterations: Count = 1000,
        tolerance: Weight = 1e-5,
    ) -> None:
        self.take(
            event, components, shared=False, units="each", floor=floor, iterations=iterations, tolerance=tolerance
        )
        self.register_buffer("converged", torch.tensor(True))  # of EM on a covariance

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        """More components than are chosen, where entries are many. It takes part in comparisons that name it."""
        return Advice({"components": min(100, max(1, examples // 10))} if event.dims > 256 else {}, turn=None)

    def fit_covariance(self, covariance: Tensor, components: int) -> tuple[Tensor, Tensor]:
        found = lg.factorise(
            covariance,
            self.log_noise.detach(),
            components,
            floor=self.floor,
            tolerance=self.tolerance,
            iterations=self.iterations,
        )
        self.converged.fill_(found.converged)
        return found.loadings, found.log_noise

    def diagnose(self, terms: Mapping[str, float]) -> Symptom | None:
        """Heywood cases, or EM on a covariance that has not converged."""
        loadings, log_noise = (part.detach() for part in self._factors())
        noise = log_noise.exp()
        # A constant entry has no variance that factors could explain.
        explained = (noise <= 1.001 * self.floor) & (loadings.square().sum(1) > noise)
        places = explained.nonzero()[:, 0].tolist()
        if places:
            named = ", ".join(str(d) for d in places[:_MOST_NAMED]) + (", …" if len(places) > _MOST_NAMED else "")
            return Symptom(
                "heywood",
                f"the factors explain {len(places)} of {len(noise)} entries completely (number {named}): only "
                f"floor={self.floor:g} keeps their noise variance above 0, and new data may score far lower than the "
                "training data; use fewer components, raise floor, or drop columns that others determine",
            )
        if not bool(self.converged):
            return Symptom(
                "unconverged",
                f"the likelihood still rose by {self.tolerance:g} nats or more a step after {self.iterations:,} "
                "steps of EM; raise iterations",
            )
        return None
