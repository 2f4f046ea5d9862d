"""The parts common to both ways of learning: the run folder, validation, checkpoints, stopping."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import math
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unsup.core.config import plain
from unsup.core.deadline import Deadline, OutOfTime
from unsup.core.errors import InputError, TrainingError
from unsup.core.event import Event
from unsup.core.likelihood import Likelihood
from unsup.core.machine import choose_device, fast_cpu
from unsup.core.model import CanSample, Colours, HasDensity, HasGraph, Model, Symptom, Translates, keyed_generator
from unsup.core.parallel import process_count, process_rank
from unsup.core.random import manual_seed
from unsup.core.signals import signals_to
from unsup.core.storage import MODEL_PREFIX, held_alone, is_handed_out, later_state, model_record
from unsup.data.missing import gaps_of
from unsup.data.recorded import digest_of, has_changed
from unsup.data.source import Data, some_of
from unsup.evaluate.completions import draw
from unsup.evaluate.conditions import for_samples
from unsup.evaluate.untrained import prepare
from unsup.evaluate.validators import NEWEST, Judge, Validator, choose_validator
from unsup.pictures.gallery import Gallery
from unsup.train import parallel
from unsup.train.progress import Progress
from unsup.train.runs import ENDINGS, Ended, Run
from unsup.train.settings import Settings, make_settings
from unsup.train.symptoms import collapse

VALIDATIONS = 20  # of a run whose length is known
_SAMPLES = 0.05  # of the time of a run with a time budget that looking at samples may take
_FIRST_DRAWS, _LOOK = 2, 25  # draws that tell what a look costs, and those of a look
_PLOT = 1.0  # seconds that the first plot takes
_SHOWN, _SHOWN_VALUES = (8, 1_000), 2**20  # training examples that pictures take their scale from, and their values
# Times a time budget, and seconds at least, when a part of training that cannot be done without is given up.
_ALONE, _ALONE_LEAST = 3.0, 10.0
_UNTRAINED = 0.1  # of a run: until then, identical samples are not a symptom
_TRANSLATED = 12  # examples in a picture of translations
AGREE_EVERY = 10  # steps between the processes' agreeing on stopping and saving
_HUGE = 1e15  # squares of such values, summed, overflow in float32
# Why training is over, as `last` records it, in words.
_ENDINGS = {
    "steps": "completed at {unit} {done}",
    "converged": "converged at {unit} {done}",
    "patience": "out of patience at {unit} {done}",
    "minutes": "time limit reached at {unit} {done}",
}
_log = logging.getLogger(__name__)
# Keys of the generators, so that different uses have independent noise.
NOISE, _, _VALIDATE, _GRID, _SUBSET, _COLLAPSE = range(6)  # the second is that of `prepare`


@dataclass(frozen=True)
class Fitted:
    """The result of `fit`. The model itself is trained in place and set to evaluation mode.

    Attributes:
        steps: total number of updates (or passes, for models that learn by counting).
        seconds: training time, including validation.
        validation: likelihood of the selected parameters on validation examples, or None if another validator is used.
        validator: how the parameters are selected: the name of a validator, or ``newest``.
        score: value of the validator for the selected parameters, or None.
        signal: number of the signal that stopped training in this process, or None.
        events: the log points, as in ``events.jsonl``.
        interrupted: whether a signal (Ctrl-C, SIGTERM, SIGHUP) stopped training.
        run: the run folder, or None.
    """

    steps: int
    seconds: float
    validation: Likelihood | None
    events: list[dict[str, Any]]
    interrupted: bool
    run: Run | None
    validator: str = NEWEST
    score: float | None = None
    signal: int | None = None


@dataclass(frozen=True)
class Kept:
    """The parameters that a run provides, with their validation.

    Attributes:
        state: state of the model.
        value: value of the validator, or None without one.
        validation: their likelihood, if they are selected by likelihood.
    """

    state: dict[str, Tensor]
    value: float | None
    validation: Likelihood | None


class Trainer(ABC):
    """The parts common to both ways of learning: the run folder, validation, checkpoints, stopping."""

    def __init__(self, model: Model, data: Data, settings: Settings, display: Progress) -> None:
        self.settings, self.data, self.display = settings, data, display
        self.device = choose_device(settings.device)
        self.model = model.to(self.device)
        self.folder: Run | None = None
        self.done = 0
        self.total: int | None = None
        self.events: list[dict[str, Any]] = []
        self.validator = choose_validator(settings.validator, model, data)
        self.ended: Ended | None = None  # reason for the end of training
        self.best: float | None = None
        self.validation: Likelihood | None = None  # value of the best parameters so far
        self.kept: int | None = None  # the step of the parameters that the run provides
        self.validated: int | None = None  # the step of the last validation
        self.handed: Kept | None = None  # the parameters that the run provides now
        self.stale = 0
        self.logged = 0  # log points so far, including those lost from a damaged log
        self.spent = 0.0
        self.started = time.monotonic()
        self.saved_at = self.started
        self.samples_took = (0.0, 0.0)  # seconds spent on samples: in total, and the last time
        self.stop_signal: int | None = None  # of this process
        self.stopping = False  # of any process
        self.symptoms: dict[str, str] = {}  # current symptom of each observer
        self.shown = data.train.take(some_of(len(data.train), _shown_count(data.event)))
        limit = settings.validation_limit
        subset = torch.randperm(len(data.validation), generator=keyed_generator(settings.seed, _SUBSET))[:limit]
        self.watched = data.validation.take(subset.sort().values)
        self.judge: Judge | None = None  # created at the first validation

    # --- the parts that differ ------------------------------------------------------------------------------------

    def begin(self) -> None:  # noqa: B027 - counting needs none
        """Prepare learning, after data-dependent initialisation of the model."""

    @abstractmethod
    def learn(self) -> None:
        """Train until done, stopped or out of patience."""

    def tensors(self) -> dict[str, Tensor]:
        """The tensors in `last` besides the model."""
        return {}

    def restore(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:  # noqa: B027 - counting needs none
        """Restore the state that `tensors` and `record` saved."""

    # --- one run --------------------------------------------------------------------------------------------------

    def run(self, out: Path | None, resume: bool, changed_data: bool = False) -> Fitted:
        with ExitStack() as stack:
            for context in (self._own_rng(), self._signals(), fast_cpu(self.device), parallel.explained(self._lost)):
                stack.enter_context(context)
            parallel.same_start(self.model)
            if resume:
                assert out is not None
                if not Run(out).finished:  # a finished run is only read
                    stack.enter_context(self._alone(Run(out)))
                self._resume(out, changed_data)
            else:
                if out is not None:
                    if self.writes:
                        Run.create(out, self._config(), self._about(), needed_bytes=self._needed_bytes())
                    parallel.barrier()
                    self.folder = Run(out)
                    stack.enter_context(self._alone(self.folder))
                self._start()
            if self.ended is None:
                self.learn()
                if self.ended is not None:  # logged before saving, so that the log of a finished run has this line
                    self._check_finite(parallel.whole(self.model.state_dict()))
                    self._log({"finished": True})
                self.save()
                seconds = self.seconds
            else:
                seconds = self.spent
        interrupted = self.ended is None
        validation = score = None
        if self.handed is not None:
            self._load(self.handed.state)
            validation, score = self.handed.validation, self.handed.value
        if self.folder is not None and self.writes and isinstance(self.model, HasGraph):
            self.folder.write_json("graph.json", {"edges": [list(edge) for edge in self.model.links()]})
        self.model.eval()
        outcome = (self.done, seconds, validation, self.events, interrupted, self.folder)
        return Fitted(*outcome, self._kept_by, score, self.stop_signal if interrupted else None)

    def _start(self) -> None:
        if self.folder is not None and self.writes:
            self.folder.keep_examples(self.shown, self.data)
        self._prepare()
        self.begin()
        self.save()

    def over(self) -> Ended | None:
        """The reason for the end of training, if the length is reached or validation no longer improves; else None."""
        if self.total is not None and self.done >= self.total:
            return "steps"
        return "patience" if 0 < self.settings.patience <= self.stale else None

    @property
    def writes(self) -> bool:
        """Whether this process writes the run folder."""
        return process_rank() == 0

    @property
    def _kept_by(self) -> str:
        return NEWEST if self.validator is None else self.validator.name

    @property
    def seconds(self) -> float:
        return self.spent + time.monotonic() - self.started

    def _config(self) -> dict[str, Any]:
        data = None if self.data.name is None else {"name": self.data.name, "options": dict(self.data.options)}
        training = dataclasses.asdict(self.settings)
        return {
            "data": data,
            "digest": digest_of(self.data),
            "labels": None if self.data.labels is None else list(self.data.labels),
            "form": None if self.data.form is None else plain(self.data.form.to_json()),
            "gaps": plain(dataclasses.asdict(gaps_of(self.data))),
            "model": model_record(self.model),
            "training": training,
        }

    def _about(self) -> dict[str, Any]:
        """What the page of the run tells of the data, and which settings are usual for the model."""
        usual = dataclasses.asdict(make_settings(self.model, {}))
        return {"data": self.data.to_json(), "describe": self.data.describe(), "training": plain(usual)}

    @contextmanager
    def _alone(self, folder: Run) -> Iterator[None]:
        """Lock the folder against other runs."""
        if not self.writes or not folder.exists:
            yield
            return
        with held_alone(folder.path, "unsup fit"):
            yield

    def _needed_bytes(self) -> int:
        size = sum(t.numel() * t.element_size() for t in self.model.state_dict().values())
        return 8 * size + 1_000_000  # weights, two Adam moments, EMA, best, and one more copy while writing

    @contextmanager
    def in_time(self, what: str) -> Iterator[None]:
        """Stop what would by itself take much more than the time budget.

        Raises:
            TrainingError: it does.
        """
        minutes = self.settings.minutes
        if minutes is None or self.settings.compile or process_count() > 1:
            yield
            return
        limit = Deadline(max(_ALONE * 60 * minutes, _ALONE_LEAST) - self.seconds, "")
        try:
            with limit:
                yield
        except OutOfTime as error:
            if error.deadline is not limit:
                raise
            raise TrainingError(
                f"a single {what} takes much longer than the {60 * minutes:.3g} s of the time budget; give more "
                "minutes, or choose a smaller model or batch"
            ) from error

    def _prepare(self) -> None:
        with self.in_time("look at the data"):
            prepare(self.model, self.data, seed=self.settings.seed)

    def _resume(self, out: Path, changed_data: bool) -> None:
        folder = Run(out)
        own = json.loads(json.dumps(self._config()))  # JSON has lists in place of tuples
        if folder.config["model"] != own["model"]:
            raise InputError(f"{out} is a run of a different model; resume it with the original model")
        changed = has_changed(out, folder.config, self.data, changed_data=changed_data)
        if not changed and self.writes and own["data"] not in (None, folder.config["data"]):  # it has moved
            folder.write_json("config.json", folder.config | {"data": own["data"]})
            folder = Run(out)
        self.folder = folder
        if any(folder.checkpoint(name).is_file() for name in ("last", "best")):
            self.begin()
            self._go_on(folder)
            if changed and self.ended is None and not any(e.get("changed_data") == own["digest"] for e in self.events):
                self._log({"changed_data": own["digest"]})
            return
        if any(event["step"] for event in folder.events()):
            raise InputError(
                f"{out} has lost its checkpoints ({folder.checkpoint('last')}, best); restore them, or start a new "
                "run in another folder (-o FOLDER)"
            )
        self.display.note(f"{out} has no checkpoint yet; training starts from the beginning")
        if self.writes:
            folder.make_folders()
            if changed:  # nothing was learned from the old data
                folder.write_json("config.json", own)
                folder.write_json("about.json", self._about())
            folder.keep_events(0)
        parallel.barrier()
        self.folder = Run(out)
        self._start()

    def _go_on(self, folder: Run) -> None:
        """Restore the state of ``last``; other files of the folder are not used for it."""
        tensors, record = self._read_last(folder)
        if record["validator"] != self._kept_by:
            raise InputError(
                f"{folder.path} selects the best parameters by {record['validator']}, not by {self._kept_by}; "
                f"resume it with validator={record['validator']!r}"
            )
        weights = {k.removeprefix(MODEL_PREFIX): v for k, v in tensors.items() if k.startswith(MODEL_PREFIX)}
        self._load(weights)
        self.done, self.total, self.ended = record["done"], record["total"], record["ended"]
        self.best, self.stale, self.validated = record["best"], record["stale"], record["validated"]
        self.kept, self.logged, self.symptoms = record["kept"], record["logged"], record["symptoms"]
        self.validation = None if record["validation"] is None else Likelihood(**record["validation"])
        self.spent = record["seconds"]
        self.started = time.monotonic()
        torch.set_rng_state(tensors["rng.global"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"])
        self.restore(tensors, record)
        if self.ended is None and self.writes:
            folder.make_folders()
            folder.keep_events(record["events"])
        parallel.barrier()
        self.events = folder.events()
        if len(self.events) < record["events"]:
            missing = f"{record['events'] - len(self.events)} of {record['events']} lines"
            self._warn(f"{folder.path}: {missing} of events.jsonl are lost; the curves of the run have a gap")
        self._take_best(folder)
        if self.ended is not None:
            unit = self.display.unit
            why = ENDINGS[self.ended].format(unit=unit, done=f"{self.done:,}")
            self.display.note(f"{folder.path} has already finished ({why}); nothing to do")

    def _read_last(self, folder: Run) -> tuple[dict[str, Tensor], dict[str, Any]]:
        try:
            tensors, record = folder.load_checkpoint("last")
        except InputError as error:
            rest = f"; its best parameters are still usable (unsup eval {folder.path})" if _sound(folder) else ""
            raise InputError(
                f"{folder.path} cannot be resumed: {error}{rest}; start a new run in another folder (-o FOLDER)"
            ) from error
        return tensors, record

    def _take_best(self, folder: Run) -> None:
        """Read the parameters that the run provides. If they are lost, log a note and validate the current ones."""
        path = folder.checkpoint("best")
        lost: str | None = None
        try:
            tensors, record = folder.load_checkpoint("best")
        except InputError as error:
            lost = str(error)
        else:
            state = later_state(self.model) | {k.removeprefix(MODEL_PREFIX): v for k, v in tensors.items()}
            last = {"done": self.done, "kept": self.kept, "ended": self.ended}
            if not is_handed_out(record, last):
                lost = f"{path} is from another {self.display.unit}, {record['done']}"
            elif {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in self.model.state_dict().items()}:
                lost = f"{path} belongs to a different model"
            else:
                found = record.get("validation")
                self.handed = Kept(state, record.get("value"), None if found is None else Likelihood(**found))
        parallel.barrier()  # all processes have read it before one rewrites it
        if lost is None or self.kept is None:
            return
        unit = self.display.unit
        then = (
            f"using the last parameters, of {unit} {self.done:,}"
            if self.ended is not None
            else f"the search for the best parameters restarts at {unit} {self.done:,}"
        )
        self._warn(f"{folder.path}: the best parameters, of {unit} {self.kept:,}, are lost ({lost}); {then}")
        if self.ended is None:
            self._log({"lost": f"the best parameters, of {unit} {self.kept}"})
            self.best = self.validation = self.kept = None
            self.stale = 0
            self.validate()
            self.save()

    def save(self) -> None:
        """Write ``last``; non-finite parameters never overwrite good ones."""
        if self.folder is None:
            return
        state = parallel.whole(self.model.state_dict())
        self._check_finite(state)
        tensors = {MODEL_PREFIX + k: v for k, v in state.items()} | {"rng.global": torch.get_rng_state()}
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        record = {
            "done": self.done,
            "total": self.total,
            "ended": self.ended,
            "best": self.best,
            "kept": self.kept,
            "validator": self._kept_by,
            "validation": None if self.validation is None else dataclasses.asdict(self.validation),
            "validated": self.validated,
            "stale": self.stale,
            "symptoms": self.symptoms,
            "logged": self.logged,
            "events": len(self.events),
            "seconds": self.seconds,
        }
        extra = parallel.whole(self.tensors())
        if self.writes:
            self.folder.save_checkpoint("last", tensors | extra, record | self.record())
        self.saved_at = time.monotonic()

    def _check_finite(self, state: dict[str, Tensor]) -> None:
        learned = {name for name, _ in self.model.named_parameters()}
        # A buffer may contain the logarithm of a mass of 0.
        sound = (t.isfinite() if k in learned else ~t.isnan() for k, t in state.items() if t.is_floating_point())
        if not all(bool(s.all()) for s in sound):
            raise TrainingError(self._advice("a parameter is not finite"))

    def record(self) -> dict[str, Any]:
        """The JSON fields of ``last`` besides the common ones."""
        return {}

    def save_if_due(self, *, now: bool = False) -> None:
        """Save if it is time, or ``now``; the processes agree on saving and on stopping."""
        if process_count() > 1 and self.done % AGREE_EVERY and self.done != self.total and not now:
            return
        due = now or time.monotonic() - self.saved_at >= self.settings.checkpoint_seconds
        due, self.stopping = parallel.any_process(due and self.writes, self.stop_signal is not None)
        if due:
            self.save()

    def _log(self, event: dict[str, Any]) -> None:
        event = {"step": self.done, "seconds": round(self.seconds, 3)} | event
        self.events.append(event)
        self.logged += 1
        if self.folder is not None and self.writes:
            self.folder.append_event(event)

    def averaged(self) -> AbstractContextManager[None]:
        """In this context, the model has the parameters that are validated and kept."""
        return nullcontext()

    def validate(self, *, last: bool = False) -> None:
        """Validate the parameters, keep the best ones, and draw samples of fixed noise.

        Without a validator, the newest parameters are kept.

        Args:
            last: whether this is the last validation.
        """
        self.validated = self.done
        with self.averaged():
            self._validate(last)

    def _validate(self, last: bool) -> None:
        if self.validator is None:
            self._keep(None, None)
        else:
            self._compare(self.validator)
        if self._samples_due():
            started = time.monotonic()
            early = self.total is None or self.done < _UNTRAINED * self.total
            if isinstance(self.model, CanSample) and not isinstance(self.model, HasDensity) and not early:
                self.model.eval()
                generator = keyed_generator(self.settings.seed, _COLLAPSE, device=self.device)
                self.say(collapse(self.model, self.watched, generator=generator), "samples")
            if self.folder is not None and self._picture_due(last or self.over() is not None):
                self._picture(self.folder)
            took = time.monotonic() - started
            self.samples_took = self.samples_took[0] + took, took

    def _compare(self, validator: Validator) -> None:
        """Keep the current parameters if they are the best so far according to ``validator``."""
        if self.judge is None:
            self.judge = validator.start(self.data, self.watched, self._key(_VALIDATE))
        found = self.judge(self.model)
        value = parallel.number_of_first(found.value)  # so that all processes decide alike
        if not math.isfinite(value):
            what = "the validation likelihood" if validator.name == "likelihood" else f"the validator {validator.name}"
            raise TrainingError(self._advice(f"{what} is {value} ({found.told})"))
        if validator.prefers(value, self.best):
            self.best, self.validation, self.stale = value, found.likelihood, 0
            self._keep(value, found.likelihood)
        else:
            self.stale += 1
        self._log(dict(found.event))
        self.display.validated(f"validation {found.told}")

    def _samples_due(self) -> bool:
        """Whether to draw samples: always, unless they are too expensive for the time budget."""
        if self.settings.minutes is None or not isinstance(self.model, CanSample):
            return True
        if self.done == 0:
            return False
        if self.samples_took[1] == 0:  # the first draws measure the cost of sampling
            started = time.monotonic()
            self.model.eval()
            generator = keyed_generator(self.settings.seed, _GRID, device=self.device)
            given = for_samples(self.model, self.watched, _FIRST_DRAWS)
            seconds = _SAMPLES * 60 * self.settings.minutes if process_count() == 1 else math.inf
            with Deadline(seconds, "slow").ends_quietly():
                self.model.sample(_FIRST_DRAWS, generator=generator, **given)
            took = time.monotonic() - started
            self.samples_took = took, _LOOK / _FIRST_DRAWS * took + (0.0 if self.model.event.is_image else _PLOT)
        whole, last = self.samples_took
        cheap = whole + last <= _SAMPLES * self.seconds
        at_end = self.done == self.total and last <= _SAMPLES * 60 * self.settings.minutes
        return bool(parallel.from_first(int(cheap or at_end)))

    def _picture_due(self, at_end: bool) -> bool:
        """Whether to draw, where samples are looked at: images and points always, larger plots at the end.

        Within a time budget that is decided already. Otherwise the clock must not decide, so that a run that is killed
        and goes on has the pictures of one that was not.
        """
        event = self.model.event
        cheap = event.is_image or event.shape == (2,)
        return self.folder is not None and (self.settings.minutes is not None or cheap or at_end)

    @functools.cached_property
    def gallery(self) -> Gallery:
        """What draws the run's pictures, at the scale of some training examples."""
        data, shown = self.data, self.shown
        return Gallery(
            data.event, shown.x, lengths=shown.lengths, names=data.columns, rate=data.rate, letters=data.letters
        )

    def _picture(self, folder: Run) -> None:
        """Draw samples of fixed noise, or translations or colourings of the first validation examples."""
        self.model.eval()
        drawn = None
        if isinstance(self.model, CanSample):
            generator = keyed_generator(self.settings.seed, _GRID, device=self.device)
            given = for_samples(self.model, self.watched, self.gallery.wanted)
            samples, lengths = draw(self.model, self.gallery.wanted, generator, **given)
            if self.writes:
                what = f"samples at {self.display.unit} {self.done:,}"
                drawn = self.gallery.examples(samples, what, lengths=lengths, beside=True)
        elif isinstance(self.model, Translates):
            a = self.watched.rows(torch.arange(min(_TRANSLATED, len(self.watched)))).to(self.device)
            if isinstance(self.model, Colours):
                grey = self.model.translate(a, to="a")
                drawn = self.gallery.colourings(grey, self.model.translate(grey, to="b"), a)
            else:
                b = self.model.translate(a, to="b")
                drawn = self.gallery.translations(a, b, self.model.translate(b, to="a"))
        if drawn is not None and self.writes:
            folder.save_picture(f"step-{self.done:07d}.png", drawn)

    def _keep(self, value: float | None, validation: Likelihood | None) -> None:
        """Make the current parameters (averaged inside `ema`) those that the run provides."""
        state = {k: v.detach().clone() for k, v in parallel.whole(self.model.state_dict()).items()}
        self.kept, self.handed = self.done, Kept(state, value, validation)
        if self.folder is not None and self.writes:
            record = {
                "done": self.done,
                "validator": self._kept_by,
                "value": value,
                "validation": None if validation is None else dataclasses.asdict(validation),
            }
            self.folder.save_checkpoint("best", {MODEL_PREFIX + k: v for k, v in state.items()}, record)

    def say(self, symptom: Symptom | None, observer: str = "terms") -> None:
        """Show and log a symptom when it appears."""
        present = self.symptoms.get(observer)
        if symptom is None:
            self.symptoms.pop(observer, None)
        elif symptom.name != present:
            self.symptoms[observer] = symptom.name
            self._log({"symptom": symptom.name, "advice": symptom.advice})
            self.display.note(f"{symptom.name} at {self.display.unit} {self.done}: {symptom.advice}")

    def _warn(self, line: str) -> None:
        """Log a note, even if progress is not shown."""
        if self.writes:
            _log.warning("note: %s", line)

    def _key(self, use: int) -> int:
        return self.settings.seed * 1000 + use

    def _load(self, state: dict[str, Tensor]) -> None:
        own, state = self.model.state_dict(), later_state(self.model) | state
        self.model.load_state_dict({k: parallel.like(own[k], v) if k in own else v for k, v in state.items()})

    @property
    def stopped(self) -> bool:
        """Whether training was stopped by a signal that all processes know of."""
        return self.stopping or (process_count() == 1 and self.stop_signal is not None)

    def _advice(self, what: str) -> str:
        kept = "nothing was saved" if self.folder is None else f"the last good checkpoint is in {self.folder.path}"
        return f"{what} at {self.display.unit} {self.done}; {kept}; {self._scale_advice() or self.remedies()}"

    def _scale_advice(self) -> str | None:
        """Advice for data whose squares overflow; no training setting helps in this case."""
        seen = self.data.train.glance
        if not seen.is_floating_point() or not len(seen):
            return None
        largest = float(seen.abs().max())
        if largest <= _HUGE:
            return None
        return (
            f"the examples reach {largest:.3g}, whose square is too large; divide the columns by a number of this size"
        )

    @property
    def unusual_examples(self) -> str:
        """Advice if no training setting helps."""
        drawn = type(self.model).prepare is not Model.prepare  # from examples that depend on the seed
        again = ", or try another --seed" if drawn else ""
        return f"look for outliers in the data{again}"

    @abstractmethod
    def remedies(self) -> str:
        """Advice about non-finite numbers, in terms of the settings of this way of learning."""

    def _lost(self, reason: str) -> str:
        kept = "nothing was saved" if self.folder is None else f"the last checkpoint is in {self.folder.path}"
        again = (
            ""
            if self.folder is None
            else (
                f"; resume it with any number of processes: torchrun --nproc-per-node N -m unsup fit --resume "
                f"-o {self.folder.path}, or unsup fit --resume -o {self.folder.path}"
            )
        )
        return f"another process of this run has died at {self.display.unit} {self.done} ({reason}); {kept}{again}"

    @contextmanager
    def _own_rng(self) -> Iterator[None]:
        """Seed the global generators, which dropout uses, in this context; restore them afterwards."""
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            seed = manual_seed(torch.default_generator, self.settings.seed).initial_seed()
            if cuda:
                torch.cuda.manual_seed(seed)
            yield

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Handle Ctrl-C, SIGTERM and SIGHUP: training stops after the current step and is saved."""

        def note(number: int, frame: object) -> None:
            # A closed terminal may send SIGHUP twice, and a service manager may send other signals after the first one.
            if self.stop_signal is not None and number == signal.SIGINT:
                raise KeyboardInterrupt  # the second Ctrl-C stops at once
            self.stop_signal = self.stop_signal or number

        with signals_to(note, "SIGINT", "SIGTERM", "SIGHUP"):
            yield


def _shown_count(event: Event) -> int:
    """Training examples that pictures take their scale from: fewer of large ones."""
    fewest, most = _SHOWN
    return max(fewest, min(most, _SHOWN_VALUES // event.dims))


def _sound(folder: Run) -> bool:
    """Whether the best parameters of a run are readable."""
    try:
        folder.load_checkpoint("best")
    except InputError:
        return False
    return True
