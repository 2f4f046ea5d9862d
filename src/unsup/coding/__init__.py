"""Lossless compression with the likelihood models."""
