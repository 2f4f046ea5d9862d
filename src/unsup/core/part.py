"""Models inside models: an option that names another model of the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from unsup.core.config import check_value, plain, shown
from unsup.core.errors import InputError, nearest

if TYPE_CHECKING:
    from unsup.core.event import Event
    from unsup.core.model import Model


class PartRecord(TypedDict):
    """A part in JSON. ``name`` may be the folder of a run; ``origin`` is the run that the parameters came from."""

    name: str
    options: NotRequired[dict[str, Any]]
    frozen: NotRequired[bool]
    origin: NotRequired[str]


@dataclass(frozen=True)
class Part:
    """A model inside another model: a prior, a posterior, a noise model, an encoder.

    An option of this type accepts a registry name, ``{"name": ..., "options": {...}}``, or the folder of a run. The
    part then starts from the trained parameters of the run. The outer model builds the part on the event that it needs,
    with the seed of the outer model. The part is a submodule: it is saved, loaded, moved and trained with the outer
    model.

    Attributes:
        name: a registry name.
        options: options of that model that differ from its defaults.
        frozen: whether its parameters are fixed: no objective updates them.
        run: folder of the run with the initial parameters. It is not part of the configuration, since a saved outer
            model contains the parameters.

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
            if len(Path(record).parts) > 1:
                raise InputError(f"{str(record)!r} is not a run folder (no config.json), nor a model's name")
            raise InputError(f"{str(record)!r} is neither a model nor a run folder{nearest(str(record), rows())}")
        try:
            found: PartRecord = check_value("part", record, PartRecord)
        except InputError as error:
            raise InputError(
                f"{shown(record)} is not a part ({error}); expected a model's name, a run's folder, or name and options"
            ) from error
        unknown = sorted(set(map(str, found)) - set(PartRecord.__annotations__))
        if unknown:
            raise InputError(f"{shown(record)} is not a part: a part has no {unknown[0]!r}; expected name and options")
        options, frozen = found.get("options", {}), found.get("frozen", False)
        if found["name"] in rows():
            return cls(found["name"], options, frozen)
        run = cls.from_json(found["name"])
        return cls(run.name, {**run.options, **options}, frozen, run.run)

    def to_json(self) -> dict[str, Any]:
        record = {"name": self.name, "options": plain(self.options), "frozen": self.frozen}
        return record if self.run is None else record | {"origin": str(self.run)}

    @classmethod
    def of_run(cls, folder: str | Path, *, frozen: bool = False) -> Part:
        """The model of a run (or of ``model.save``), with its trained parameters as initial values."""
        from unsup.core.storage import read_record

        record = read_record(folder)
        return cls(record["model"], record["config"], frozen, str(folder))

    def build(self, event: Event) -> Model:
        """Build the model on ``event`` with the global generator, which `create` has seeded for the outer model.

        Raises:
            InputError: the model does not support ``event``, or the run was trained on another event.
        """
        from unsup.core.registry import model_class

        own = {"self", "event"} & set(self.options)
        if own:
            raise InputError(f"{self.name}, a part, has no option {own.pop()!r}")
        model = model_class(self.name)(event, **self.options)
        if self.run is not None and Path(self.run).is_dir():  # an outer model that is rebuilt has them itself
            self._take_parameters(model)
        return model.requires_grad_(False) if self.frozen else model

    def _take_parameters(self, model: Model) -> None:
        from unsup.core.registry import load
        from unsup.core.storage import load_state

        trained = load(str(self.run))
        if trained.event != model.event:
            raise InputError(f"{self.run} was trained on {trained.event}, but a part for {model.event} is needed here")
        load_state(model, trained.state_dict(), str(self.run))


def _tuples(value: Any) -> Any:
    """Convert lists from JSON to the tuples of options, so that a part that is read back is the same."""
    return tuple(_tuples(v) for v in value) if isinstance(value, (list, tuple)) else value
