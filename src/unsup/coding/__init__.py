"""Lossless compression with likelihood models."""

from unsup.coding.arrays import compress, decompress

__all__ = ["compress", "decompress"]
