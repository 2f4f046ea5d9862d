"""Outlier detection on the ADBench sets: ``python -m benchmarks outliers [METHOD …]`` writes ``docs/outliers.md``.

The protocol is that of ADBench (Han et al. 2022, https://arxiv.org/abs/2206.09426) for unsupervised methods. For each
of five seeds 70 % of the rows, drawn by class, are what a method is fitted to, anomalies included and labels unseen;
the other 30 % are scored, and the labels are used for AUROC and average precision of these scores alone. Of sets with
more than 10,000 rows, 10,000 are drawn for each seed. Columns are scaled to [0, 1] by the fitted rows for every method,
as in ADBench. All methods have their default settings; deep ones are trained for a fixed number of steps.

Each result is appended to ``benchmarks/outliers.jsonl`` at once, and what stands there is not run again.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import LocalOutlierFactor
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import OneClassSVM

from unsup.core.event import REAL, Event
from unsup.core.machine import machine_kind
from unsup.evaluate.outliers import default_detector
from unsup.sklearn import DensityEstimator

Array = NDArray[Any]
Method = Callable[[Array, Array, int], Array]  # fitted rows, rows to score, seed → scores, higher is odder

RECORDS = Path("benchmarks/outliers.jsonl")
PAGE = Path("docs/outliers.md")
SEEDS = range(5)
MOST_ROWS = 10_000
STEPS = 300  # of models that learn by gradients
DEFAULT = "unsup outliers"


def ours(fitted: Array, scored: Array, seed: int) -> Array:
    """What ``unsup outliers`` does by default."""
    detector = default_detector(Event(fitted.shape[1:], REAL), torch.tensor(fitted), seed=seed)
    return detector.scores(torch.tensor(scored)).numpy()


def registered(name: str, **options: Any) -> Method:
    """A model of the registry."""

    def run(fitted: Array, scored: Array, seed: int) -> Array:
        training = {} if name in ("gaussian-mixture", "histogram") else {"steps": STEPS}
        estimator = DensityEstimator(name, options=options, training=training, random_state=seed)
        return -estimator.fit(fitted).score_samples(scored)

    return run


def by_scikit_learn(make: Callable[[int], Any]) -> Method:
    return lambda fitted, scored, seed: -make(seed).fit(fitted).score_samples(scored)


def by_pyod(name: str) -> Method:
    def run(fitted: Array, scored: Array, seed: int) -> Array:
        from pyod.models.copod import COPOD
        from pyod.models.ecod import ECOD
        from pyod.models.knn import KNN

        detector = {"ECOD": ECOD, "COPOD": COPOD, "KNN": KNN}[name]()
        return np.asarray(detector.fit(fitted).decision_function(scored))

    return run


def by_pyod_itself(fitted: Array, scored: Array, seed: int) -> Array:
    """PyOD's own choice: `ADEngine.detect` looks at rows and columns and takes KNN or an isolation forest."""
    from pyod.utils.ad_engine import ADEngine

    np.random.seed(seed)  # it takes no seed
    return np.asarray(ADEngine().detect(fitted, scored, data_type="tabular")["scores_test"])


METHODS: dict[str, Method] = {
    DEFAULT: ours,
    "gaussian-mixture": registered("gaussian-mixture"),
    "histogram": registered("histogram"),
    "IsolationForest": by_scikit_learn(lambda seed: IsolationForest(random_state=seed)),
    "LOF": by_scikit_learn(lambda seed: LocalOutlierFactor(novelty=True)),
    "OneClassSVM": by_scikit_learn(lambda seed: OneClassSVM()),
    "ECOD": by_pyod("ECOD"),
    "COPOD": by_pyod("COPOD"),
    "KNN": by_pyod("KNN"),
    "PyOD's choice": by_pyod_itself,
    "nice": registered("nice"),
    "realnvp": registered("realnvp"),
    "vae": registered("vae"),
    "made": registered("made"),
    "ebm": registered("ebm"),
    "score-matching": registered("score-matching"),
}
PEERS = ("IsolationForest", "LOF", "OneClassSVM", "ECOD", "COPOD", "KNN", "PyOD's choice")


def main(names: list[str]) -> None:
    """Run what is missing of the methods named (all), set by set, and write the page."""
    unknown = [n for n in names if n not in METHODS]
    if unknown:
        raise SystemExit(f"there is no method {unknown[0]!r}; expected some of: {', '.join(METHODS)}")
    warnings.simplefilter("ignore")
    done = {(r["set"], r["method"], r["seed"]) for r in records()}
    for method in names or METHODS:
        for seed in SEEDS:
            for path in sets():
                if (path.stem.split("_", 1)[1], method, seed) not in done:
                    record = measured(path, method, seed)
                    with RECORDS.open("a") as file:
                        file.write(json.dumps(record) + "\n")
                    sys.stdout.write(f"{record}\n")
    PAGE.write_text(page(list(records())))


def sets() -> list[Path]:
    return sorted(
        Path(os.environ["UNSUP_DATA"], "adbench").glob("*.npz"), key=lambda p: p.stem.split("_", 1)[1].lower()
    )


def records() -> Iterator[dict[str, Any]]:
    if RECORDS.is_file():
        yield from map(json.loads, RECORDS.read_text().splitlines())


def measured(path: Path, method: str, seed: int) -> dict[str, Any]:
    """One method on one set with one seed."""
    with np.load(path) as file:
        x, y = file["X"].astype(np.float64), file["y"].astype(int)
    if len(x) > MOST_ROWS:
        rows = np.random.default_rng(seed).choice(len(x), MOST_ROWS, replace=False)
        x, y = x[rows], y[rows]
    fitted, scored, _, labels = train_test_split(x, y, test_size=0.3, random_state=seed, stratify=y)
    scaler = MinMaxScaler().fit(fitted)
    started = time.perf_counter()
    scores = METHODS[method](scaler.transform(fitted), scaler.transform(scored), seed)
    return {
        "set": path.stem.split("_", 1)[1],
        "method": method,
        "seed": seed,
        "auroc": round(float(roc_auc_score(labels, scores)), 6),
        "ap": round(float(average_precision_score(labels, scores)), 6),
        "seconds": round(time.perf_counter() - started, 3),
    }


def page(found: list[dict[str, Any]]) -> str:
    """The tables in Markdown."""
    methods = [m for m in METHODS if any(r["method"] == m for r in found)]
    complete = [m for m in methods if sum(r["method"] == m for r in found) == len(SEEDS) * len(sets())]
    names = [p.stem.split("_", 1)[1] for p in sets()]
    auroc = {m: grid(found, m, names, "auroc") for m in methods}
    lines = [
        "# Outlier detection compared",
        "",
        " ".join((__doc__ or "").split("\n\n")[1].split()),
        "",
        "The number after ± is the standard error over the seeds, of the mean over sets. `unsup outliers` is the "
        "default detector; other lower-case names are models of the registry, those that learn by gradients after "
        f"{STEPS} steps. The labels decide nothing in a fit, but the default detector was designed with the AUROC of "
        "these sets for seeds 0 and 1 in view: some sixty variants were looked at (numbers of rows, bins and members, "
        "prior, noise, what is averaged), so that its figures are optimistic; those of the peers are of their own "
        "defaults. Methods that differ by less than two standard errors tie.",
        "",
        "| method | AUROC | average precision | seconds a set |",
        "| --- | --- | --- | --- |",
    ]
    order = sorted(complete, key=lambda m: -auroc[m].mean())
    for m in order:
        cells = [_cell(auroc[m]), _cell(grid(found, m, names, "ap"))]
        lines.append(f"| {_name(m)} | {' | '.join(cells)} | {grid(found, m, names, 'seconds').mean():.2f} |")
    best = next((m for m in order if m in PEERS), None)
    if DEFAULT in order and best is not None:
        gain = _cell(auroc[DEFAULT] - auroc[best])
        lines += ["", f"AUROC of `{DEFAULT}` less that of {best}, the best of the others, paired by seed: {gain}."]
    partial = [m for m in methods if m not in complete]
    if partial:
        lines += ["", f"Not yet measured on every set and seed: {', '.join(partial)}."]
    versions = ", ".join(f"{p} {version(p)}" for p in ("numpy", "scikit-learn", "torch", "pyod"))
    lines += [
        "",
        f"Machine: {machine_kind()}; {torch.get_num_threads()} threads; {versions}; {time.strftime('%Y-%m-%d')}. Other "
        "work ran beside it, so that times are upper limits.",
        "",
        "## AUROC of every set",
        "",
        f"| set | {' | '.join(map(_name, order))} |",
        f"| --- |{' --- |' * len(order)}",
        *(f"| {n} | " + " | ".join(_cell(auroc[m][i : i + 1]) for m in order) + " |" for i, n in enumerate(names)),
    ]
    return "\n".join([*lines, ""])


def grid(found: list[dict[str, Any]], method: str, names: list[str], key: str) -> Array:
    """A number of each set and seed, NaN where it is missing: ``(sets, seeds)``."""
    values = {(r["set"], r["seed"]): r[key] for r in found if r["method"] == method}
    return np.array([[values.get((n, s), np.nan) for s in SEEDS] for n in names])


def _cell(values: Array) -> str:
    """The mean over sets, with its standard error over seeds."""
    each = values.mean(0)
    return f"{each.mean():.3f} ± {each.std(ddof=1) / len(each) ** 0.5:.3f}"


def _name(method: str) -> str:
    return method if method in PEERS else f"`{method}`"
