"""Every benchmark of speed, and the peers they import, for ``docs/benchmarks.md``."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from benchmarks.bayes_peers import bayes_net_peers, naive_bayes_peers
from benchmarks.cached_sampling import cached_images, cached_sound, cached_text
from benchmarks.classical_peers import kde_peers, linear_gaussian_peers, mixture_peers
from benchmarks.compression import compression, compression_caches
from benchmarks.contrastive_step import contrastive_steps
from benchmarks.denoising_step import denoising_autoencoder_step
from benchmarks.ffjord_speed import ffjord_training, ffjord_training_as_fit
from benchmarks.fid_speed import fid_speed
from benchmarks.flow_peers import maf_peers, spline_autoregressive_peers, spline_coupling_peers
from benchmarks.hmm_fit import hmm_fit
from benchmarks.latent_energy_steps import dbm_step, dbn_epoch, latent_step, vq_vae_2_step
from benchmarks.made_loop import made_loop, peak_memory_megabytes
from benchmarks.mae_step import mae_step, mae_step_bfloat16
from benchmarks.page import write_page, written_rows
from benchmarks.pixelcnn_plus_plus_speed import pixelcnn_plus_plus_training
from benchmarks.pixelcnn_speed import pixelcnn_bfloat16, pixelcnn_sampling
from benchmarks.rbm_epoch import rbm_epoch, rbm_epoch_bfloat16
from benchmarks.realnvp_peers import realnvp_sampling, realnvp_training, realnvp_training_as_fit
from benchmarks.rotation_step import rotation_step, rotation_step_bfloat16
from benchmarks.sngan_step import sngan_step, sngan_step_bfloat16
from benchmarks.sparse_scaling import sparse_attention
from benchmarks.transformer_speed import transformer_training
from benchmarks.vq_vae_step import vq_vae_step, vq_vae_step_bfloat16
from benchmarks.wavenet_speed import wavenet_training
from unsup.core.errors import InputError

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
    mae_step,
    mae_step_bfloat16,
    dbn_epoch,
    dbm_step,
    denoising_autoencoder_step,
    rbm_epoch,
    hmm_fit,
    rbm_epoch_bfloat16,
    rotation_step,
    rotation_step_bfloat16,
    fid_speed,
    linear_gaussian_peers,
    kde_peers,
    mixture_peers,
    naive_bayes_peers,
    *((bayes_net_peers,) if find_spec("pgmpy") else ()),
    *((contrastive_steps,) if find_spec("lightly") else ()),
    compression,
    compression_caches,
)


def main(names: list[str]) -> None:
    """Run the benchmarks named, or all of them; rows of the others are kept as they were."""
    known = [b.__name__ for b in BENCHMARKS]
    unknown = [n for n in names if n not in known]
    if unknown:
        raise InputError(f"there is no benchmark {unknown[0]!r}; expected some of: {', '.join(known)}")
    chosen = [b for b in BENCHMARKS if not names or b.__name__ in names]
    rows = {(row[0], row[1]): row for row in written_rows()}
    for benchmark in chosen:
        for row in benchmark().rows():
            rows[row[0], row[1]] = row
            sys.stdout.write("  ".join(row) + "\n")
            sys.stdout.flush()
    memory = peak_memory_megabytes() if not names else None
    write_page(rows.values(), memory)
