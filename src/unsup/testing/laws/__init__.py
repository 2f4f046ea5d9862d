"""The laws, by theme. Importing this package fills `unsup.testing.law.LAWS`."""

from unsup.testing.laws import autoregressive, conditional, counting, densities, flows, general, learning, sampling

__all__ = ["autoregressive", "conditional", "counting", "densities", "flows", "general", "learning", "sampling"]
