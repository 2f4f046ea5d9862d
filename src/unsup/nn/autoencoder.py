"""An encoder and a decoder for examples of any event, with conditions: the common part of all autoencoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import ChooseEntry
from unsup.nn.bottlenecks import BottleneckNet
from unsup.nn.columns import is_table
from unsup.nn.conditions import Conditions, joined
from unsup.nn.heads import Heads
from unsup.nn.inputs import Inputs, TableInputs
from unsup.nn.local_decoder import LocalDecoder
from unsup.nn.logistics import MixtureOfLogistics, PixelMixture
from unsup.nn.nets import UnitName, conv_decoder, conv_encoder, dense, halved, start_glorot, tied_decoder
from unsup.nn.observation import Continuous, Discrete, Observation, ObservationName, observation_for

NetName = Literal["dense", "conv"]
_COMPONENTS = 10  # of mixtures, as in PixelCNN++


class Autoencoder(nn.Module):
    """Networks from examples to parameters of codes, and from codes to the outputs of an observation model p(x|z).

    The inputs of the encoder are levels scaled to [0, 1] (binary) or [−1, 1], one-hot symbols, or, for continuous data,
    y of the front. In tables with mixed columns or missing entries they are those of `TableInputs`, and every column
    has a head (`Heads`); a missing entry is zeros with an indicator for the encoder, and is not scored. The features of
    a condition are appended to these inputs, and to the codes of the decoder.

    Args:
        event: any event; images for ``net="conv"``.
        code_size: size of a code.
        encoded_size: size of the output of the encoder, e.g. a mean and a log-variance per entry of the code; 0: there
            is no encoder.
        hidden: widths of the hidden layers of the encoder, mirrored in the decoder (``()``: both linear); channels of
            its stride-2 stages when ``net="conv"``. None: (256, 256), or (32, 64) for ``net="conv"``.
        net: dense layers, or 4×4 convolutions of stride 2 down and transposed ones up. A `BottleneckNet` has codes that
            are maps: ``code_size`` and ``encoded_size`` are then per place, and codes are flattened maps. ``places``
            is a 1×1 convolution from flattened maps with the sides of the image; there is no encoder, and conditions
            are for the caller.
        decoder: name of the observation model; ``logistic-mixture`` has 10 components, and couples the channels of a
            pixel for ``places``.
        activation: of the hidden layers.
        tied: whether the decoder has the transposed weights of the dense encoder.
        given: the event of the condition, or None.
        window: pixels around each pixel, and before it, on which its outputs also depend, see `LocalDecoder`.
        window_features: hidden features for them.
        owner: name for errors.

    Attributes:
        widest: size of the widest layer of the decoder.
        seen_size: number of inputs of the encoder, see `seen`.
        seen_sizes: number of inputs of the encoder for each entry of an example.

    Raises:
        InputError: an observation model or network that does not fit the event.

    >>> from unsup.core.event import BINARY
    >>> nets = Autoencoder(Event((1, 8, 8), BINARY), code_size=3, encoded_size=6, net="conv", owner="AE")
    >>> nets.encode(torch.zeros(2, 1, 8, 8)).shape, nets.decode(torch.zeros(5, 3)).shape
    (torch.Size([2, 6]), torch.Size([5, 64, 1]))
    """

    def __init__(
        self,
        event: Event,
        *,
        code_size: int,
        encoded_size: int,
        hidden: tuple[int, ...] | None = None,
        net: NetName | BottleneckNet | Literal["places"] = "dense",
        decoder: ObservationName = "auto",
        activation: UnitName = "relu",
        tied: bool = False,
        given: Event | None = None,
        window: int = 0,
        window_features: int = 32,
        owner: str,
    ) -> None:
        super().__init__()
        self.event = event
        self.observation = _observation(event, decoder, f"{owner}: decoder", couples=net == "places")
        kind = event.uniform.kind if event.uniform is not None else "real"
        self.inputs: Inputs | TableInputs | None
        if isinstance(self.observation, Heads):
            self.inputs = TableInputs(event)
        elif isinstance(self.observation, Continuous):
            self.inputs = None  # its front scales the input
        else:
            self.inputs = Inputs(event, one_hot=kind == "nominal", lowest=0 if kind == "binary" else -1)
        self.seen_sizes = seen_sizes = (1,) * event.dims if self.inputs is None else self.inputs.sizes
        if net == "dense":
            hidden = (256, 256) if hidden is None else hidden
            self.cells, self.conditions = event.dims, Conditions(given)
            seen, made = sum(seen_sizes) + self.conditions.channels, sum(self.observation.sizes)
            self.seen_size = seen
            self.encoder = dense((seen, *hidden, encoded_size), activation) if encoded_size else None
            if tied:
                _check_tied(event, seen, made, owner)
                assert self.encoder is not None
                self.decoder = tied_decoder(self.encoder, activation)
            else:
                self.decoder = dense((code_size + self.conditions.size, *reversed(hidden), made), activation)
            self.widest = max((*hidden, made))
        else:
            if tied:
                raise InputError(f"{owner}: tied=True is for net='dense', whose decoder mirrors the encoder")
            if isinstance(net, BottleneckNet):
                hidden = net.widths
            hidden = () if net == "places" else (32, 64) if hidden is None else hidden
            _check_conv(event, hidden, owner, halved=net != "places")
            self.cells, height, width = event.shape
            sides = (height, width)
            self.conditions = Conditions(given, sides)
            seen = sum(seen_sizes[: self.cells]) + self.conditions.channels
            own = self.observation
            made = own.outputs if isinstance(own, PixelMixture) else sum(own.sizes[: self.cells])
            self.seen_size = seen * height * width
            if isinstance(net, BottleneckNet):
                self.encoder = net.encoder(seen, encoded_size)
                self.decoder = net.decoder(code_size, made, sides)
            elif net == "places":
                self.encoder = None
                self.decoder = nn.Sequential(nn.Unflatten(1, (code_size, *sides)), nn.Conv2d(code_size, made, 1))
            else:
                self.encoder = conv_encoder((seen, *hidden), sides, encoded_size, activation) if encoded_size else None
                codes = code_size + self.conditions.size
                self.decoder = conv_decoder(codes, (*reversed(hidden), made), sides, activation)
            areas = [h * w for h, w in halved(sides, len(hidden))]
            self.widest = max(c * a for c, a in zip((made, *hidden), areas, strict=True))
        self.local: LocalDecoder | None = None
        if window:
            if not isinstance(self.observation, Discrete):
                raise InputError(
                    f"{owner}: window={window} takes complete images of discrete entries of one kind, and a decoder of "
                    f"their probabilities; this data is {event}"
                )
            self.local = LocalDecoder(event, self.observation, window=window, features=window_features, owner=owner)
            self.widest = max(self.widest, self.local.features)
        start_glorot(*(net for net in (self.encoder, self.decoder) if net is not None))

    @property
    def output_bias(self) -> Tensor:
        bias = self.decoder[-1].bias
        assert isinstance(bias, Tensor)
        return bias

    @torch.no_grad()
    def prepare(self, x: Tensor, given: Tensor | None, *, generator: Generator) -> None:
        """Initialise the output bias with the data marginals (Bernoullis: log-odds of the mean within [0.001, 0.999]).

        A dense decoder has one bias per dimension, a convolutional decoder one per channel.
        """
        self.observation.prepare(x, generator)
        if isinstance(self.inputs, TableInputs):
            self.inputs.prepare(self.observation.target(x))
        cells = x.reshape(len(x), self.cells, -1).transpose(1, 2).flatten(0, 1)  # (N · H · W, C), or (N, D)
        self.output_bias.copy_(self.observation.marginal(cells).flatten())
        self.conditions.prepare(given, generator=generator)

    def encode(self, x: Tensor, features: Tensor | None = None) -> Tensor:
        """Raw data ``(B, *event.shape)``, and features of conditions ``(B, F)`` → ``(B, encoded_size)``."""
        return self.encode_seen(self.seen(x, features))

    def seen(self, x: Tensor, features: Tensor | None = None) -> Tensor:
        """The input of the encoder: ``(B, seen_size)``, or channels of images ``(B, C, H, W)`` for convolutions."""
        self.event.check_shape(x)
        if isinstance(self.inputs, TableInputs):
            seen = self.inputs(self.observation.target(x))
        elif isinstance(self.observation, Continuous):
            seen = self.observation.front.middle(x)
        else:
            assert self.inputs is not None
            seen = self.inputs.flat(x) if self.conditions.sides is None else self.inputs.image(x)
        return joined(seen, self.conditions.beside_examples(features))

    def encode_seen(self, seen: Tensor) -> Tensor:
        """`encode` of what `seen` returns."""
        assert self.encoder is not None
        encoded: Tensor = self.encoder(seen)
        return encoded

    def decode(self, z: Tensor, features: Tensor | None = None) -> Tensor:
        """Codes ``(N, code_size)``, and features of conditions ``(N, F)`` → outputs ``(N, D, outputs_each)``.

        With a window they are those that `LocalDecoder` corrects. Those of `Heads` lie side by side, ``(N, P)``; those
        of a `PixelMixture` are ``(N, H W, outputs)``.
        """
        return self.shaped(self.decoder(joined(z.to(self.output_bias.dtype), features)))

    def shaped(self, out: Tensor) -> Tensor:
        """What the last layer of the decoder returns, in the shape of `decode`."""
        if isinstance(self.observation, Heads):
            return out
        if isinstance(self.observation, PixelMixture):
            return out.flatten(2).transpose(1, 2)
        each, dims = self.observation.outputs_each, self.event.dims
        out = out.reshape(len(out), self.cells, each, dims // self.cells)  # (N, C, P, H · W), or (N, D, P, 1)
        outputs: Tensor = out.transpose(2, 3).reshape(len(out), dims, each)
        return outputs

    def log_likelihood(self, target: Tensor, z: Tensor, features: Tensor | None = None) -> Tensor:
        """log p(target|z) of k draws: targets ``(B, D)`` or ``(k, B, D)``, codes ``(k, B, code_size)`` → ``(k, B)``."""
        outputs = self.decode(z.flatten(0, 1), None if features is None else features.repeat(len(z), 1))
        outputs = outputs.view(*z.shape[:2], *outputs.shape[1:])
        if self.local is not None:
            outputs = self.local.outputs(target, outputs)
        return self.observation.total_log_prob(target, outputs)

    def log_likelihood_table(self, target: Tensor, z: Tensor) -> Tensor:
        """log p(target_b|z_s) of every pair: targets ``(B, D)``, codes ``(S, code_size)`` → ``(S, B)``."""
        return self.observation.log_prob_table(target, self.decode(z))

    def log_masses(self, outputs: Tensor, columns: Tensor) -> Tensor:
        """log p of all levels of discrete columns with the same number of levels: outputs of `decode` → ``(N, n, K)``.

        For entropy coding.
        """
        if isinstance(self.observation, Heads):
            return self.observation.log_masses(outputs, columns)
        assert isinstance(self.observation, Discrete)
        return self.observation.log_masses(outputs[:, columns])

    def visit(self, plain: Tensor, choose: ChooseEntry) -> None:
        """Visit the entries one after the other, for entropy coding with a window: outputs of `decode`."""
        assert self.local is not None
        observation = self.local.observation
        self.local.walked(plain, lambda entry, outputs: choose(entry, observation.conditional(entry, outputs)))

    def target(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """The target that `log_likelihood` scores, from raw data: ``(B, *event.shape)`` → ``(B, D)``."""
        return self.observation.target(x, generator).flatten(1)

    def typical(self, z: Tensor, features: Tensor | None = None) -> Tensor:
        """The most typical raw example for each code: ``(N, code_size)`` → ``(N, *event.shape)``."""
        return self.observation.raw(self._chosen(z, features, self.observation.typical))

    def draw(self, z: Tensor, features: Tensor | None = None, *, generator: Generator | None = None) -> Tensor:
        """One raw example drawn from each code: ``(N, code_size)`` → ``(N, *event.shape)``."""
        return self.observation.raw(self._chosen(z, features, lambda o: self.observation.draw(o, generator)))

    def _chosen(self, z: Tensor, features: Tensor | None, choose: Callable[[Tensor], Tensor]) -> Tensor:
        """Targets chosen by their outputs, ``(N, D)``: all at once, or one after the other with a window."""
        plain = self.decode(z, features)
        return choose(plain) if self.local is None else self.local.walked(plain, lambda _, outputs: choose(outputs))


def _observation(event: Event, name: ObservationName, owner: str, *, couples: bool) -> Observation:
    """The heads of a table; the observation model ``name`` of other events."""
    if name == "logistic-mixture":
        if not any(support.kind == "ordinal" for support in event.columns):
            raise InputError(f"{owner}={name!r} does not fit {event}; it takes whole numbers with an order")
        if is_table(event):
            return Heads(event, _COMPONENTS)
        is_coupled = couples and len(event.shape) == 3 and event.shape[0] > 1
        return PixelMixture(event, _COMPONENTS) if is_coupled else MixtureOfLogistics(event, _COMPONENTS)
    if not is_table(event):
        return observation_for(event, name, owner=owner)
    if name != "auto":
        raise InputError(f"{owner}={name!r} does not fit {event}, whose columns have a head each; expected 'auto'")
    return Heads(event)


def _check_tied(event: Event, seen: int, made: int, owner: str) -> None:
    if seen != made:
        raise InputError(
            f"{owner}: tied=True needs as many outputs of the decoder as inputs of the encoder; on {event} they are "
            f"{made} and {seen}; use tied=False, or a decoder with one output per number"
        )


def _check_conv(event: Event, hidden: tuple[int, ...], owner: str, *, halved: bool) -> None:
    if not event.is_image or event.missing:
        raise InputError(f"{owner}: net='conv' takes complete images only; this data is {event}; use net='dense'")
    if halved and (not hidden or min(event.shape[1:]) < 2 ** len(hidden)):
        raise InputError(
            f"{owner}: net='conv' halves the sides once per width in hidden={hidden}: expected at least one width "
            f"and sides of at least {2 ** len(hidden)}; this data is {event}; use fewer widths, or net='dense'"
        )
