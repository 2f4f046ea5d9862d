"""What features of spoken digits know: ``python -m benchmarks sound_features [--test] [RUN …]`` prints a table.

Linear probes of the digit and of the speaker on one vector for each recording, the mean over its windows of the codes
of runs of ``cpc`` on ``fsdd``, of the same encoders at random parameters, and of moments of MFCC
(`unsup.evaluate.mfcc`). Probes are fitted to the training recordings and examined on the validation recordings, with
``--test`` on the test recordings. A recording shorter than a window is left out, for all features.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

import unsup
from unsup.core.batch import Batch
from unsup.core.event import Event, Support
from unsup.core.model import Model, keyed_generator
from unsup.data import mulaw
from unsup.data.examples import Examples
from unsup.data.standard import fsdd
from unsup.data.windows import file_of
from unsup.evaluate.mfcc import mfcc_features
from unsup.evaluate.probe import encode_all, majority_share, probe
from unsup.train.runs import Run

RATE, LENGTH = 8000, 2048
_ASKED = {"digit": 0, "speaker": 1}  # position in the name of a file: 7_jackson_32.wav


class Recordings:
    """The windows of ``fsdd`` in an event, and the recordings of its splits."""

    def __init__(self, event: Event) -> None:
        self.mu_law = event.uniform == Support("ordinal", mulaw.LEVELS)
        found: Examples = fsdd(length=event.shape[0], mu_law=self.mu_law)
        assert isinstance(found.x, Tensor)
        assert found.sizes is not None
        self.x, self.train = found.x, found.sizes[0]
        files = [file_of(name) for name in found.names]
        self.names = list(dict.fromkeys(files))
        number = {name: i for i, name in enumerate(self.names)}
        self.owner = torch.tensor([number[file] for file in files])
        ends = torch.tensor(found.sizes).cumsum(0)
        part = torch.bucketize(torch.arange(len(files)), ends, right=True)
        self.part = torch.zeros(len(self.names), dtype=torch.int64).scatter(0, self.owner, part)

    def samples(self) -> Tensor:
        """In [−1, 1]: ``(N, T)``."""
        return torch.from_numpy(mulaw.decoded(self.x.numpy())) if self.mu_law else self.x.double() / 2**15

    def mean(self, features: Tensor) -> Tensor:
        """Of the windows of each recording: ``(N, F)`` → ``(recordings, F)``."""
        total = features.new_zeros(len(self.names), features.shape[1]).index_add(0, self.owner, features)
        return total / self.owner.bincount()[:, None]

    def label(self, asked: str) -> Tensor:
        """Class of each recording."""
        words = [name.split("_")[_ASKED[asked]] for name in self.names]
        return torch.tensor([sorted(set(words)).index(word) for word in words])


def row(name: str, features: Tensor, recordings: Recordings, part: int) -> str:
    """A row of the table."""
    train, asked = recordings.part == 0, recordings.part == part
    cells = []
    for what in _ASKED:
        label = recordings.label(what)
        found = probe(features[train], label[train], features[asked], label[asked])
        cells.append(f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]")
    return f"| {name} | {features.shape[1]} | {' | '.join(cells)} |"


def random_like(model: Model, x: Tensor) -> Model:
    """The same model at random parameters, with the moments of the training data."""
    fresh = unsup.create("cpc", model.event, seed=1, **model.config)
    fresh.prepare(Batch(x), generator=keyed_generator(0))
    return fresh


def main(arguments: list[str]) -> None:
    """Print the table."""
    part = 2 if "--test" in arguments else 1
    runs = {path: Run(Path(path)).model for path in arguments if path != "--test"}
    sizes = (LENGTH,) if not runs else dict.fromkeys(model.event.shape[0] for model in runs.values())
    sys.stdout.write("| features | number | digit | speaker |\n| --- | --: | --: | --: |\n")
    for size in sizes:
        sound = Event((size,), Support("ordinal", mulaw.LEVELS), "sequence")
        recordings = Recordings(sound)
        label = {what: recordings.label(what) for what in _ASKED}
        train, asked = recordings.part == 0, recordings.part == part
        share = " | ".join(f"{majority_share(own[train], own[asked]):.4f}" for own in label.values())
        count = f"{int(train.sum()):,} and {int(asked.sum()):,} recordings, windows of {size} samples"
        sys.stdout.write(f"| most frequent class ({count}) | 0 | {share} |\n")
        found = recordings.mean(mfcc_features(recordings.samples(), RATE))
        sys.stdout.write(row("moments of MFCC", found, recordings, part) + "\n")
    for path, model in runs.items():
        recordings = Recordings(model.event)
        started = random_like(model, recordings.x[: recordings.train])
        for name, own in (("random encoder of ", started), ("", model)):
            codes = recordings.mean(encode_all(own, recordings.x).double())
            sys.stdout.write(row(f"{name}{path}", codes, recordings, part) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
