"""Densities of tables: ``python -m benchmarks flow_tables [METHOD …]`` writes a section of ``docs/flows.md``.

Log-likelihood of test rows, in nats per row of standardised columns, of flows, mixtures and peers with the same budget
of processor time. Each seed splits the rows 80/10/10 at random. Targets and classes are left out, and so are columns
with fewer than 50 distinct values or with one value in more than 10 % of the rows, and then repeated rows. Every value
gets uniform noise of the resolution of its column, the median distance of neighbouring distinct values, since the
density of a column with ties is unbounded; the noise is part of the data, the same for all methods. Columns are
standardised by the training rows.

Methods that learn by gradients get the same processor time of one thread. Their number of steps is fixed by the time
of some steps, with a cosine schedule to 0. The parameters that are best on validation rows are kept, and training ends
after ten validations without improvement. Mixtures have the number of components that is best on validation rows. Test
rows are scored once, at the end.

Each result is appended to ``benchmarks/flow_tables.jsonl`` at once, and what stands there is not run again.
"""

from __future__ import annotations

import copy
import csv
import gzip
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zuko
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture
from torch import Tensor

import unsup
from unsup.core.event import REAL, Event
from unsup.core.machine import machine_kind
from unsup.core.model import HasDensity
from unsup.core.registry import model_class
from unsup.data.source import Data, Split

Array = NDArray[Any]

RECORDS = Path("benchmarks/flow_tables.jsonl")
PAGE = Path("docs/flows.md")
BEGIN, END = "<!-- tables, written by python -m benchmarks flow_tables -->", "<!-- end of tables -->"
SEEDS = range(5)
BUDGET = 6.0  # seconds of processor time
COMPONENTS = (1, 2, 5, 10, 20, 40)
VALIDATIONS, VALIDATING = 20, 0.2  # at most so many, which take at most this share of the budget, but two at least
PATIENCE = 10
WATCHED = 1000  # validation rows during training
LEAST_DISTINCT, MOST_EQUAL = 50, 0.1
FEW, MORE = 3, 23  # steps that are timed
MARGIN = 0.02  # nats


@dataclass(frozen=True)
class Rows:
    """Standardised rows ``(N, D)`` of one table and seed, float32."""

    train: Tensor
    validation: Tensor
    test: Tensor


Found = tuple[float, float, dict[str, Any]]
"""Mean log-likelihoods of validation and of test rows, and what else is recorded."""
Method = Callable[[Rows, int], Found]


def uci(name: str) -> Array:
    """A table whose last column is the target."""
    return np.loadtxt(Path(os.environ["UNSUP_DATA"], "uci", f"{name}.csv"), delimiter=",")[:, :-1]


def adbench(name: str) -> Array:
    with np.load(Path(os.environ["UNSUP_DATA"], "adbench", f"{name}.npz")) as file:
        return np.asarray(file["X"], np.float64)


def weather() -> Array:
    """The numbers of the Beijing series, without hours of unknown PM2.5."""
    with gzip.open(Path(os.environ["UNSUP_DATA"], "uci", "pollution.csv.gz"), "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["pm2.5"] != "NA"]
    return np.array([[float(row[c]) for c in ("pm2.5", "DEWP", "TEMP", "PRES", "Iws")] for row in rows])


TABLES: dict[str, Callable[[], Array]] = {
    "phoneme": lambda: uci("phoneme"),
    "wine quality": lambda: np.concatenate([uci("winequality-red"), uci("winequality-white")]),
    "MAGIC gamma": lambda: adbench("22_magic.gamma"),
    "satellite": lambda: adbench("30_satellite"),
    "Beijing weather": weather,
}


def registered(name: str, **options: Any) -> Method:
    """A model of the registry with the options and settings that it recommends for the table."""

    def run(rows: Rows, seed: int) -> Found:
        data = as_data(rows)
        advice = model_class(name).advice(data.event, len(rows.train))
        training = {**advice.training, "patience": PATIENCE, "validation_limit": WATCHED, "seed": seed}

        def fitted(steps: int, validations: int = 1) -> tuple[HasDensity, float, int]:
            model = unsup.create(name, data, seed=seed, **{**advice.options, **options})
            assert isinstance(model, HasDensity)
            started = time.process_time()
            every = max(1, steps // validations)
            done = unsup.fit(model, data, steps=steps, validate_every=every, progress="off", **training)
            if done.interrupted:
                raise SystemExit(f"{name} was interrupted")
            return model, time.process_time() - started, done.steps

        model, base, _ = min((fitted(FEW) for _ in range(2)), key=lambda found: found[1])
        each = (fitted(MORE)[1] - base) / (MORE - FEW)
        started = time.process_time()
        log_likelihood(model, rows.validation[:WATCHED])
        steps, validations = plan(each, time.process_time() - started)
        model, seconds, done = fitted(steps, validations)
        return (
            log_likelihood(model, rows.validation),
            log_likelihood(model, rows.test),
            {"seconds": seconds, "steps": done, "planned": steps},
        )

    return run


def own_mixture(rows: Rows, seed: int) -> Found:
    """`gaussian-mixture` with full covariances."""
    data = as_data(rows)

    def fitted(components: int) -> tuple[float, float]:
        model = unsup.create("gaussian-mixture", data, components=components, covariance="full", seed=seed)
        unsup.fit(model, data, seed=seed, progress="off")
        assert isinstance(model, HasDensity)
        return log_likelihood(model, rows.validation), log_likelihood(model, rows.test)

    return _chosen(fitted)


def their_mixture(rows: Rows, seed: int) -> Found:
    """The mixture of scikit-learn."""
    train, validation, test = (part.double().numpy() for part in (rows.train, rows.validation, rows.test))

    def fitted(components: int) -> tuple[float, float]:
        model = GaussianMixture(components, random_state=seed).fit(train)
        return model.score(validation), model.score(test)

    return _chosen(fitted)


def _chosen(fitted: Callable[[int], tuple[float, float]]) -> Found:
    started = time.process_time()
    found = {components: fitted(components) for components in COMPONENTS}
    best = max(found, key=lambda components: found[components][0])
    return *found[best], {"seconds": time.process_time() - started, "components": best}


def zuko_spline(rows: Rows, seed: int) -> Found:
    """The autoregressive spline flow of zuko, with its default architecture: the best of four trials on validation."""
    found = [_zuko_trial(rows, seed, *s, whiten) for s in ((1e-3, 256), (3e-3, 128)) for whiten in (False, True)]
    best = max(found, key=lambda trial: trial[0])
    return best[0], best[1], {**best[2], "seconds": sum(trial[2]["seconds"] for trial in found)}


def _whitened(rows: Rows) -> tuple[Rows, float]:
    """Rows after the linear map that makes the covariance of training rows the identity, and its log-determinant."""
    x = rows.train.double()
    factor = torch.linalg.cholesky(torch.cov(x.T, correction=0) + 1e-4 * torch.eye(x.shape[1], dtype=x.dtype))
    mean = x.mean(0)
    parts = (torch.linalg.solve_triangular(factor, (p.double() - mean).T, upper=False).T.float()
             for p in (rows.train, rows.validation, rows.test))  # fmt: skip
    return Rows(*parts), -float(factor.diagonal().log().sum())


def _zuko_trial(rows: Rows, seed: int, lr: float, batch: int, whiten: bool) -> Found:
    torch.manual_seed(seed)
    rows, log_det = _whitened(rows) if whiten else (rows, 0.0)
    flow = zuko.flows.NSF(rows.train.shape[1])
    fresh = copy.deepcopy(flow.state_dict())
    generator = torch.Generator().manual_seed(seed)

    def score(x: Tensor) -> float:
        with torch.no_grad():
            return log_det + float(torch.cat([flow().log_prob(p) for p in x.split(WATCHED)]).double().mean())

    def trained(steps: int, validations: int) -> tuple[float, int, dict[str, Tensor]]:
        flow.load_state_dict(fresh)
        optimizer = torch.optim.Adam(flow.parameters(), lr=lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        every, best, stale, kept = max(1, steps // validations), -math.inf, 0, fresh
        started = time.process_time()
        for step in range(1, steps + 1):
            x = rows.train[torch.randint(len(rows.train), (batch,), generator=generator)]
            optimizer.zero_grad()
            (-flow().log_prob(x).mean()).backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            if step % every == 0 or step == steps:
                value = score(rows.validation[:WATCHED])
                stale = 0 if value > best else stale + 1
                if value > best:
                    best, kept = value, copy.deepcopy(flow.state_dict())
                if stale >= PATIENCE:
                    break
        return time.process_time() - started, step, kept

    base = min(trained(FEW, 1)[0] for _ in range(2))
    each = (trained(MORE, 1)[0] - base) / (MORE - FEW)
    started = time.process_time()
    score(rows.validation[:WATCHED])
    steps, validations = plan(each, time.process_time() - started)
    seconds, done, kept = trained(steps, validations)
    flow.load_state_dict(kept)
    return (
        score(rows.validation),
        score(rows.test),
        {"seconds": seconds, "steps": done, "planned": steps, "trial": [lr, batch, whiten]},
    )


METHODS: dict[str, Method] = {
    "spline-flow, autoregressive": registered("spline-flow", step="autoregressive"),
    "spline-flow, coupling": registered("spline-flow", step="coupling"),
    "cdf-flow": registered("cdf-flow"),
    "maf": registered("maf"),
    "realnvp": registered("realnvp"),
    "ffjord": registered("ffjord"),
    "gaussian-mixture": own_mixture,
    "scikit-learn GaussianMixture": their_mixture,
    "zuko NSF": zuko_spline,
}
PEERS = ("gaussian-mixture", "scikit-learn GaussianMixture", "zuko NSF")


def main(names: list[str]) -> None:
    """Run what is missing of the methods named (all), seed by seed, and write the section."""
    unknown = [n for n in names if n not in METHODS]
    if unknown:
        raise SystemExit(f"there is no method {unknown[0]!r}; expected some of: {', '.join(METHODS)}")
    torch.set_num_threads(1)
    done = {(r["table"], r["method"], r["seed"]) for r in records()}
    for seed in SEEDS:
        for table in TABLES:
            missing = [m for m in names or METHODS if (table, m, seed) not in done]
            if missing:
                rows = prepared(TABLES[table](), seed)
                for method in missing:
                    record = {"table": table, "method": method, "seed": seed, **measured(rows, method, seed)}
                    with RECORDS.open("a") as file:
                        file.write(json.dumps(record) + "\n")
                    sys.stdout.write(f"{record}\n")
                    sys.stdout.flush()
    text = PAGE.read_text()
    written = "\n".join([BEGIN, *section(list(records())), END])
    if BEGIN in text:
        text = text[: text.index(BEGIN)] + written + text[text.index(END) + len(END) :]
    else:
        text = f"{text.rstrip()}\n\n{written}\n"
    PAGE.write_text(text)


def records() -> Iterator[dict[str, Any]]:
    if RECORDS.is_file():
        yield from map(json.loads, RECORDS.read_text().splitlines())


def measured(rows: Rows, method: str, seed: int) -> dict[str, Any]:
    """The record of one method on one table."""
    validation, test, more = METHODS[method](rows, seed)
    more["seconds"] = round(more["seconds"], 2)
    sizes = [len(rows.train), len(rows.validation), len(rows.test), rows.train.shape[1]]
    machine = f"{machine_kind()}, 1 thread, torch {torch.__version__}, zuko {zuko.__version__}"
    return {"validation": round(validation, 5), "test": round(test, 5), "sizes": sizes, **more, "machine": machine}


def prepared(x: Array, seed: int) -> Rows:
    """The splits of a table ``(N, D)``, for one seed."""
    x = np.unique(x[:, [usable(column) for column in x.T]], axis=0)
    resolution = np.array([np.median(np.diff(np.unique(column))) for column in x.T])
    rng = np.random.default_rng(seed)
    x = x[rng.permutation(len(x))] + resolution * rng.random(x.shape)
    tenth = len(x) // 10
    mean, std = x[2 * tenth :].mean(0), x[2 * tenth :].std(0)
    standard = torch.tensor((x - mean) / std, dtype=torch.float32)
    return Rows(train=standard[2 * tenth :], validation=standard[tenth : 2 * tenth], test=standard[:tenth])


def usable(column: Array) -> bool:
    """Whether a column has many values, and none that is frequent."""
    values, counts = np.unique(column, return_counts=True)
    return len(values) >= LEAST_DISTINCT and counts.max() <= MOST_EQUAL * len(column)


def plan(each: float, validation: float) -> tuple[int, int]:
    """How many steps and validations fit the budget, from the seconds that one of each takes."""
    validations = max(2, min(VALIDATIONS, int(VALIDATING * BUDGET / max(validation, 1e-6))))
    return max(validations, int((BUDGET - validations * validation) / max(each, 1e-6))), validations


def as_data(rows: Rows) -> Data:
    parts = (Split(rows.train), Split(rows.validation), Split(rows.test))
    return Data(None, Event(rows.train.shape[1:], REAL), *parts, split="at random")


def log_likelihood(model: HasDensity, x: Tensor) -> float:
    """The mean over rows."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return float(torch.cat([model.log_prob(p, generator=generator) for p in x.split(WATCHED)]).double().mean())


def section(found: list[dict[str, Any]]) -> list[str]:
    """The section of the page, in Markdown, of the records alone."""
    tables = [t for t in TABLES if any(r["table"] == t for r in found)]
    methods = [m for m in METHODS if any(r["method"] == m for r in found)]
    sizes = {r["table"]: r["sizes"] for r in found}
    cells = {(m, t): _values(found, m, t) for m in methods for t in tables}
    heads = [f"{t}, {sizes[t][3]} columns, {sum(sizes[t][:3]):,} rows" for t in tables]
    lines = [
        "## Tables compared",
        "",
        *((" ".join(part.split()) + "\n") for part in (__doc__ or "").split("\n\n")[1:3]),
        f"Mean over {max((len(v) for v in cells.values()), default=0)} seeds ± its standard error, higher is better; "
        f"{BUDGET:g} s of processor time. Options are those that a model recommends for the table (`advice`); they "
        "were tuned with seed 0. The test rows of seed 0 were seen while tuning: they led to the narrower bound of the "
        "scales of `maf`, and the other seeds share rows with them. zuko has four trials, each with the whole budget, "
        "of which the best on validation rows counts: a learning rate of 0.001 with batches of 256 or of 0.003 with "
        "128, each with standardised and with whitened columns. `glow` takes images only.",
        "",
        f"| method | {' | '.join(heads)} |",
        f"| --- |{' --- |' * len(heads)}",
        *(f"| {_named(m)} | {' | '.join(_cell(cells[m, t]) for t in tables)} |" for m in methods),
        "",
        *_verdicts(found, tables),
        "",
        f"Machine: {'; '.join(dict.fromkeys(r['machine'] for r in found))}. `ffjord` is an estimate for more than "
        "eight columns.",
    ]
    return lines


def _verdicts(found: list[dict[str, Any]], tables: list[str]) -> Iterator[str]:
    """The best flow, by validation, less the best peer, by validation, seed by seed."""
    yield "The flow that is best on the validation rows of a seed less the peer that is, on test rows:"
    yield ""
    yield "| table | flow | peer | difference |"
    yield "| --- | --- | --- | --- |"
    for table in tables:
        ours, theirs, gains = dict[str, None](), dict[str, None](), []
        for seed in SEEDS:
            own = [r for r in found if r["table"] == table and r["seed"] == seed]
            flows = [r for r in own if r["method"] not in PEERS]
            peers = [r for r in own if r["method"] in PEERS]
            if flows and peers:
                flow, peer = (max(group, key=lambda r: r["validation"]) for group in (flows, peers))
                ours[_named(flow["method"])], theirs[_named(peer["method"])] = None, None
                gains.append(flow["test"] - peer["test"])
        if gains:
            behind = f", behind by more than {MARGIN}" if np.mean(gains) < -MARGIN else ""
            yield f"| {table} | {'; '.join(ours)} | {'; '.join(theirs)} | {_cell(np.array(gains), '+')}{behind} |"


def _values(found: list[dict[str, Any]], method: str, table: str) -> Array:
    return np.array([r["test"] for r in found if r["method"] == method and r["table"] == table])


def _cell(values: Array, sign: str = "") -> str:
    if not len(values):
        return "–"
    error = f" ± {values.std(ddof=1) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""
    return f"{values.mean():{sign}.2f}{error}"


def _named(method: str) -> str:
    name, _, rest = method.partition(", ")
    return method if " " in name or name == "zuko" else f"`{name}`{', ' if rest else ''}{rest}"
