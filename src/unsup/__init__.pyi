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
from unsup.families.autoregressive.conditional_2d import Conditional2d
from unsup.families.autoregressive.fvsbn import FVSBN
from unsup.families.autoregressive.gated_pixelcnn import GatedPixelCNN
from unsup.families.autoregressive.image_transformer import ImageTransformer
from unsup.families.autoregressive.made import MADE
from unsup.families.autoregressive.nade import NADE
from unsup.families.autoregressive.parallel_multiscale import ParallelMultiscale
from unsup.families.autoregressive.pixelcnn import PixelCNN
from unsup.families.autoregressive.pixelcnn_plus_plus import PixelCNNPlusPlus
from unsup.families.autoregressive.pixelrnn import PixelRNN
from unsup.families.autoregressive.pixelsnail import PixelSNAIL
from unsup.families.autoregressive.rnn import RNN
from unsup.families.autoregressive.sparse_transformer import SparseTransformer
from unsup.families.autoregressive.subscale import Subscale, SubscaleDepth
from unsup.families.autoregressive.transformer import Transformer
from unsup.families.autoregressive.transformer_xl import TransformerXL
from unsup.families.autoregressive.wavenet import WaveNet
from unsup.families.classical.bayes_net import BayesNet
from unsup.families.classical.bernoulli_mixture import BernoulliMixture
from unsup.families.classical.factor_analysis import FactorAnalysis
from unsup.families.classical.gaussian_mixture import GaussianMixture
from unsup.families.classical.histogram import Histogram
from unsup.families.classical.hmm import HiddenMarkovModel
from unsup.families.classical.kde import KDE
from unsup.families.classical.naive_bayes import NaiveBayes
from unsup.families.classical.ppca import PPCA
from unsup.families.energy.dbm import DBM
from unsup.families.energy.dbn import DBN
from unsup.families.energy.ebm import EBM
from unsup.families.energy.rbm import RBM
from unsup.families.energy.score_matching import ScoreMatching
from unsup.families.flows.cdf_flow import CdfFlow
from unsup.families.flows.ffjord import FFJORD
from unsup.families.flows.flow_plus_plus import FlowPlusPlus
from unsup.families.flows.glow import Glow
from unsup.families.flows.iaf import IAF
from unsup.families.flows.maf import MAF
from unsup.families.flows.naf import NAF
from unsup.families.flows.nice import NICE
from unsup.families.flows.planar import Planar
from unsup.families.flows.radial import Radial
from unsup.families.flows.realnvp import RealNVP
from unsup.families.flows.residual_flow import ResidualFlow
from unsup.families.flows.spline_flow import SplineFlow
from unsup.families.flows.sylvester import Sylvester
from unsup.families.latent.hierarchical_vae import HierarchicalVAE
from unsup.families.latent.latent import Latent
from unsup.families.latent.vae import VAE
from unsup.families.latent.vq_vae import VQVAE
from unsup.families.latent.vq_vae_2 import VQVAE2
from unsup.families.selfsup.autoencoder import Autoencoder
from unsup.families.selfsup.byol import BYOL
from unsup.families.selfsup.colorization import Colorization
from unsup.families.selfsup.cpc import CPC
from unsup.families.selfsup.denoising_autoencoder import DenoisingAutoencoder
from unsup.families.selfsup.jigsaw import Jigsaw
from unsup.families.selfsup.mae import MAE
from unsup.families.selfsup.moco import MoCo
from unsup.families.selfsup.patch_position import PatchPosition
from unsup.families.selfsup.rotation import Rotation
from unsup.families.selfsup.simclr import SimCLR
from unsup.families.selfsup.split_brain import SplitBrain
from unsup.families.selfsup.vicreg import VICReg
from unsup.families.semisup.entropy_minimisation import EntropyMinimisation
from unsup.families.semisup.fixmatch import FixMatch
from unsup.families.semisup.mean_teacher import MeanTeacher
from unsup.families.semisup.mixmatch import MixMatch
from unsup.families.semisup.pseudo_label import PseudoLabel
from unsup.families.semisup.supervised import Supervised
from unsup.families.semisup.uda import UDA
from unsup.families.semisup.vat import VAT
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
    name: Literal["ppca"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    components: int | Literal["auto"] = ...,
    units: Literal["auto", "each", "common"] = ...,
    floor: float = ...,
    iterations: int = ...,
    tolerance: float = ...,
) -> PPCA: ...
@overload
def create(
    name: Literal["factor-analysis"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    components: int | Literal["auto"] = ...,
    floor: float = ...,
    iterations: int = ...,
    tolerance: float = ...,
) -> FactorAnalysis: ...
@overload
def create(
    name: Literal["kde"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    bandwidth: float | Literal["auto", "scott", "silverman"] = ...,
    examples: int = ...,
) -> KDE: ...
@overload
def create(
    name: Literal["hmm"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    states: int = ...,
    components: int = ...,
    covariance: Literal["diagonal", "full"] = ...,
    transition_prior: float = ...,
    smoothing: float = ...,
    covariance_prior: float = ...,
    iterations: int = ...,
    tolerance: float = ...,
    restarts: int = ...,
) -> HiddenMarkovModel: ...
@overload
def create(
    name: Literal["naive-bayes"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    smoothing: float = ...,
    given: Event | None = ...,
) -> NaiveBayes: ...
@overload
def create(
    name: Literal["bayes-net"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    structure: str = ...,
    score: Literal["bic", "bdeu"] = ...,
    max_parents: int = ...,
    equivalent_size: float = ...,
) -> BayesNet: ...
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
    name: Literal["rnn"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    cell: Literal["lstm", "gru"] = ...,
    width: int = ...,
    layers: int = ...,
    dropout: float = ...,
    weight_dropout: float = ...,
    chunk: int | None = ...,
    coordinates: bool = ...,
    frames: bool = ...,
    components: int = ...,
    given: Event | None = ...,
) -> RNN: ...
@overload
def create(
    name: Literal["pixelrnn"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    layer: Literal["row", "diagonal"] = ...,
    channels: int = ...,
    layers: int = ...,
    head_channels: int = ...,
    given: Event | None = ...,
) -> PixelRNN: ...
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
    auxiliary: bool = ...,
    given: Event | None = ...,
) -> Transformer: ...
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
    name: Literal["sparse-transformer"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    width: int = ...,
    layers: int = ...,
    heads: int = ...,
    pattern: Literal["strided", "fixed"] = ...,
    stride: int | None = ...,
    summary: int | None = ...,
    half_size: bool = ...,
    dropout: float = ...,
    given: Event | None = ...,
) -> SparseTransformer: ...
@overload
def create(
    name: Literal["transformer-xl"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    width: int = ...,
    layers: int = ...,
    heads: int = ...,
    hidden: int | None = ...,
    segment: int = ...,
    memory: int = ...,
    eval_memory: int | None = ...,
    same_length: bool = ...,
    clamp: int | None = ...,
    dropout: float = ...,
    attention_dropout: float = ...,
    given: Event | None = ...,
) -> TransformerXL: ...
@overload
def create(
    name: Literal["wavenet"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    width: int = ...,
    skip: int = ...,
    layers: int = ...,
    stacks: int = ...,
    components: int = ...,
    given: Event | None = ...,
) -> WaveNet: ...
@overload
def create(
    name: Literal["conditional-2d"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    hidden: tuple[int, ...] = ...,
    given: Event | None = ...,
) -> Conditional2d: ...
@overload
def create(
    name: Literal["fvsbn"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    given: Event | None = ...,
) -> FVSBN: ...
@overload
def create(
    name: Literal["nade"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    hidden: int = ...,
    layers: int = ...,
    order: Literal["natural", "random"] = ...,
    orderless: bool = ...,
    ensemble: int = ...,
    order_seed: int = ...,
) -> NADE: ...
@overload
def create(
    name: Literal["parallel-multiscale"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    base: int = ...,
    channels: int = ...,
    layers: int = ...,
    blocks: int = ...,
    head_channels: int = ...,
    given: Event | None = ...,
) -> ParallelMultiscale: ...
@overload
def create(
    name: Literal["pixelsnail"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    channels: int = ...,
    blocks: int = ...,
    layers: int = ...,
    keys: int = ...,
    values: int = ...,
    dropout: float = ...,
    head: Literal["auto", "logistic", "softmax"] = ...,
    components: int = ...,
    given: Event | None = ...,
) -> PixelSNAIL: ...
@overload
def create(
    name: Literal["image-transformer"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    width: int = ...,
    layers: int = ...,
    heads: int = ...,
    hidden: int = ...,
    head: Literal["softmax", "logistic"] = ...,
    components: int = ...,
    attention: Literal["1d", "2d"] = ...,
    block: tuple[int, ...] | None = ...,
    memory: tuple[int, ...] | None = ...,
    dropout: float = ...,
    given: Event | None = ...,
) -> ImageTransformer: ...
@overload
def create(
    name: Literal["subscale"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    scale: int = ...,
    channels: int = ...,
    layers: int = ...,
    attention: int = ...,
    heads: int = ...,
    embedding: int = ...,
    blocks: int = ...,
    given: Event | None = ...,
) -> Subscale: ...
@overload
def create(
    name: Literal["subscale-depth"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    depth: int = ...,
    scale: int = ...,
    channels: int = ...,
    layers: int = ...,
    attention: int = ...,
    heads: int = ...,
    embedding: int = ...,
    blocks: int = ...,
) -> SubscaleDepth: ...
@overload
def create(
    name: Literal["flow++"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    channels: int = ...,
    blocks: int = ...,
    heads: int = ...,
    components: int = ...,
    noise_blocks: int = ...,
    dropout: float = ...,
    dequantization: Literal["uniform", "variational"] = ...,
    given: Event | None = ...,
) -> FlowPlusPlus: ...
@overload
def create(
    name: Literal["ffjord"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    layers: int = ...,
    hidden: tuple[int, ...] = ...,
    activation: Literal["softplus", "tanh"] = ...,
    trace: Literal["auto", "exact", "estimate"] = ...,
    solver: Literal["rk4", "dopri5"] = ...,
    steps: int = ...,
    tolerance: float = ...,
    dequantization: Literal["uniform", "variational"] = ...,
    given: Event | None = ...,
) -> FFJORD: ...
@overload
def create(
    name: Literal["residual-flow"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    steps: int = ...,
    hidden: tuple[int, ...] = ...,
    scales: int | None = ...,
    dense: int = ...,
    log_det: Literal["auto", "exact", "estimate"] = ...,
    dequantization: Literal["uniform", "variational"] = ...,
    given: Event | None = ...,
) -> ResidualFlow: ...
@overload
def create(
    name: Literal["sylvester"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    layers: int = ...,
    rank: int | None = ...,
    dequantization: Literal["uniform", "variational"] = ...,
    given: Event | None = ...,
) -> Sylvester: ...
@overload
def create(
    name: Literal["naf"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    layers: int = ...,
    hidden: tuple[int, ...] = ...,
    transformer: Literal["dsf", "ddsf"] = ...,
    units: int = ...,
    sigmoid_layers: int = ...,
    dequantization: Literal["uniform", "variational"] = ...,
    given: Event | None = ...,
) -> NAF: ...
@overload
def create(
    name: Literal["cdf-flow"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    components: int = ...,
    component: Literal["logistic", "gaussian"] = ...,
    base: Literal["gaussian", "uniform"] = ...,
    dependence: Literal["autoregressive", "independent"] = ...,
    hidden: tuple[int, ...] = ...,
    whiten: bool = ...,
    dequantization: Literal["uniform", "variational"] = ...,
    given: Event | None = ...,
) -> CdfFlow: ...
@overload
def create(
    name: Literal["planar"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    layers: int = ...,
    dequantization: Literal["uniform", "variational"] = ...,
    given: Event | None = ...,
) -> Planar: ...
@overload
def create(
    name: Literal["radial"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    layers: int = ...,
    dequantization: Literal["uniform", "variational"] = ...,
    given: Event | None = ...,
) -> Radial: ...
@overload
def create(
    name: Literal["glow"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    scales: int | None = ...,
    steps: int = ...,
    channels: int = ...,
    coupling: Literal["affine", "additive"] = ...,
    mixing: Literal["lu", "plain"] = ...,
    dequantization: Literal["uniform", "variational"] = ...,
    given: Event | None = ...,
) -> Glow: ...
@overload
def create(
    name: Literal["maf"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    layers: int = ...,
    hidden: tuple[int, ...] = ...,
    batch_norm: bool = ...,
    components: int = ...,
    dropout: float = ...,
    whiten: bool = ...,
    dequantization: Literal["uniform", "variational"] = ...,
    given: Event | None = ...,
) -> MAF: ...
@overload
def create(
    name: Literal["iaf"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    layers: int = ...,
    hidden: tuple[int, ...] = ...,
    dequantization: Literal["uniform", "variational"] = ...,
    given: Event | None = ...,
) -> IAF: ...
@overload
def create(
    name: Literal["spline-flow"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    step: Literal["coupling", "autoregressive"] = ...,
    layers: int = ...,
    width: int = ...,
    blocks: int = ...,
    scales: int | None = ...,
    bins: int = ...,
    bound: float = ...,
    dropout: float = ...,
    whiten: bool = ...,
    dequantization: Literal["uniform", "variational"] = ...,
    given: Event | None = ...,
) -> SplineFlow: ...
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
    dequantization: Literal["uniform", "variational"] = ...,
    given: Event | None = ...,
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
    dequantization: Literal["uniform", "variational"] = ...,
    given: Event | None = ...,
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
    decoder: Literal["auto", "bernoulli", "categorical", "logistic", "logistic-mixture", "gaussian"] = ...,
    window: int = ...,
    window_features: int = ...,
    activation: Literal["relu", "tanh"] = ...,
    beta: float = ...,
    samples: int = ...,
    gradient: Literal["pathwise", "stl", "dreg"] = ...,
    posterior: Literal["diagonal", "full", "planar", "sylvester", "iaf"] = ...,
    flow_steps: int = ...,
    flow_hidden: tuple[int, ...] = ...,
    prior: Part | str | Mapping[str, Any] | None = ...,
    pseudo_inputs: int = ...,
    warm_up: int = ...,
    free_bits: float = ...,
    mmd: float = ...,
    refinement: int = ...,
    given: Event | None = ...,
) -> VAE: ...
@overload
def create(
    name: Literal["hierarchical-vae"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    latents: tuple[int, ...] | None = ...,
    hidden: tuple[int, ...] | None = ...,
    depth: int = ...,
    net: Literal["dense", "conv"] = ...,
    blocks: tuple[int, ...] = ...,
    encoder_blocks: tuple[int, ...] | None = ...,
    pooling: tuple[int, ...] | None = ...,
    cell: Literal["bottleneck", "separable", "plain"] = ...,
    posterior: Literal["bottom-up", "ladder", "direct", "residual", "iaf"] = ...,
    decoder: Literal["auto", "bernoulli", "categorical", "logistic", "logistic-mixture", "gaussian"] = ...,
    activation: Literal["relu", "tanh"] = ...,
    norm: Literal["none", "batch"] = ...,
    samples: int = ...,
    gradient: Literal["pathwise", "dreg"] = ...,
    warm_up: int = ...,
    free_bits: float = ...,
    spectral: float = ...,
    flow_steps: int = ...,
    flow_hidden: tuple[int, ...] = ...,
    given: Event | None = ...,
) -> HierarchicalVAE: ...
@overload
def create(
    name: Literal["vq-vae"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    codebook_size: int = ...,
    code_dim: int = ...,
    codes: int | None = ...,
    codebook: Literal["moving", "gradient"] = ...,
    decay: float = ...,
    commitment: float = ...,
    net: Literal["conv", "dense"] | None = ...,
    width: int = ...,
    block_width: int = ...,
    blocks: int = ...,
    stages: int = ...,
    hidden: tuple[int, ...] = ...,
    decoder: Literal["auto", "bernoulli", "categorical", "logistic", "logistic-mixture", "gaussian"] = ...,
    prior: Part | str | Mapping[str, Any] | None = ...,
    autoencoder: Part | str | Mapping[str, Any] | None = ...,
) -> VQVAE: ...
@overload
def create(
    name: Literal["vq-vae-2"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    levels: int = ...,
    codebook_size: int = ...,
    code_dim: int = ...,
    codebook: Literal["moving", "gradient"] = ...,
    decay: float = ...,
    commitment: float = ...,
    width: int = ...,
    block_width: int = ...,
    blocks: int = ...,
    stages: int = ...,
    decoder: Literal["auto", "bernoulli", "categorical", "logistic", "logistic-mixture", "gaussian"] = ...,
    prior: Part | str | Mapping[str, Any] | None = ...,
    bottom_prior: Part | str | Mapping[str, Any] | None = ...,
    autoencoder: Part | str | Mapping[str, Any] | None = ...,
) -> VQVAE2: ...
@overload
def create(
    name: Literal["latent"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    layers: tuple[int, ...] = ...,
    categories: int = ...,
    hidden: tuple[int, ...] | None = ...,
    net: Literal["dense", "conv"] = ...,
    decoder: Literal["auto", "bernoulli", "categorical", "logistic", "logistic-mixture", "gaussian"] = ...,
    activation: Literal["relu", "tanh"] = ...,
    objective: Literal[
        "enumerate",
        "variational",
        "prior",
        "importance",
        "nvil",
        "vimco",
        "gumbel-softmax",
        "straight-through",
        "wake-sleep",
        "reweighted-wake-sleep",
    ] = ...,
    samples: int | None = ...,
    proposal: Part | str | Mapping[str, Any] | None = ...,
    sweeps: int = ...,
    wake_q: bool = ...,
    temperature: float = ...,
    last_temperature: float = ...,
) -> Latent: ...
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
    name: Literal["dbm"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    hidden: tuple[int, ...] = ...,
    pretraining: float = ...,
    mean_field: int = ...,
    steps: int = ...,
    chains: int = ...,
    centred: bool = ...,
    burn_in: int = ...,
) -> DBM: ...
@overload
def create(
    name: Literal["dbn"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    hidden: tuple[int, ...] = ...,
    persistent: bool = ...,
    steps: int = ...,
    chains: int = ...,
    centred: bool = ...,
    fine_tuning: float = ...,
    burn_in: int = ...,
) -> DBN: ...
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
def create(
    name: Literal["autoencoder"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    code: int = ...,
    hidden: tuple[int, ...] | None = ...,
    net: Literal["dense", "conv"] = ...,
    decoder: Literal["auto", "bernoulli", "categorical", "logistic", "logistic-mixture", "gaussian"] = ...,
    activation: Literal["sigmoid", "tanh", "relu", "linear"] = ...,
    code_activation: Literal["sigmoid", "tanh", "relu", "linear"] = ...,
    tied: bool = ...,
    sparsity: float = ...,
    target: float = ...,
    contractive: float = ...,
) -> Autoencoder: ...
@overload
def create(
    name: Literal["denoising-autoencoder"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    code: int = ...,
    hidden: tuple[int, ...] | None = ...,
    net: Literal["dense", "conv"] = ...,
    decoder: Literal["auto", "bernoulli", "categorical", "logistic", "logistic-mixture", "gaussian"] = ...,
    activation: Literal["sigmoid", "tanh", "relu", "linear"] = ...,
    tied: bool = ...,
    noise: Literal["masking", "gaussian", "salt"] = ...,
    corruption: float = ...,
    pretraining: float | None = ...,
) -> DenoisingAutoencoder: ...
@overload
def create(
    name: Literal["rotation"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    net: Literal[
        "mlp", "conv-small", "conv-large", "nin-3", "nin-4", "nin-5", "wrn-28-2", "resnet18", "resnet50", "vit"
    ] = ...,
    width: float = ...,
    stage: int | None = ...,
    views: str = ...,
) -> Rotation: ...
@overload
def create(
    name: Literal["patch-position"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    net: Literal[
        "alexnet", "conv-small", "conv-large", "nin-3", "nin-4", "nin-5", "wrn-28-2", "resnet18", "resnet50"
    ] = ...,
    width: float = ...,
    patch: int | None = ...,
    hidden: int = ...,
    grids: int = ...,
    stage: int | None = ...,
) -> PatchPosition: ...
@overload
def create(
    name: Literal["jigsaw"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    permutations: int = ...,
    net: Literal[
        "alexnet", "conv-small", "conv-large", "nin-3", "nin-4", "nin-5", "wrn-28-2", "resnet18", "resnet50"
    ] = ...,
    width: float = ...,
    patch: int | None = ...,
    hidden: tuple[int, int] = ...,
    dropout: float = ...,
    stage: int | None = ...,
) -> Jigsaw: ...
@overload
def create(
    name: Literal["colorization"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    width: int = ...,
    halvings: int = ...,
    layers: int = ...,
    dilated: int = ...,
    uniform: float = ...,
    temperature: float = ...,
) -> Colorization: ...
@overload
def create(
    name: Literal["split-brain"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    net: Literal["vgg", "alexnet"] = ...,
    width: int = ...,
    halvings: int = ...,
    layers: int = ...,
    dilated: int = ...,
) -> SplitBrain: ...
@overload
def create(
    name: Literal["cpc"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    width: int | None = ...,
    context: int = ...,
    steps: int | None = ...,
    kernels: tuple[int, ...] = ...,
    strides: tuple[int, ...] = ...,
    window: int | None = ...,
    patch: int | None = ...,
    blocks: tuple[int, ...] = ...,
    bottleneck: bool = ...,
    norm: Literal["layer", "none"] = ...,
    layers: int = ...,
) -> CPC: ...
@overload
def create(
    name: Literal["simclr"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    net: Literal[
        "mlp", "conv-small", "conv-large", "nin-3", "nin-4", "nin-5", "wrn-28-2", "resnet18", "resnet50", "vit"
    ] = ...,
    width: float = ...,
    projection: tuple[int, ...] | None = ...,
    views: str = ...,
    temperature: float = ...,
) -> SimCLR: ...
@overload
def create(
    name: Literal["moco"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    net: Literal[
        "mlp", "conv-small", "conv-large", "nin-3", "nin-4", "nin-5", "wrn-28-2", "resnet18", "resnet50", "vit"
    ] = ...,
    width: float = ...,
    projection: tuple[int, ...] = ...,
    views: str = ...,
    temperature: float = ...,
    queue: int = ...,
    momentum: float = ...,
    group: int = ...,
) -> MoCo: ...
@overload
def create(
    name: Literal["byol"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    net: Literal[
        "mlp", "conv-small", "conv-large", "nin-3", "nin-4", "nin-5", "wrn-28-2", "resnet18", "resnet50", "vit"
    ] = ...,
    width: float = ...,
    projection: tuple[int, ...] = ...,
    prediction: tuple[int, ...] = ...,
    views: tuple[str, ...] = ...,
    teacher: bool = ...,
    momentum: float = ...,
) -> BYOL: ...
@overload
def create(
    name: Literal["vicreg"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    net: Literal[
        "mlp", "conv-small", "conv-large", "nin-3", "nin-4", "nin-5", "wrn-28-2", "resnet18", "resnet50", "vit"
    ] = ...,
    width: float = ...,
    expander: tuple[int, ...] = ...,
    views: tuple[str, ...] = ...,
    objective: Literal["vicreg", "barlow-twins"] = ...,
    invariance: float = ...,
    variance: float = ...,
    covariance: float = ...,
    redundancy: float = ...,
) -> VICReg: ...
@overload
def create(
    name: Literal["mae"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    patch: int | None = ...,
    size: int = ...,
    depth: int = ...,
    heads: int = ...,
    class_token: bool = ...,
    mask_ratio: float = ...,
    normalised: bool = ...,
    decoder_size: int = ...,
    decoder_depth: int = ...,
    decoder_heads: int = ...,
    views: str = ...,
) -> MAE: ...
@overload
def create(
    name: Literal["supervised"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    classes: int = ...,
    net: Literal[
        "mlp", "conv-small", "conv-large", "nin-3", "nin-4", "nin-5", "wrn-28-2", "resnet18", "resnet50", "vit"
    ] = ...,
    width: float = ...,
) -> Supervised: ...
@overload
def create(
    name: Literal["entropy-minimisation"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    classes: int = ...,
    net: Literal[
        "mlp", "conv-small", "conv-large", "nin-3", "nin-4", "nin-5", "wrn-28-2", "resnet18", "resnet50", "vit"
    ] = ...,
    width: float = ...,
    entropy: float = ...,
    consistency: float = ...,
    views: str = ...,
    noise: float = ...,
    ramp: float = ...,
    unlabelled: int = ...,
) -> EntropyMinimisation: ...
@overload
def create(
    name: Literal["pseudo-label"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    classes: int = ...,
    net: Literal[
        "mlp", "conv-small", "conv-large", "nin-3", "nin-4", "nin-5", "wrn-28-2", "resnet18", "resnet50", "vit"
    ] = ...,
    width: float = ...,
    weight: float = ...,
    start: float = ...,
    end: float = ...,
    threshold: float = ...,
    views: str = ...,
    unlabelled: int = ...,
) -> PseudoLabel: ...
@overload
def create(
    name: Literal["vat"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    classes: int = ...,
    net: Literal[
        "mlp", "conv-small", "conv-large", "nin-3", "nin-4", "nin-5", "wrn-28-2", "resnet18", "resnet50", "vit"
    ] = ...,
    width: float = ...,
    epsilon: float = ...,
    alpha: float = ...,
    entropy: float = ...,
    iterations: int = ...,
    unlabelled: int = ...,
) -> VAT: ...
@overload
def create(
    name: Literal["mean-teacher"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    classes: int = ...,
    net: Literal[
        "mlp", "conv-small", "conv-large", "nin-3", "nin-4", "nin-5", "wrn-28-2", "resnet18", "resnet50", "vit"
    ] = ...,
    width: float = ...,
    weight: float = ...,
    momentum: float = ...,
    views: str = ...,
    noise: float = ...,
    ramp: float = ...,
    unlabelled: int = ...,
) -> MeanTeacher: ...
@overload
def create(
    name: Literal["mixmatch"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    classes: int = ...,
    net: Literal[
        "mlp", "conv-small", "conv-large", "nin-3", "nin-4", "nin-5", "wrn-28-2", "resnet18", "resnet50", "vit"
    ] = ...,
    width: float = ...,
    weight: float = ...,
    ramp: float = ...,
    temperature: float = ...,
    alpha: float = ...,
    guesses: int = ...,
    views: str = ...,
    unlabelled: int = ...,
) -> MixMatch: ...
@overload
def create(
    name: Literal["uda"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    classes: int = ...,
    net: Literal[
        "mlp", "conv-small", "conv-large", "nin-3", "nin-4", "nin-5", "wrn-28-2", "resnet18", "resnet50", "vit"
    ] = ...,
    width: float = ...,
    weight: float = ...,
    threshold: float = ...,
    temperature: float = ...,
    annealing: Literal["none", "linear", "exp", "log"] = ...,
    views: str = ...,
    strong: str = ...,
    noise: float = ...,
    unlabelled: int = ...,
) -> UDA: ...
@overload
def create(
    name: Literal["fixmatch"],
    event: Event,
    *,
    preset: str | None = None,
    seed: int = 0,
    classes: int = ...,
    net: Literal[
        "mlp", "conv-small", "conv-large", "nin-3", "nin-4", "nin-5", "wrn-28-2", "resnet18", "resnet50", "vit"
    ] = ...,
    width: float = ...,
    weight: float = ...,
    threshold: float = ...,
    views: str = ...,
    strong: str = ...,
    noise: float = ...,
    unlabelled: int = ...,
) -> FixMatch: ...
@overload
def create(name: str, event: Event, *, preset: str | None = None, seed: int = 0, **options: Any) -> Model: ...
