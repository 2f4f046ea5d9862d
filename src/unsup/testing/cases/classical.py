"""Law cases of classical density models."""

from __future__ import annotations

from dataclasses import replace

from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.testing.cases import oracles
from unsup.testing.cases.case import GAPS, MIXED, WORDS, Case, ordinal, vector

FULL = {"covariance": "full"}
EDGE = {"gradient": "one of the examples is the smallest value of its column, where the density has a jump"}
LEVELS = Event((3,), (Support("nominal", 3), BINARY, Support("ordinal", 4, low=-2)))
IMMORAL = {"margins": "parents that are not joined are independent in the model, but not in the data"}
CASES = (
    Case("histogram", vector(9), oracle=oracles.histogram),
    Case("histogram", vector(4, Support("nominal", 3)), {"joint": "never"}, oracle=oracles.histogram),
    Case("histogram", vector(3, ordinal(4)), {"joint": "always", "smoothing": 0.5}, oracle=oracles.histogram),
    Case("histogram", vector(1, REAL), oracle=oracles.histogram),
    Case("histogram", MIXED, {"bins": 4}, oracle=oracles.histogram),
    Case("histogram", MIXED, {"joint": "never"}, oracle=oracles.histogram),
    Case("histogram", GAPS, {"bins": 4, "joint": "never"}, exceptions=EDGE),
    Case("histogram", GAPS, {"bins": 4, "joint": "always"}, exceptions=EDGE),
    Case("histogram", Event((3,), Support("nominal", 3), missing=True), {"joint": "auto"}),
    Case("gaussian-mixture", vector(2, REAL), oracle=oracles.gaussian_mixture, beside=FULL),
    Case("gaussian-mixture", vector(2, REAL), {"covariance": "diagonal"}, oracle=oracles.gaussian_mixture),
    Case("gaussian-mixture", vector(2, REAL), {"covariance": "tied"}, oracle=oracles.gaussian_mixture),
    Case("gaussian-mixture", vector(2, REAL), {"learn": "gradient"}, oracle=oracles.gaussian_mixture, beside=FULL),
    Case(
        "gaussian-mixture",
        vector(4, REAL),
        {"learn": "gradient", "covariance": "tied"},
        oracle=oracles.gaussian_mixture,
    ),
    Case("gaussian-mixture", Event((1, 2, 2), ordinal(4)), beside=FULL),
    Case(
        "gaussian-mixture",
        vector(2, REAL),
        {"components": "auto", "covariance": "auto"},
        exceptions={"ascent": "the choice ends where passes gain almost nothing, so that eight more raise nothing"},
        oracle=oracles.gaussian_mixture,
    ),
    Case("gaussian-mixture", MIXED, {"covariance": "diagonal"}),
    Case("gaussian-mixture", WORDS, oracle=oracles.gaussian_mixture),
    Case("gaussian-mixture", WORDS, {"learn": "gradient"}),
    Case("gaussian-mixture", vector(3, Support("nominal", 3)), oracle=oracles.gaussian_mixture),
    Case("gaussian-mixture", GAPS),
    Case(
        "gaussian-mixture",
        GAPS,
        {"components": "auto", "covariance": "auto"},
        exceptions={"fixed-point": "the noise component has a fixed shape"},
    ),
    Case("gaussian-mixture", Event((2,), REAL, missing=True), beside=FULL),
    Case("gaussian-mixture", Event((2,), REAL, missing=True), {"covariance": "tied"}),
    Case("gaussian-mixture", Event((2,), REAL, missing=True), {"learn": "gradient"}, beside=FULL),
    Case("bernoulli-mixture", vector(6), oracle=oracles.bernoulli_mixture),
    Case("bernoulli-mixture", vector(6), {"smoothing": 0.0, "components": 4}, oracle=oracles.bernoulli_mixture),
    Case("bernoulli-mixture", Event((1, 2, 3), BINARY), {"smoothing": 1.0}, oracle=oracles.bernoulli_mixture),
    Case("bernoulli-mixture", vector(5), {"learn": "gradient"}, oracle=oracles.bernoulli_mixture),
    Case("bernoulli-mixture", Event((4,), BINARY, missing=True), {"components": 2}, oracle=oracles.bernoulli_mixture),
    Case("ppca", vector(2, REAL), oracle=oracles.linear_gaussian),
    Case("ppca", vector(5, REAL), {"components": "auto", "units": "common"}, oracle=oracles.linear_gaussian),
    Case("ppca", Event((1, 2, 2), ordinal(4)), {"components": 2}),
    Case("ppca", MIXED),
    Case("ppca", Event((3,), REAL, missing=True), {"components": 2}, oracle=oracles.linear_gaussian),
    Case("factor-analysis", vector(2, REAL), oracle=oracles.linear_gaussian),
    Case("factor-analysis", vector(6, REAL), {"components": "auto"}, oracle=oracles.linear_gaussian),
    Case("factor-analysis", Event((3,), REAL, missing=True), oracle=oracles.linear_gaussian),
    Case(
        "factor-analysis",
        MIXED,
        exceptions={"ascent": "one pass converges, and further ones differ by less than the noise of the levels"},
    ),
    Case("kde", vector(1, REAL), oracle=oracles.kde),
    Case("kde", vector(2, REAL), {"bandwidth": 0.5}, oracle=oracles.kde),
    Case("kde", vector(5), oracle=oracles.kde),
    Case("kde", MIXED, {"bandwidth": "silverman"}, oracle=oracles.kde),
    Case("kde", WORDS, oracle=oracles.kde),
    Case("kde", Event((1, 2, 2), ordinal(4)), {"bandwidth": "scott"}),
    Case("hmm", Event((4,), Support("nominal", 3), "sequence"), oracle=oracles.hidden_markov_model),
    Case("hmm", Event((3,), Support("nominal", 3), "sequence", open=True)),
    Case("hmm", Event((3, 2), BINARY, "sequence", open=True), {"states": 2}),
    Case("hmm", Event((3, 2), ordinal(3), "sequence"), {"states": 2}, oracle=oracles.hidden_markov_model),
    Case("hmm", Event((2,), REAL, "sequence"), {"components": 2, "states": 2}, oracle=oracles.hidden_markov_model),
    Case("hmm", Event((2, 2), REAL, "sequence", missing=True), FULL | {"states": 2}),
    Case("hmm", Event((3,), Support("nominal", 3), "sequence", missing=True), {"states": 2}),
    Case("naive-bayes", vector(5)),
    Case("naive-bayes", vector(5), {"given": labels(3)}, classes=3),
    Case("naive-bayes", vector(3, Support("nominal", 3)), {"given": labels(2), "smoothing": 0.5}, classes=2),
    Case("naive-bayes", vector(2, REAL), {"given": labels(2)}, classes=2),
    Case("naive-bayes", MIXED, {"given": labels(3)}, classes=3),
    Case("naive-bayes", GAPS, {"given": labels(2)}, classes=2),
    Case("bayes-net", vector(5), exceptions=IMMORAL),
    Case("bayes-net", vector(4, Support("nominal", 3)), {"structure": "chow-liu"}),
    Case("bayes-net", LEVELS, {"score": "bdeu", "equivalent_size": 5.0}, exceptions=IMMORAL),
    Case("bayes-net", vector(4), {"structure": "0:2,1:2,2:3", "equivalent_size": 0.5}, exceptions=IMMORAL),
    Case("bayes-net", replace(LEVELS, missing=True), {"structure": "0:2,1:2"}),
    Case("bayes-net", replace(LEVELS, missing=True)),
)
