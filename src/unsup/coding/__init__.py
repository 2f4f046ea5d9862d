"""Lossless compression with likelihood models."""
