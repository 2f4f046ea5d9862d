"""The registry: every model the library has, as plain data. Importing this does not import torch."""

from unsup.core.registry import Row
from unsup.families import autoregressive, classical, flows, latent

ROWS: dict[str, Row] = {row.name: row for family in (classical, autoregressive, flows, latent) for row in family.ROWS}
