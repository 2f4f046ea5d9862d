"""The registry: every model the library has, as plain data. Importing this does not import torch."""

from unsup.core.registry import Row
from unsup.families import adversarial, autoregressive, classical, energy, flows, latent

ROWS: dict[str, Row] = {
    row.name: row for family in (classical, autoregressive, flows, latent, adversarial, energy) for row in family.ROWS
}
