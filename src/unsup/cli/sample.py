"""``unsup sample RUN``: draw examples, as a picture or as raw values."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsup.cli.options import Parser
from unsup.cli.show import write
from unsup.core.errors import CapabilityError, InputError

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from unsup.core.model import Model


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="unsup sample", description="Draw examples from a run.")
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("-n", type=int, default=64, metavar="N", help="how many [64]")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help=".png for a picture, .npy for raw values")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw [0]")
    parser.add_argument(
        "--temperature", type=float, metavar="T", help="below 1 is nearer the modes, where the model has one"
    )
    parser.add_argument("--label", type=int, metavar="N", help="class number, for models trained with classes")
    options = parser.parse(arguments)
    if options.n < 1:
        raise InputError(f"-n {options.n} should be at least 1")
    if options.temperature is not None and not options.temperature > 0:
        raise InputError(f"--temperature {options.temperature} should be above 0")

    from unsup.evaluate.samples import draw_samples
    from unsup.train.progress import Progress
    from unsup.train.runs import open_run

    run = open_run(options.run)
    with Progress("auto", unit="sample", start=0) as display:

        def on_chunk(done: int, total: int) -> None:
            if display.due():
                display.show(done, total, {})

        draw = _sampler(run.model, run.config["model"]["model"], options)
        x = draw_samples(run.model, options.n, seed=options.seed, draw=draw, on_chunk=on_chunk)
    write_examples(x, run.model, options.out)
    write(f"{len(x)} samples of {run.path} in {options.out}")
    return 0


def _sampler(model: Model, name: str, options: Any) -> Callable[[int, Generator], Tensor]:
    """What draws n examples as the options ask."""
    import torch

    from unsup.core.model import CanSample, CanTemper, IsConditional

    temper = {} if options.temperature is None else {"temperature": options.temperature}
    if options.label is not None:
        if not (isinstance(model, IsConditional) and model.classes):
            raise CapabilityError(
                f"{name} was not trained with classes; leave out --label, or fit it with --model.classes"
            )
        if not 0 <= options.label < model.classes:
            raise InputError(f"--label {options.label} should be from 0 to {model.classes - 1}")
        label: int = options.label

        def given(n: int, generator: Generator) -> Tensor:
            return model.sample_given(torch.full((n,), label, device=model.device), generator=generator, **temper)

        return given
    if temper and not isinstance(model, CanTemper):
        raise CapabilityError(f"{name} has no temperature; leave out --temperature")
    if not isinstance(model, CanSample):
        raise CapabilityError(f"{name} cannot sample (unsup models tells who can)")
    return lambda n, generator: model.sample(n, generator=generator, **temper)


def write_examples(x: Tensor, model: Model, out: str) -> None:
    """Write raw examples as ``.npy``, or as a picture where the event has one."""
    import numpy as np

    from unsup.core.storage import write_atomically
    from unsup.pictures.images import has_picture, picture, png_bytes

    suffix = Path(out).suffix.lower()
    if suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, x.cpu().numpy())
        content = buffer.getvalue()
    elif suffix == ".png":
        if not has_picture(model.event):
            raise InputError(f"{out}: a {model.event} has no picture; write raw values to a .npy file")
        content = png_bytes(picture(x, model.event))
    else:
        raise InputError(f"{out} should end in .png (a picture) or .npy (raw values)")
    make_parent(out)
    write_atomically(out, content)


def make_parent(out: str) -> None:
    """Make the folder that ``out`` is to lie in."""
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder of {out}: {error.strerror}; choose another place") from error
