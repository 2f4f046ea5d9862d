"""Run every benchmark and write ``docs/benchmarks.md``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from benchmarks.fid_speed import fid_speed
from benchmarks.made_loop import made_loop, peak_memory_megabytes
from benchmarks.pixelcnn_speed import pixelcnn_bfloat16, pixelcnn_sampling
from benchmarks.rbm_epoch import rbm_epoch
from benchmarks.realnvp_peers import realnvp_sampling, realnvp_training, realnvp_training_as_fit
from benchmarks.sngan_step import sngan_step, sngan_step_bfloat16
from unsup.core.machine import machine_kind

HEADER = ("work", "against", "ours, ms", "theirs, ms", "theirs / ours", "promised", "note")
BENCHMARKS = (
    made_loop,
    realnvp_training,
    realnvp_training_as_fit,
    realnvp_sampling,
    pixelcnn_sampling,
    pixelcnn_bfloat16,
    sngan_step,
    sngan_step_bfloat16,
    rbm_epoch,
    fid_speed,
)


def main() -> None:
    rows = []
    for benchmark in BENCHMARKS:
        for row in benchmark().rows():
            rows.append(row)
            sys.stdout.write("  ".join(row) + "\n")
            sys.stdout.flush()
    memory = peak_memory_megabytes()
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Each pair was timed in turn in one process; times are medians, the ratio is the "
        "median over pairs, above 1 means that we are faster.",
        "",
        f"Machine: {machine_kind()}; {torch.get_num_threads()} threads; torch {torch.__version__}; "
        f"{time.strftime('%Y-%m-%d')}.",
        "",
        f"| {' | '.join(HEADER)} |",
        f"|{' --- |' * len(HEADER)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"Peak memory of training MADE on 60,000 images of 28×28: {memory:,.0f} MB (promised: under 2,000 MB).",
        "",
    ]
    Path("docs/benchmarks.md").write_text("\n".join(lines))
    sys.stdout.write(f"peak memory {memory:,.0f} MB\n")


if __name__ == "__main__":
    main()
