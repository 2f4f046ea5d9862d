"""``docs/outliers.md`` is what the records of the benchmark say."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from unsup.core.event import REAL, Event
from unsup.core.model import HasDensity, HasEnergy
from unsup.core.registry import model_class, names

ROOT = Path(__file__).parents[2]


def _module() -> ModuleType:
    specification = importlib.util.spec_from_file_location("outlier_benchmark", ROOT / "benchmarks" / "outliers.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


benchmark = _module()
PEER = "IsolationForest"


def made_up(gain: np.ndarray, seed: int = 0) -> list[dict]:
    """Records of twelve sets that differ a lot, in each of which the default is better by ``gain``."""
    g = np.random.default_rng(seed)
    hard, records = g.uniform(0.3, 0.7, len(gain)), []
    for i, (base, more) in enumerate(zip(hard, gain, strict=True)):
        for k in benchmark.SEEDS:
            shared = base + 0.01 * g.normal()
            for method, value in ((benchmark.DEFAULT, shared + more), (PEER, shared)):
                own = {"auroc": value, "ap": 1 - value, "seconds": 1.0}
                records.append({"set": f"s{i:02}", "method": method, "seed": k, **own})
    return records


def test_the_page_is_that_of_the_records() -> None:
    records = list(map(json.loads, (ROOT / benchmark.RECORDS).read_text().splitlines()))
    assert len({(r["set"], r["method"], r["seed"]) for r in records}) == len(records)
    assert (ROOT / benchmark.PAGE).read_text() == benchmark.page(records)


@pytest.mark.parametrize(
    ("mean", "auroc", "ap"), [(0.0, "ties with", "ties with"), (0.1, "is better than", "is worse than")]
)
def test_the_unit_of_a_difference_is_the_set(mean, auroc, ap) -> None:
    gain = stats.norm.ppf((np.arange(12) + 0.5) / 12) * 0.05 + mean
    page = benchmark.page(made_up(gain))
    row = next(line for line in page.splitlines() if line.startswith(f"| {PEER} | +") or f"| {PEER} | -" in line)
    error = f"± {stats.sem(gain):.3f}"
    assert row == (
        f"| {PEER} | {gain.mean():+.3f} {error} | {int((gain > 0).sum())} of 12 | {gain.mean():+.3f} {error} | "
        f"{-gain.mean():+.3f} {error} | {int((gain < 0).sum())} of 12 |"
    )
    assert f"In AUROC, `{benchmark.DEFAULT}` {auroc} {PEER}." in page
    assert f"In average precision, `{benchmark.DEFAULT}` {ap} {PEER}." in page
    assert (f"Its mean average precision is lower than that of {PEER} (by 0.100" in page) == (mean > 0)


def test_every_model_that_scores_real_tables_is_measured_or_missing() -> None:
    page = benchmark.page(made_up(np.linspace(-0.1, 0.1, 12)))
    missing = re.search("Not yet measured on every set and seed: (.*)\\.", page)
    assert missing is not None
    expected = {
        n
        for n in names()
        if issubclass(model_class(n), (HasDensity, HasEnergy)) and model_class(n).refusal(Event((2,), REAL)) is None
    }
    assert set(re.findall("`(.*?)`", missing[1])) == expected >= {"histogram", "made", "vae", "ebm"}
    assert "Models of the registry" not in page
