"""Run every benchmark of speed, for ``docs/benchmarks.md``; some names have tables of their own."""

from __future__ import annotations

import re
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks.bayes_peers import bayes_net_peers, naive_bayes_peers
from benchmarks.cached_sampling import cached_images, cached_sound, cached_text
from benchmarks.classical_peers import kde_peers, linear_gaussian_peers, mixture_peers
from benchmarks.compression import compression, compression_caches
from benchmarks.ffjord_speed import ffjord_training, ffjord_training_as_fit
from benchmarks.fid_speed import fid_speed
from benchmarks.flow_peers import maf_peers, spline_autoregressive_peers, spline_coupling_peers
from benchmarks.hmm_fit import hmm_fit
from benchmarks.latent_energy_steps import dbm_step, dbn_epoch, latent_step, vq_vae_2_step
from benchmarks.made_loop import made_loop, peak_memory_megabytes
from benchmarks.pixelcnn_plus_plus_speed import pixelcnn_plus_plus_training
from benchmarks.pixelcnn_speed import pixelcnn_bfloat16, pixelcnn_sampling
from benchmarks.rbm_epoch import rbm_epoch, rbm_epoch_bfloat16
from benchmarks.realnvp_peers import realnvp_sampling, realnvp_training, realnvp_training_as_fit
from benchmarks.sngan_step import sngan_step, sngan_step_bfloat16
from benchmarks.sparse_scaling import sparse_attention
from benchmarks.transformer_speed import transformer_training
from benchmarks.vq_vae_step import vq_vae_step, vq_vae_step_bfloat16
from benchmarks.wavenet_speed import wavenet_training
from unsup.core.machine import machine_kind

PAGE = Path("docs/benchmarks.md")
HEADER = ("work", "against", "ours, ms", "theirs, ms", "theirs / ours", "promised", "note")
BENCHMARKS = (
    made_loop,
    realnvp_training,
    realnvp_training_as_fit,
    realnvp_sampling,
    maf_peers,
    spline_coupling_peers,
    spline_autoregressive_peers,
    ffjord_training,
    ffjord_training_as_fit,
    pixelcnn_sampling,
    pixelcnn_bfloat16,
    pixelcnn_plus_plus_training,
    wavenet_training,
    cached_images,
    cached_text,
    cached_sound,
    transformer_training,
    sparse_attention,
    sngan_step,
    sngan_step_bfloat16,
    vq_vae_step,
    vq_vae_step_bfloat16,
    vq_vae_2_step,
    latent_step,
    dbn_epoch,
    dbm_step,
    rbm_epoch,
    hmm_fit,
    rbm_epoch_bfloat16,
    fid_speed,
    linear_gaussian_peers,
    kde_peers,
    mixture_peers,
    naive_bayes_peers,
    *((bayes_net_peers,) if find_spec("pgmpy") else ()),
    compression,
    compression_caches,
)


def main(names: list[str]) -> None:
    """Run the benchmarks named, or all of them; rows of the others are kept as they were."""
    if names[:1] == ["outliers"]:
        from benchmarks.outliers import main as outliers

        outliers(names[1:])
        return
    if names[:1] == ["series"]:
        from benchmarks.series import main as series

        series(names[1:])
        return
    if names[:1] == ["words"]:
        from benchmarks.words import main as words

        words(names[1:])
        return
    if names[:1] == ["densities"]:
        from benchmarks.densities import main as densities

        densities(names[1:])
        return
    if names[:1] == ["flow_tables"]:
        from benchmarks.flow_tables import main as flow_tables

        flow_tables(names[1:])
        return
    if names[:1] == ["sequence_peers"]:
        from benchmarks.sequence_peers import main as sequence_peers

        sequence_peers()
        return
    if names[:1] == ["estimators"]:
        from benchmarks.estimators import main as estimators

        estimators()
        return
    if names[:1] == ["smooth_coding"]:
        from benchmarks.smooth_coding import main as smooth_coding

        smooth_coding(names[1:])
        return
    if names[:1] == ["rates"]:
        from benchmarks.rates import main as rates

        rates(names[1:])
        return
    chosen = [b for b in BENCHMARKS if not names or b.__name__ in names]
    rows = {(row[0], row[1]): row for row in _written()}
    for benchmark in chosen:
        for row in benchmark().rows():
            rows[row[0], row[1]] = row
            sys.stdout.write("  ".join(row) + "\n")
            sys.stdout.flush()
    memory = peak_memory_megabytes() if not names else None
    kept = next((line for line in _lines() if line.startswith("Peak memory")), "")
    if memory is not None:
        kept = f"Peak memory of training MADE on 60,000 images of 28×28: {memory:,.0f} MB (promised: under 2,000 MB)."
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench` (or `python -m benchmarks NAME …` for some rows). Each pair was timed in turn in "
        "one process; times are medians, the ratio is the median over pairs, above 1 means that we are faster.",
        "",
        f"Machine of the newest rows: {machine_kind()}; {torch.get_num_threads()} threads; torch {torch.__version__}; "
        f"{time.strftime('%Y-%m-%d')}.",
        "",
        f"| {' | '.join(HEADER)} |",
        f"|{' --- |' * len(HEADER)}",
        *(f"| {' | '.join(row)} |" for row in rows.values()),
        "",
        kept,
        "",
    ]
    PAGE.write_text("\n".join(lines))


def _lines() -> list[str]:
    return PAGE.read_text().splitlines() if PAGE.is_file() else []


def _written() -> list[tuple[str, ...]]:
    """The rows of the page as it is."""
    table = [line for line in _lines() if line.startswith("| ")][2:]
    return [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))) for line in table]


if __name__ == "__main__":
    main(sys.argv[1:])
