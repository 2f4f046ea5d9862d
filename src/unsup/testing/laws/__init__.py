"""The laws, by theme. Importing this package fills `unsup.testing.law.LAWS`."""

from unsup.testing.laws import (
    adversarial,
    autoregressive,
    coding,
    colouring,
    conditional,
    counting,
    densities,
    energy,
    flows,
    general,
    learning,
    missing,
    precision,
    sampling,
    sharing,
)

__all__ = [
    "adversarial",
    "autoregressive",
    "coding",
    "colouring",
    "conditional",
    "counting",
    "densities",
    "energy",
    "flows",
    "general",
    "learning",
    "missing",
    "precision",
    "sampling",
    "sharing",
]
