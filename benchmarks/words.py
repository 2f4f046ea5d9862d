"""Classes of words: ``python -m benchmarks words [RUNS]`` writes ``docs/words.md``.

RUNS is the folder of the runs of ``unsup reproduce hmm-words``, by default ``runs/recipes``.

Perplexities are of the test windows of 64 words: exp of −log p per word, with a vocabulary of 5,000 in which all other
words are one token. n-grams predict the first word of a window by its frequency, as the models cannot see more.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import unsup
from unsup.core.machine import machine_kind
from unsup.data.vocabulary import WordsForm
from unsup.evaluate.likelihood import log_probs
from unsup.families.classical.hmm import HiddenMarkovModel
from unsup.train.runs import Run

Words = NDArray[np.int64]
PAGE = Path("docs/words.md")
DATA = "tinyshakespeare-words"
STATES = (1, 20, 60)
LISTED, WORDS = 20, 10  # states of the table, and words of each
SMOOTHING = 0.1


class Unigram:
    """p(w) = (n_w + α) / (N + α V).

    >>> Unigram(np.array([[0, 0, 1]]), 3).p.round(3).tolist()
    [0.636, 0.333, 0.03]
    """

    def __init__(self, windows: Words, vocabulary: int) -> None:
        counts = np.bincount(windows.ravel(), minlength=vocabulary) + SMOOTHING
        self.p = counts / counts.sum()

    def log_prob(self, windows: Words) -> float:
        """The mean over words."""
        return float(np.log(self.p[windows]).mean())


class Bigram:
    """Interpolated Kneser–Ney (Ney, Essen, Kneser 1994; Chen, Goodman 1999):

        p(w | v) = max(n_vw − D, 0) / n_v + D N_v· / n_v · q(w),    q(w) = (N_·w + α) / (N + α V),

    with the numbers N of different neighbours in training, and D = n₁ / (n₁ + 2 n₂) of the pairs seen once and twice.
    After a word v that has no successor, q. The first word of a window has the unigram distribution.
    """

    def __init__(self, windows: Words, vocabulary: int) -> None:
        self.first = Unigram(windows, vocabulary)
        self.pairs = Counter(zip(windows[:, :-1].ravel().tolist(), windows[:, 1:].ravel().tolist(), strict=True))
        once, twice = (sum(n == k for n in self.pairs.values()) for k in (1, 2))
        self.discount = once / (once + 2 * twice) if once else 0.5
        self.before, self.successors = np.zeros(vocabulary), np.zeros(vocabulary)
        predecessors = np.zeros(vocabulary)
        for (v, w), n in self.pairs.items():
            self.before[v] += n
            self.successors[v] += 1
            predecessors[w] += 1
        self.q = (predecessors + SMOOTHING) / (predecessors.sum() + SMOOTHING * vocabulary)

    def p(self, v: int, w: int) -> float:
        """p(w | v)."""
        if not self.before[v]:
            return float(self.q[w])
        seen = max(self.pairs.get((v, w), 0) - self.discount, 0) + self.discount * self.successors[v] * self.q[w]
        return float(seen / self.before[v])

    def log_prob(self, windows: Words) -> float:
        """The mean over words."""
        first = np.log(self.first.p[windows[:, 0]]).sum()
        pairs = zip(windows[:, :-1].ravel().tolist(), windows[:, 1:].ravel().tolist(), strict=True)
        return float((first + sum(np.log(self.p(v, w)) for v, w in pairs)) / windows.size)


def main(arguments: list[str]) -> None:
    """Write the page."""
    runs = Path(arguments[0] if arguments else "runs/recipes") / "hmm-words"
    data = unsup.load_data(DATA)
    assert isinstance(data.form, WordsForm)
    train, test = (split.x[:].numpy().astype(np.int64) for split in (data.train, data.test))
    size = len(data.form.words)
    rows = [
        (name, np.exp(-model(train, size).log_prob(test)), "")
        for name, model in (("unigram, smoothed", Unigram), ("bigram, Kneser–Ney", Bigram))
    ]
    models = {}
    for k in STATES:
        model = Run(runs / f"hmm-{k}-state{'s' * (k > 1)}-0").model
        assert isinstance(model, HiddenMarkovModel)
        models[k] = model
        mean = float(log_probs(model, data.test).double().mean()) / test.shape[1]
        rows.append((f"`hmm`, {k} state{'s' * (k > 1)}", np.exp(-mean), f"{model.n_free:,}"))
    states = classes(models[LISTED], data.form.words, torch.from_numpy(train))
    PAGE.write_text(page(rows, states))


@torch.no_grad()
def classes(model: HiddenMarkovModel, words: tuple[str, ...], train: torch.Tensor) -> list[tuple[float, list[str]]]:
    """The share of the words that each state has, and its most probable words; the largest state first."""
    emitted = model.emissions.log_prob(torch.arange(len(words))[:, None])  # (V, K)
    share = torch.zeros(model.count, dtype=torch.float64)
    for part in train.split(500):
        share += model.posteriors(part.to(model.event.dtype)).sum((0, 1))
    share /= share.sum()
    order = share.argsort(descending=True).tolist()
    return [(float(share[k]), [words[i] for i in emitted[:, k].topk(WORDS).indices.tolist()]) for k in order]


def page(rows: list[tuple[str, float, str]], states: list[tuple[float, list[str]]]) -> str:
    """The page in Markdown."""
    return "\n".join(
        [
            "# Classes of words",
            "",
            "A hidden Markov model of words groups them into classes by the words before and after them, without "
            "labels.",
            "",
            "```sh",
            "unsup fit tinyshakespeare-words hmm --model.states 20 -o runs/words",
            'unsup sample runs/words -n 5 --prompt "my lord ," -o samples.txt',
            "unsup reproduce hmm-words",
            "python -m benchmarks words",
            "```",
            "",
            " ".join((__doc__ or "").split("\n\n")[2].split()),
            "",
            "| model | perplexity | free parameters |",
            "| --- | --: | --: |",
            *(f"| {name} | {value:.1f} | {free or '–'} |" for name, value, free in rows),
            "",
            f"The {len(states)} states of the model of {len(states)}, by the share of the words that they have, with "
            "their most probable words:",
            "",
            "| share | words |",
            "| --: | --- |",
            *(f"| {share:.1%} | {' '.join(f'`{w}`' for w in words)} |" for share, words in states),
            "",
            f"Machine: {machine_kind()}; {torch.get_num_threads()} thread(s).",
            "",
        ]
    )
