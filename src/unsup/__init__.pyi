# Written by scripts/stubs.py from the registry; do not edit.
from collections.abc import Mapping
from typing import Any, Literal, overload

from unsup.core.batch import Batch as Batch
from unsup.core.cells import read_table as read_table
from unsup.core.errors import InputError as InputError
from unsup.core.errors import TrainingError as TrainingError
from unsup.core.errors import UnsupError as UnsupError
from unsup.core.event import Event as Event
from unsup.core.event import Support as Support
from unsup.core.likelihood import Likelihood as Likelihood
from unsup.core.model import Model
from unsup.core.part import Part as Part
from unsup.core.registry import load as load
from unsup.core.registry import register as register
from unsup.data.load import load_data as load_data
from unsup.data.memory import from_arrays as from_arrays
from unsup.evaluate.likelihood import evaluate_likelihood as evaluate_likelihood
from unsup.families.adversarial.cyclegan import CycleGAN
from unsup.families.adversarial.gan import GAN
from unsup.families.autoregressive.gated_pixelcnn import GatedPixelCNN
from unsup.families.autoregressive.made import MADE
from unsup.families.autoregressive.pixelcnn import PixelCNN
from unsup.families.autoregressive.pixelcnn_plus_plus import PixelCNNPlusPlus
from unsup.families.autoregressive.transformer import Transformer
from unsup.families.classical.bernoulli_mixture import BernoulliMixture
from unsup.families.classical.gaussian_mixture import GaussianMixture
from unsup.families.classical.histogram import Histogram
from unsup.families.energy.ebm import EBM
from unsup.families.energy.rbm import RBM
from unsup.families.energy.score_matching import ScoreMatching
from unsup.families.flows.nice import NICE
from unsup.families.flows.realnvp import RealNVP
from unsup.families.latent.vae import VAE
from unsup.train.runs import open_run as open_run
from unsup.train.settings import Settings as Settings
from unsup.train.trainer import fit as fit

__version__: str

@overload
def create(
    name: Literal["histogram"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    bins: int = ...,
    smoothing: float = ...,
    joint: Literal["auto", "always", "never"] = ...,
) -> Histogram: ...
@overload
def create(
    name: Literal["gaussian-mixture"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    components: int | Literal["auto"] = ...,
    covariance: Literal["full", "diagonal", "tied"] | Literal["auto"] = ...,
    learn: Literal["em", "gradient"] = ...,
    iterations: int = ...,
    tolerance: float = ...,
    floor: float = ...,
    restarts: int = ...,
) -> GaussianMixture: ...
@overload
def create(
    name: Literal["bernoulli-mixture"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    components: int = ...,
    smoothing: float = ...,
    learn: Literal["em", "gradient"] = ...,
    iterations: int = ...,
    tolerance: float = ...,
    restarts: int = ...,
) -> BernoulliMixture: ...
@overload
def create(
    name: Literal["made"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    hidden: tuple[int, ...] = ...,
    masks: int = ...,
    order: Literal["natural", "random"] = ...,
    direct: bool = ...,
    components: int = ...,
    dropout: float = ...,
    mask_seed: int = ...,
) -> MADE: ...
@overload
def create(
    name: Literal["pixelcnn"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    channels: int = ...,
    blocks: int = ...,
    head_channels: int = ...,
    kernel: int = ...,
    given: Event | None = ...,
) -> PixelCNN: ...
@overload
def create(
    name: Literal["gated-pixelcnn"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    channels: int = ...,
    layers: int = ...,
    head_channels: int = ...,
    kernel: int = ...,
    given: Event | None = ...,
) -> GatedPixelCNN: ...
@overload
def create(
    name: Literal["pixelcnn++"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    channels: int = ...,
    blocks: int = ...,
    resolutions: int = ...,
    head: Literal["auto", "logistic", "softmax"] = ...,
    mixtures: int = ...,
    dropout: float = ...,
    given: Event | None = ...,
) -> PixelCNNPlusPlus: ...
@overload
def create(
    name: Literal["transformer"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    width: int = ...,
    layers: int = ...,
    heads: int = ...,
    dropout: float = ...,
    given: Event | None = ...,
) -> Transformer: ...
@overload
def create(
    name: Literal["nice"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    layers: int = ...,
    hidden: tuple[int, ...] = ...,
    base: Literal["logistic", "gaussian"] = ...,
) -> NICE: ...
@overload
def create(
    name: Literal["realnvp"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    layers: int = ...,
    hidden: tuple[int, ...] = ...,
    channels: int = ...,
    blocks: int = ...,
    scales: int | None = ...,
) -> RealNVP: ...
@overload
def create(
    name: Literal["vae"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    latent_dim: int = ...,
    hidden: tuple[int, ...] | None = ...,
    net: Literal["dense", "conv"] = ...,
    decoder: Literal["auto", "bernoulli", "categorical", "logistic", "gaussian"] = ...,
    activation: Literal["relu", "tanh"] = ...,
    beta: float = ...,
    samples: int = ...,
    gradient: Literal["pathwise", "stl", "dreg"] = ...,
    prior: Part | str | Mapping[str, Any] | None = ...,
    given: Event | None = ...,
) -> VAE: ...
@overload
def create(
    name: Literal["cyclegan"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    widths: tuple[int, ...] = ...,
    blocks: int | None = ...,
    critic_widths: tuple[int, ...] | None = ...,
    cycle: float = ...,
    identity: float = ...,
    pool: int = ...,
) -> CycleGAN: ...
@overload
def create(
    name: Literal["gan"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    loss: Literal["minimax", "non-saturating", "least-squares", "wgan", "wgan-gp", "hinge"] = ...,
    latent_dim: int = ...,
    net: Literal["auto", "mlp", "dcgan", "resnet"] = ...,
    hidden: tuple[int, ...] = ...,
    generator_channels: int | None = ...,
    critic_channels: int | None = ...,
    critic_norm: Literal["auto", "none", "batch", "spectral"] = ...,
    critic_steps: int | None = ...,
    weight_clip: float | None = ...,
    penalty: float | None = ...,
    r1: float = ...,
    smoothing: float = ...,
    packing: int = ...,
    given: Event | None = ...,
) -> GAN: ...
@overload
def create(
    name: Literal["ebm"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    hidden: tuple[int, ...] | None = ...,
    blocks: int = ...,
    activation: Literal["swish", "leaky-relu"] = ...,
    start: Literal["buffer", "data", "noise"] = ...,
    buffer: int = ...,
    restart: float = ...,
    steps: int = ...,
    step_size: float | None = ...,
    noise: float | None = ...,
    clamp: float | None = ...,
    regularizer: float | None = ...,
    sample_steps: int = ...,
) -> EBM: ...
@overload
def create(
    name: Literal["rbm"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    hidden: int = ...,
    persistent: bool = ...,
    steps: int = ...,
    chains: int = ...,
    centred: bool = ...,
    burn_in: int = ...,
) -> RBM: ...
@overload
def create(
    name: Literal["score-matching"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    hidden: tuple[int, ...] | None = ...,
    blocks: int = ...,
    method: Literal["exact", "sliced", "denoising"] = ...,
    sigma: float = ...,
    slices: int = ...,
    steps: int = ...,
    step_size: float | None = ...,
) -> ScoreMatching: ...
@overload
def create(name: str, event: Event, *, preset: str | None = None, seed: int = 0, **options: Any) -> Model: ...
