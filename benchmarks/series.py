"""Simulated series beside real ones: ``python -m benchmarks series [MODEL …]`` writes ``docs/series.md``.

Each model is fitted once to windows of a series, with seed 0 and the settings below, which were not tuned. After
first figures, three settings were changed: windows of the temperatures are shorter (there were 19 test windows), the
stride of the weather is 23 (see below), and states have two Gaussians in place of three (time). The first 80 % of the
rows are for training, the last 10 % for test; the heartbeats are split by a hash. The files have rounded values,
whose density a model could raise without bound: uniform noise of one unit of the last digit, drawn once, is added to
all of them.

Each result is appended to ``benchmarks/series.jsonl`` at once, and what stands there is not run again.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import unsup
from unsup.core.event import REAL, Event
from unsup.core.machine import machine_kind
from unsup.data.source import Data
from unsup.evaluate.likelihood import evaluate_likelihood
from unsup.evaluate.samples import draw_samples
from unsup.evaluate.series import autocorrelation_error, marginal_distance, two_sample_auroc

RECORDS = Path("benchmarks/series.jsonl")
PAGE = Path("docs/series.md")
PICTURE = Path("docs/series.png")
REAL_SERIES = "real, train"
SIGNS = {"exact": "", "bound": "≤ ", "estimate": "≈ "}
SAMPLES, SHOWN = 500, 2
IMPORTANCE = 50  # samples of a bound

GUIDE = (
    "A table with `--length N` is read as a series: its rows in the order of time, cut into windows of N rows, which "
    "are split by time ([data](data.md#series)). Models of sequences or vectors learn the windows and draw new ones; "
    "`hmm` draws series of any length.",
    "",
    "```sh",
    "unsup fit temperatures.csv hmm --length 32 --model.states 30 -o runs/temperatures",
    "unsup sample runs/temperatures -n 20 -o simulated.png",
    "unsup sample runs/temperatures -n 1 --length 3650 -o simulated.csv",
    "```",
    "",
)
READING: tuple[str, ...] = (
    "## How to read this",
    "",
    "- No column is enough. A model may have the values right and their order wrong: states of `hmm` keep the marginal "
    "distribution and forget the season or the day, which the autocorrelations show.",
    "- An AUROC may be below 0.5: one year of test days has few windows that do not overlap. Compare it with the "
    "first row. Where that row is far above 0.5, the test period differs from the training period, which is all that "
    "a model has seen.",
    "- Windows of the weather and the heartbeats have more than 128 entries, for which `gaussian-mixture` tries "
    "diagonal covariances only: its samples are noisy. `ppca` is one Gaussian of all entries, without that limit.",
    "- The phase matters. With a stride of 24 hours all windows of the training split start at the same hour, those of "
    "the test split at another one, and the AUROC of real windows is 1.0. The stride of the weather is therefore 23.",
)


@dataclass(frozen=True)
class Source:
    """A series of real data.

    Attributes:
        title: what it is.
        read: its rows ``(N, C)``, or its windows ``(N, T)``.
        unit: of the last digit, by which values are rounded; 0 if they are not.
        length: rows of a window.
        stride: rows from one window to the next. Windows should start at all hours of a day in training and test.
        shown: the name of the column in the picture.
    """

    title: str
    read: Callable[[], NDArray[np.float64]]
    unit: float
    length: int
    stride: int
    shown: str


def _columns(file: str, *names: str) -> NDArray[np.float64]:
    path = Path(os.environ["UNSUP_DATA"], file)
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        rows = list(csv.DictReader(lines))
    return np.array([[float(row[name]) for name in names] for row in rows])


def _heartbeats() -> NDArray[np.float64]:
    return np.loadtxt(Path(os.environ["UNSUP_DATA"], "ecg5000/ECG5000_TRAIN.txt.gz"))[:, 1:]


SOURCES = {
    "temperatures": Source(
        "lowest temperature of each day, ten years, windows of 32 days",
        lambda: _columns("uci/daily-min-temperatures.csv", "Temp"),
        0.1,
        32,
        4,
        "°C",
    ),
    "taxi": Source(
        "passengers of taxis in New York, every half hour, windows of two days",
        lambda: _columns("nab/realKnownCause/nyc_taxi.csv", "value"),
        1,
        96,
        12,
        "passengers",
    ),
    "weather": Source(
        "dew point, temperature and pressure in Beijing, every hour of five years, windows of two days",
        lambda: _columns("uci/pollution.csv.gz", "DEWP", "TEMP", "PRES"),
        1,
        48,
        23,
        "dew point, °C",
    ),
    "heartbeats": Source(
        "500 heartbeats of ECG5000, windows of 140 samples", _heartbeats, 0, 140, 140, "standardised voltage"
    ),
}
DEEP: dict[str, Any] = {"steps": 400, "batch_size": 32, "lr": 3e-3, "warmup": 50, "ema": 0.99}
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ppca": ("ppca", {}, {}),
    "gaussian-mixture": ("gaussian-mixture", {}, {}),
    "hmm": ("hmm", {"states": 30, "restarts": 1}, {}),
    "hmm, mixtures": ("hmm", {"states": 20, "components": 2, "restarts": 1}, {}),
    "rnn": ("rnn", {"width": 64, "layers": 1}, DEEP),
    "wavenet": ("wavenet", {"width": 24, "skip": 48, "layers": 6, "stacks": 1}, DEEP),
    "vae": ("vae", {"latent_dim": 16, "hidden": (256, 256)}, DEEP | {"steps": 1500}),
}


def main(names: list[str]) -> None:
    """Run what is missing of the models named (all), and write the page."""
    unknown = [n for n in names if n not in MODELS]
    if unknown:
        raise SystemExit(f"there is no model {unknown[0]!r}; expected some of: {', '.join(MODELS)}")
    done = {(r["model"], r["series"]) for r in records()}
    for series in SOURCES:
        for model in (REAL_SERIES, *(names or MODELS)):
            if (model, series) not in done:
                record = measured(model, series)
                with RECORDS.open("a") as file:
                    file.write(json.dumps(record) + "\n")
                told = {k: v for k, v in record.items() if k != "drawn"}
                sys.stdout.write(f"{told}\n")
                sys.stdout.flush()
    PAGE.write_text(page(records()))
    draw(records())


def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RECORDS.read_text().splitlines()] if RECORDS.is_file() else []


def loaded(name: str) -> Data:
    """The windows of a series, as ``unsup fit FILE --length N`` has them."""
    source = SOURCES[name]
    values = source.read()
    values = values + source.unit * np.random.default_rng(0).uniform(-0.5, 0.5, values.shape)
    if values.shape[1] == source.length:
        return unsup.load_data(torch.from_numpy(values).float(), event=Event((source.length,), REAL, "sequence"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.csv")
        np.savetxt(path, values, fmt="%.6g", delimiter=",", header=",".join("abc"[: values.shape[1]]), comments="")
        return unsup.load_data(path, length=source.length, stride=source.stride)


def measured(model: str, name: str) -> dict[str, Any]:
    """One model of one series; or windows of its training split in place of samples."""
    data, length = loaded(name), SOURCES[name].length
    overlap = -(-length // SOURCES[name].stride) - 1
    generator = torch.Generator().manual_seed(0)
    test, found = data.test.x[:], dict[str, Any](model=model, series=name)
    if model == REAL_SERIES:
        rows = torch.randperm(len(data.train), generator=generator)[:SAMPLES].sort().values
        samples = data.train.x[rows]
    else:
        registered, options, settings = MODELS[model]
        built = unsup.create(registered, data.event, seed=0, **options)
        started = time.process_time()
        if unsup.fit(built, data, progress="off", **settings).interrupted:
            raise SystemExit(f"{model} on {name} was interrupted")
        found["seconds"] = round(time.process_time() - started, 1)
        likelihood = evaluate_likelihood(built, data.test, samples=IMPORTANCE)
        found |= {"kind": likelihood.kind, "nats": round(likelihood.nats / length, 5)}
        samples = draw_samples(built, SAMPLES)
    return found | {
        "marginal": round(marginal_distance(samples, test), 5),
        "autocorrelation": round(autocorrelation_error(samples, test), 5),
        "auroc": round(two_sample_auroc(samples, test, overlap=overlap), 5),
        "test": len(test),
        "drawn": [[float(f"{v:.4g}") for v in w.reshape(length, -1)[:, 0].tolist()] for w in some(samples)],
        "machine": f"{machine_kind()}; {torch.get_num_threads()} thread(s)",
        "date": time.strftime("%Y-%m-%d"),
    }


def some(windows: torch.Tensor) -> torch.Tensor:
    """The windows of the picture, far from each other."""
    return windows[torch.linspace(0, len(windows) - 1, SHOWN + 2).long()[1:-1]]


def page(found: list[dict[str, Any]]) -> str:
    """The page in Markdown, of the records alone."""
    by = {(r["model"], r["series"]): r for r in found}
    models = [m for m in MODELS if all((m, s) in by for s in SOURCES)]
    options = "; ".join(
        f"`{m}`" + "".join(f" `--model.{k.replace('_', '-')} {_told(v)}`" for k, v in MODELS[m][1].items())
        for m in models
        if MODELS[m][1]
    )
    lines = [
        "# Simulated series",
        "",
        *GUIDE,
        "## Comparison",
        "",
        " ".join((__doc__ or "").split("\n\n")[1].split()),
        "",
        "`python -m benchmarks series` repeats this.",
        "",
        "![Two windows of the real series, and of samples of each model](series.png)",
        "",
        "- nats a step: −log p of a test window divided by its steps, in nats of the raw values; lower is better. `≤` "
        f"is a bound with {IMPORTANCE} importance samples. Compare within a table only: units differ.",
        f"- marginal: the distance of the values of {SAMPLES} samples from those of the test windows (1-Wasserstein, "
        "in standard deviations; the mean over columns).",
        "- autocorrelation: the mean absolute difference of the autocorrelations of samples and test windows, "
        "over lags up to half a window.",
        "- AUROC: that of a random forest which distinguishes samples from test windows; 0.5 is perfect.",
        "",
        f"The first row has {SAMPLES} windows of the training split (all, if there are fewer) in place of samples. It "
        "is the baseline: series change in time, and models learn from the training split only.",
    ]
    for name, source in SOURCES.items():
        rows = [by[m, name] for m in (REAL_SERIES, *models)]
        lines += [
            "",
            f"### {source.title[0].upper()}{source.title[1:]}",
            "",
            f"{rows[0]['test']:,} test windows.",
            "",
            "| model | nats a step | marginal | autocorrelation | AUROC | processor seconds |",
            "| --- | --: | --: | --: | --: | --: |",
        ]
        for r in rows:
            nats = f"{SIGNS[r['kind']]}{r['nats']:.3f}" if "nats" in r else "–"
            label = r["model"] if r["model"] == REAL_SERIES else f"`{r['model']}`"
            seconds = f"{r['seconds']:.0f}" if "seconds" in r else "–"
            measures = " | ".join(f"{r[k]:.3f}" for k in ("marginal", "autocorrelation", "auroc"))
            lines.append(f"| {label} | {nats} | {measures} | {seconds} |")
    machine, date = found[-1]["machine"], max(r["date"] for r in found)
    return "\n".join(
        [
            *lines,
            "",
            f"Options other than the defaults: {options}. Models that learn by gradients: 400 steps of 32 windows "
            f"(`vae`: 1,500), a learning rate of 0.003, averaged parameters. One seed. Machine: {machine}; {date}.",
            "",
            *READING,
            "",
        ]
    )


def _told(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def draw(found: list[dict[str, Any]]) -> None:
    """Windows of each series, the real ones first; one column for each series."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    by = {(r["model"], r["series"]): r["drawn"] for r in found}
    rows = [m for m in (REAL_SERIES, *MODELS) if all((m, s) in by for s in SOURCES)]
    figure, axes = pyplot.subplots(
        len(rows), len(SOURCES), figsize=(11, 1.05 * len(rows)), sharex="col", sharey="col", squeeze=False
    )
    for i, model in enumerate(rows):
        axes[i][0].set_ylabel(model.replace(", ", ",\n"), rotation=0, ha="right", va="center", fontsize=8)
        for j, (name, source) in enumerate(SOURCES.items()):
            for window, colour in zip(by[model, name], ("#1f4e79", "#c26a1b"), strict=True):
                axes[i][j].plot(window, color=colour, linewidth=0.8)
            axes[i][j].tick_params(labelsize=6)
            if i == 0:
                axes[i][j].set_title(f"{name} ({source.shown})", fontsize=8)
    figure.tight_layout(pad=0.4)
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
