"""Naive Bayes against scikit-learn, and Bayesian networks against pgmpy (if it is installed), on drawn tables."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, GaussianNB
from torch import Tensor

from benchmarks.harness import Several, interleave
from unsup.core.batch import Batch
from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.core.model import keyed_generator
from unsup.families.classical.bayes_net import BayesNet
from unsup.families.classical.naive_bayes import NaiveBayes

ROWS, CLASSES = 20_000, 10
QUERIES = 50


def naive_bayes_peers() -> Several:
    """Fit and predict_proba on the same rows."""
    generator = keyed_generator(0)
    y = torch.randint(CLASSES, (ROWS,), generator=generator)
    kinds: tuple[tuple[str, Event, Any], ...] = (
        ("784 binary columns", Event((784,), BINARY), BernoulliNB()),
        ("40 columns of 10 categories", Event((40,), Support("nominal", 10)), CategoricalNB()),
        ("100 real columns", Event((100,), REAL, precision="float64"), GaussianNB()),
    )
    found = []
    for title, event, peer in kinds:
        noise = torch.rand((ROWS, event.dims), generator=generator, dtype=torch.float64) ** (1 + 0.1 * y[:, None])
        support = event.columns[0]
        x = (noise * support.levels).floor().to(event.dtype) if support.is_discrete else noise
        rows, label = x.numpy(), y.numpy()

        def ours(event: Event = event, x: Tensor = x) -> None:
            model = NaiveBayes(event, given=labels(CLASSES))
            batch = Batch(x, given=y)
            model.prepare(batch, generator=generator)
            model.maximize(model.statistics(batch))
            with torch.no_grad():
                model.predict_proba(x)

        def theirs(peer: Any = peer, rows: Any = rows, label: Any = label) -> None:
            peer.fit(rows, label).predict_proba(rows)

        found.append(
            interleave(
                f"Naive Bayes, fit and p(y \\| x), {ROWS:,} rows, {title}",
                ours,
                {f"scikit-learn {type(peer).__name__}": theirs},
                rounds=7,
                target="≥ 1×",
                note=f"{CLASSES} classes; results agree to 1e-10 (tests)",
            )
        )
    return Several(found)


def bayes_net_peers() -> Several:
    """Tables, the structure, and posteriors of single columns, in networks of 37 columns with up to 3 parents.

    Raises:
        ImportError: pgmpy is not installed.
    """
    warnings.simplefilter("ignore")
    import logging

    import pandas as pd
    from pgmpy.causal_discovery import HillClimbSearch
    from pgmpy.inference import VariableElimination
    from pgmpy.models import DiscreteBayesianNetwork
    from pgmpy.parameter_estimator import DiscreteMLE

    logging.getLogger("pgmpy").setLevel(logging.ERROR)
    truth, edges = _network(37)
    x = truth.sample(ROWS, generator=keyed_generator(1))
    names = [f"c{d}" for d in range(37)]
    frame = pd.DataFrame(x.numpy(), columns=names)
    batch = Batch(x)
    structure = ",".join(f"{j}:{i}" for j, i in edges)
    ours = BayesNet(truth.event, structure=structure, equivalent_size=0.0)
    peer = DiscreteBayesianNetwork([(names[j], names[i]) for j, i in edges])

    def count() -> None:
        ours.maximize(ours.statistics(batch))

    def their_count() -> None:
        peer.cpds = []
        peer.fit(frame, estimator=DiscreteMLE())

    small = 10  # columns of the structure search: pgmpy takes minutes for all
    part = BayesNet(Event((small,), truth.event.columns[:small]))

    def search() -> None:
        part.prepare(Batch(x[:, :small]), generator=keyed_generator(0))

    def their_search() -> None:
        HillClimbSearch(scoring_method="bic-d", max_indegree=3, show_progress=False).fit(frame[names[:small]])

    count()
    their_count()
    inference = VariableElimination(peer)
    rows = x[:QUERIES].long()
    evidence, targets = (3, 9, 20, 30), (0, 12, 25, 36)

    def query() -> list[Tensor]:
        codes = torch.full_like(rows, -1)
        codes[:, evidence] = rows[:, evidence]
        return [torch.cat([p for _, p in ours._posteriors(codes, set(evidence), [t])]) for t in targets]

    def one_by_one() -> list[Tensor]:
        found = []
        for row in rows[:5]:
            codes = torch.full_like(rows[:1], -1)
            codes[:, evidence] = row[[*evidence]]
            found += [next(iter(ours._posteriors(codes, set(evidence), [t])))[1] for t in targets]
        return found

    def first_of_each() -> None:
        for row in rows[:5]:
            codes = torch.full_like(rows[:1], -1)
            codes[:, evidence] = row[[*evidence]]
            for t in targets:
                ours._joints.clear()
                ours._net.plans.clear()
                next(iter(ours._posteriors(codes, set(evidence), [t])))

    def their_query(n: int) -> list[Any]:
        return [
            inference.query([names[t]], {names[e]: int(row[e]) for e in evidence}, show_progress=False).values
            for row in rows[:n]
            for t in targets
        ]

    for ours_found, theirs_found in zip(one_by_one(), their_query(5), strict=True):
        np.testing.assert_allclose(ours_found[0].numpy(), theirs_found, rtol=1e-8)
    goal = "≥ 10×"
    return Several(
        [
            interleave(
                f"Bayesian network, tables of 37 columns from {ROWS:,} rows",
                count,
                {"pgmpy": their_count},
                rounds=3,
                target=goal,
                note=f"{len(edges)} edges",
            ),
            interleave(
                f"Bayesian network, hill climbing on BIC, {small} columns, {ROWS:,} rows",
                search,
                {"pgmpy HillClimbSearch": their_search},
                rounds=3,
                target=goal,
                note="at most 3 parents",
            ),
            interleave(
                f"Bayesian network, {4 * QUERIES} posteriors given 4 of 37 columns, rows together",
                query,
                {"pgmpy VariableElimination": lambda: their_query(QUERIES)},
                rounds=3,
                target=goal,
                note="the same probabilities to 1e-8; pgmpy takes one row at a time; "
                "ours keeps the table of the observed columns after the first round",
            ),
            interleave(
                "Bayesian network, 20 posteriors given 4 of 37 columns, one by one",
                one_by_one,
                {"pgmpy VariableElimination": lambda: their_query(5)},
                rounds=7,
                target=goal,
                note="after a first query of the same columns, whose tables ours keeps; pgmpy eliminates every time",
            ),
            interleave(
                "Bayesian network, 20 posteriors given 4 of 37 columns, one by one, each the first of its kind",
                first_of_each,
                {"pgmpy VariableElimination": lambda: their_query(5)},
                rounds=7,
                target=goal,
                note="a separate plan and elimination for every row and column on both sides",
            ),
        ]
    )


def _network(columns: int) -> tuple[BayesNet, list[tuple[int, int]]]:
    """A random network in which columns depend on up to three of the six before, and its edges."""
    generator = keyed_generator(0)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    edges = []
    for i in range(1, columns):
        near = torch.arange(max(0, i - 6), i)
        own = near[torch.randperm(len(near), generator=generator)][: draw(1, 4)]
        edges += [(j, i) for j in sorted(own.tolist())]
    event = Event((columns,), tuple(Support("nominal", draw(2, 5)) for _ in range(columns)))
    model = BayesNet(event, structure=",".join(f"{j}:{i}" for j, i in edges))
    noise = torch.randn(model.log_table.shape, generator=generator, dtype=torch.float64)
    model.maximize({"counts": noise.exp() ** 2})
    return model, edges
