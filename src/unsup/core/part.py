"""Models in models: an option that names another model of the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsup.core.config import plain
from unsup.core.errors import InputError, nearest

if TYPE_CHECKING:
    from unsup.core.event import Event
    from unsup.core.model import Model


@dataclass(frozen=True)
class Part:
    """A model that another one contains: a prior, a posterior, a noise model, an encoder.

    An option of this type takes a registry name, ``{"name": ..., "options": {...}}``, or the folder of a run, whose
    trained parameters the part then starts from. The outer model builds it on the event it needs and with its own seed,
    and holds it as a submodule: it is saved, loaded, moved and trained with it.

    Attributes:
        name: a registry name.
        options: those of that model that differ from its defaults.
        frozen: whether its parameters are left as they are: nobody's objective moves them.
        run: folder of the run that the parameters come from at first; not part of the configuration, since a saved
            outer model holds them itself.

    >>> Part.from_json("made")
    Part(name='made', options={}, frozen=False)
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    frozen: bool = False
    run: str | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", {name: _tuples(value) for name, value in self.options.items()})

    @classmethod
    def from_json(cls, record: Any) -> Part:
        from unsup.core.rows import rows

        if isinstance(record, (str, Path)):
            if str(record) in rows():
                return cls(str(record))
            if (Path(record) / "config.json").is_file():
                return cls.of_run(record)
            raise InputError(
                f"{str(record)!r} is neither a model nor a run that could be a part{nearest(str(record), rows())}"
            )
        if (
            not isinstance(record, Mapping)
            or "name" not in record
            or set(record) - {"name", "options", "frozen", "origin"}
        ):
            raise InputError(f"{record!r} names no part; expected a model's name, a run's folder, or name and options")
        if record["name"] not in rows():
            found = cls.from_json(record["name"])
            return cls(
                found.name, {**found.options, **record.get("options", {})}, bool(record.get("frozen")), found.run
            )
        return cls(record["name"], dict(record.get("options", {})), bool(record.get("frozen", False)))

    def to_json(self) -> dict[str, Any]:
        record = {"name": self.name, "options": plain(self.options), "frozen": self.frozen}
        return record if self.run is None else record | {"origin": str(self.run)}

    @classmethod
    def of_run(cls, folder: str | Path, *, frozen: bool = False) -> Part:
        """The model of a run (or of ``model.save``), with its trained parameters to start from."""
        from unsup.core.storage import read_record

        record = read_record(folder)
        return cls(record["model"], record["config"], frozen, str(folder))

    def build(self, event: Event) -> Model:
        """The model on ``event``, drawn from the global generator that `create` has seeded for the outer model.

        Raises:
            InputError: the model does not take ``event``, or the run was trained on another one.
        """
        from unsup.core.registry import model_class

        model = model_class(self.name)(event, **self.options)
        if self.run is not None and Path(self.run).is_dir():  # an outer model that is built again has them itself
            self._take_parameters(model)
        return model.requires_grad_(False) if self.frozen else model

    def _take_parameters(self, model: Model) -> None:
        from unsup.core.registry import load
        from unsup.core.storage import load_state

        trained = load(str(self.run))
        if trained.event != model.event:
            raise InputError(f"{self.run} was trained on {trained.event}, and a part of {model.event} is needed here")
        load_state(model, trained.state_dict(), str(self.run))


def _tuples(value: Any) -> Any:
    """Lists, which JSON knows, as the tuples that options are, so that a part read back is the same part."""
    return tuple(_tuples(v) for v in value) if isinstance(value, (list, tuple)) else value
