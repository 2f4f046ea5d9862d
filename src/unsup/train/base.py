"""What both ways of learning share: the run folder, validation, checkpoints, stopping."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unsup.core.errors import InputError, TrainingError
from unsup.core.likelihood import Likelihood
from unsup.core.machine import choose_device, fast_cpu
from unsup.core.model import CanSample, HasDensity, Model, Symptom, Translates, keyed_generator
from unsup.core.parallel import process_count, process_rank
from unsup.core.random import Rows, manual_seed
from unsup.core.storage import MODEL_PREFIX, held_alone, model_record
from unsup.data.recorded import digest_of, has_changed
from unsup.data.source import Data
from unsup.evaluate.conditions import for_samples
from unsup.evaluate.validators import NEWEST, Judge, Validator, choose_validator
from unsup.pictures.images import has_picture, image_grid, picture, png_bytes
from unsup.train import parallel
from unsup.train.progress import Progress
from unsup.train.runs import Run
from unsup.train.settings import Settings
from unsup.train.symptoms import collapse

VALIDATIONS = 20  # of a run whose length is known
_SAMPLES = 0.05  # of the time of a run with a time budget that looking at samples may take
_FIRST_DRAWS, _LOOK = 2, 25  # draws that tell what a look costs, and those of a look
_PREPARE_LIMIT = 20_000
_UNTRAINED = 0.1  # of a run: until then, samples that are all alike are no symptom
_TRANSLATED = 12  # examples in a picture of translations: a row of them, their translations, and those taken back
AGREE_EVERY = 10  # steps between the processes' agreeing on stopping and saving
# Keys of the generators, so that no two uses share noise.
NOISE, _PREPARE, _VALIDATE, _GRID, _SUBSET, _COLLAPSE = range(6)


@dataclass(frozen=True)
class Fitted:
    """What `fit` hands back. The model itself is trained in place and in evaluation mode.

    Attributes:
        steps: updates (or passes, for models that learn by counting) done in all.
        seconds: training time, validation included.
        validation: the kept parameters' likelihood on validation examples, or None where they are not kept by it.
        validator: what the parameters are kept by: a validator's name, or ``newest``.
        score: what the validator says of the kept parameters, or None.
        events: the log points, as in ``events.jsonl``.
        interrupted: whether Ctrl-C or SIGTERM ended it.
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


class Trainer(ABC):
    """What both ways of learning share: the run folder, validation, checkpoints, stopping."""

    def __init__(self, model: Model, data: Data, settings: Settings, display: Progress) -> None:
        self.settings, self.data, self.display = settings, data, display
        self.device = choose_device(settings.device)
        self.model = model.to(self.device)
        self.folder: Run | None = None
        self.done = 0
        self.total: int | None = None
        self.events: list[dict[str, Any]] = []
        self.validator = choose_validator(settings.validator, model, data)
        self.best: float | None = None
        self.best_state: dict[str, Tensor] | None = None
        self.validation: Likelihood | None = None
        self.stale = 0
        self.spent = 0.0
        self.started = time.monotonic()
        self.saved_at = self.started
        self.samples_took = (0.0, 0.0)  # seconds: all looks at samples, the last one
        self.stop_signal: int | None = None  # of this process
        self.stopping = False  # of any process
        self.symptoms: dict[str, str] = {}  # by who looks for them: the one present
        limit = settings.validation_limit
        subset = torch.randperm(len(data.validation), generator=keyed_generator(settings.seed, _SUBSET))[:limit]
        self.watched = data.validation.take(subset.sort().values)
        self.judge: Judge | None = None  # made at the first validation

    # --- the parts that differ ------------------------------------------------------------------------------------

    def begin(self) -> None:  # noqa: B027 - counting needs none
        """Set up what learning needs of the model, once its data-dependent parameters are there."""

    @abstractmethod
    def learn(self) -> None:
        """Train until done, stopped or out of patience."""

    def tensors(self) -> dict[str, Tensor]:
        """What `last` holds besides the model."""
        return {}

    def restore(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:  # noqa: B027 - counting needs none
        """Put back what `tensors` and `record` saved."""

    # --- one run --------------------------------------------------------------------------------------------------

    def run(self, out: Path | None, resume: bool, changed_data: bool = False) -> Fitted:
        with ExitStack() as stack:
            for context in (self._own_rng(), self._signals(), fast_cpu(self.device), parallel.explained(self._lost)):
                stack.enter_context(context)
            parallel.same_start(self.model)
            if resume:
                assert out is not None
                stack.enter_context(self._alone(Run(out)))
                self.begin()
                self._resume(out, changed_data)
            else:
                if out is not None:
                    if self.writes:
                        Run.create(out, self._config(), needed_bytes=self._needed_bytes())
                    parallel.barrier()
                    self.folder = Run(out)
                    stack.enter_context(self._alone(self.folder))
                self._prepare()
                self.begin()
                self.save()
            self.learn()
            self.save()
        interrupted = self.stopping or self.stop_signal is not None
        if not interrupted:
            self._log({"finished": True})
        self._keep_best()
        self.model.eval()
        outcome = (self.done, self.seconds, self.validation, self.events, interrupted, self.folder)
        return Fitted(*outcome, self._kept_by, self.best)

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes the run folder."""
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
            "digest": digest_of(self.data.digest),
            "labels": None if self.data.labels is None else list(self.data.labels),
            "model": model_record(self.model),
            "training": training,
        }

    @contextmanager
    def _alone(self, folder: Run) -> Iterator[None]:
        """Keep a second run out of the folder."""
        if not self.writes or not folder.exists:
            yield
            return
        with held_alone(folder.path, "unsup fit"):
            yield

    def _needed_bytes(self) -> int:
        size = sum(t.numel() * t.element_size() for t in self.model.state_dict().values())
        return 8 * size + 1_000_000  # weights, two Adam moments, EMA, best, and one more copy while writing

    def _prepare(self) -> None:
        if type(self.model).prepare is Model.prepare:
            return
        train = self.data.train.epoch(self.settings.seed, 0)
        rows = torch.randperm(len(train), generator=keyed_generator(self.settings.seed, _SUBSET, 1))[:_PREPARE_LIMIT]
        generator = keyed_generator(self.settings.seed, _PREPARE, device=self.device)
        with torch.no_grad():
            part = Rows(len(rows), 0, len(rows))
            batch = train.step(rows, self.model.streams, seed=self.settings.seed, position=0, part=part)
            self.model.prepare(batch.to(self.device), generator=generator)

    def _resume(self, out: Path, changed_data: bool) -> None:
        folder = Run(out)
        own = json.loads(json.dumps(self._config()))  # tuples are lists there
        if folder.config["model"] != own["model"]:
            raise InputError(f"{out} is a run of another model; resume it with the one it was started with")
        changed = has_changed(out, folder.config, self.data, changed_data=changed_data)
        tensors, record = folder.load_checkpoint("last")
        if record["validator"] != self._kept_by:
            raise InputError(
                f"{out} keeps the best parameters by {record['validator']}, not by {self._kept_by}; resume it with "
                f"validator={record['validator']!r}"
            )
        self.folder = folder
        weights = {k.removeprefix(MODEL_PREFIX): v for k, v in tensors.items() if k.startswith(MODEL_PREFIX)}
        self._load(weights)
        self.done, self.total, self.stale = record["done"], record["total"], record["stale"]
        self.best = record["best"]
        if record["validation"] is not None:
            self.validation = Likelihood(**record["validation"])
        self.spent = record["seconds"]
        self.started = time.monotonic()
        torch.set_rng_state(tensors["rng.global"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"])
        self.restore(tensors, record)
        if self.writes:
            folder.drop_events_after(self.done)
        parallel.barrier()
        self.events = folder.events()
        if changed and not any(event.get("changed_data") == own["digest"] for event in self.events):
            self._log({"changed_data": own["digest"]})
        if folder.checkpoint("best").is_file():
            best, _ = folder.load_checkpoint("best")
            self.best_state = {k.removeprefix(MODEL_PREFIX): v for k, v in best.items()}

    def save(self) -> None:
        """Write ``last``; parameters that are not finite are never written over good ones."""
        if self.folder is None:
            return
        state = parallel.whole(self.model.state_dict())
        learned = {name for name, _ in self.model.named_parameters()}
        # A buffer may hold the logarithm of a mass of 0.
        sound = (t.isfinite() if k in learned else ~t.isnan() for k, t in state.items() if t.is_floating_point())
        if not all(bool(s.all()) for s in sound):
            raise TrainingError(self._advice("a parameter is not finite"))
        tensors = {MODEL_PREFIX + k: v for k, v in state.items()} | {"rng.global": torch.get_rng_state()}
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        record = {
            "done": self.done,
            "total": self.total,
            "best": self.best,
            "validator": self._kept_by,
            "validation": None if self.validation is None else dataclasses.asdict(self.validation),
            "stale": self.stale,
            "seconds": self.seconds,
        }
        extra = parallel.whole(self.tensors())
        if self.writes:
            self.folder.save_checkpoint("last", tensors | extra, record | self.record())
        self.saved_at = time.monotonic()

    def record(self) -> dict[str, Any]:
        """What the JSON part of ``last`` holds besides the common fields."""
        return {}

    def save_if_due(self) -> None:
        """Save when it is time, and let the processes agree on that and on stopping."""
        if process_count() > 1 and self.done % AGREE_EVERY and self.done != self.total:
            return
        due = time.monotonic() - self.saved_at >= self.settings.checkpoint_seconds
        due, self.stopping = parallel.any_process(due and self.writes, self.stop_signal is not None)
        if due:
            self.save()

    def _log(self, event: dict[str, Any]) -> None:
        event = {"step": self.done, "seconds": round(self.seconds, 3)} | event
        self.events.append(event)
        if self.folder is not None and self.writes:
            self.folder.append_event(event)

    def validate(self) -> None:
        """Judge the parameters on validation examples, remember the best ones, draw the fixed-noise grid.

        Without a validator there is nothing to judge by: the newest parameters are the ones remembered.
        """
        if self.validator is None:
            self._keep({})
        else:
            self._compare(self.validator)
        if self._samples_due():
            started = time.monotonic()
            early = self.total is None or self.done < _UNTRAINED * self.total
            if isinstance(self.model, CanSample) and not isinstance(self.model, HasDensity) and not early:
                self.model.eval()
                generator = keyed_generator(self.settings.seed, _COLLAPSE, device=self.device)
                self.say(collapse(self.model, self.watched, generator=generator), "samples")
            if self.folder is not None:
                self._picture(self.folder)
            last = time.monotonic() - started
            self.samples_took = self.samples_took[0] + last, last

    def _compare(self, validator: Validator) -> None:
        """Keep the present parameters if they are the best so far by ``validator``."""
        if self.judge is None:
            self.judge = validator.start(self.data, self.watched, self._key(_VALIDATE))
        found = self.judge(self.model)
        value = parallel.number_of_first(found.value)  # so that all decide alike
        if not math.isfinite(value):
            what = "the validation likelihood" if found.likelihood is not None else f"the validator {validator.name}"
            raise TrainingError(self._advice(f"{what} is {value}"))
        if validator.prefers(value, self.best):
            self.best, self.validation, self.stale = value, found.likelihood, 0
            self._keep({k: v for k, v in found.event.items() if k in ("nats", "validator", "value")})
        else:
            self.stale += 1
        self._log(dict(found.event))
        self.display.validated(f"validation {found.told}")

    def _samples_due(self) -> bool:
        """Always, but within a time budget only as far as samples are cheap, and at the end if they are not dear."""
        if self.settings.minutes is None or not isinstance(self.model, CanSample):
            return True
        if self.done == 0:
            return False
        if self.samples_took[1] == 0:  # nobody knows yet what a look costs: the first draws tell
            started = time.monotonic()
            self.model.eval()
            generator = keyed_generator(self.settings.seed, _GRID, device=self.device)
            given = for_samples(self.model, self.watched, _FIRST_DRAWS)
            self.model.sample(_FIRST_DRAWS, generator=generator, **given)
            took = time.monotonic() - started
            self.samples_took = took, _LOOK / _FIRST_DRAWS * took
        whole, last = self.samples_took
        cheap = whole + last <= _SAMPLES * self.seconds
        at_end = self.done == self.total and last <= _SAMPLES * 60 * self.settings.minutes
        return bool(parallel.from_first(int(cheap or at_end)))

    def _picture(self, folder: Run) -> None:
        """Draw the fixed-noise grid, or translations of the first validation examples."""
        if isinstance(self.model, CanSample) and has_picture(self.model.event):
            self.model.eval()
            count = 500 if self.model.event.shape == (2,) else 25
            generator = keyed_generator(self.settings.seed, _GRID, device=self.device)
            given = for_samples(self.model, self.watched, count)
            grid = picture(self.model.sample(count, generator=generator, **given), self.model.event)
            if self.writes:
                folder.save_picture(f"step-{self.done:07d}.png", png_bytes(grid))
        elif isinstance(self.model, Translates) and has_picture(self.model.event):
            self.model.eval()
            a = self.watched.rows(torch.arange(min(_TRANSLATED, len(self.watched)))).to(self.device)
            b = self.model.translate(a, to="b")
            grid = image_grid(torch.cat([a, b, self.model.translate(b, to="a")]), self.model.event, columns=len(a))
            if self.writes:
                folder.save_picture(f"step-{self.done:07d}.png", png_bytes(grid))

    def _keep(self, record: dict[str, Any]) -> None:
        """Make the present parameters (averaged ones inside their average) those that the run hands out."""
        self.best_state = {k: v.detach().clone() for k, v in parallel.whole(self.model.state_dict()).items()}
        if self.folder is not None and self.writes:
            best = {MODEL_PREFIX + k: v for k, v in self.best_state.items()}
            self.folder.save_checkpoint("best", best, {"done": self.done} | record)

    def say(self, symptom: Symptom | None, observer: str = "terms") -> None:
        """Show and log a symptom when it appears."""
        present = self.symptoms.get(observer)
        if symptom is None:
            self.symptoms.pop(observer, None)
        elif symptom.name != present:
            self.symptoms[observer] = symptom.name
            self._log({"symptom": symptom.name, "advice": symptom.advice})
            self.display.note(f"{symptom.name} at {self.display.unit} {self.done}: {symptom.advice}")

    def _key(self, use: int) -> int:
        return self.settings.seed * 1000 + use

    def _keep_best(self) -> None:
        if self.best_state is not None:
            self._load(self.best_state)

    def _load(self, state: dict[str, Tensor]) -> None:
        own = self.model.state_dict()
        self.model.load_state_dict({k: parallel.like(own[k], v) if k in own else v for k, v in state.items()})

    @property
    def stopped(self) -> bool:
        """By a signal that every process knows of, or out of patience."""
        signalled = self.stopping or (process_count() == 1 and self.stop_signal is not None)
        return signalled or 0 < self.settings.patience <= self.stale

    def _advice(self, what: str) -> str:
        kept = "nothing was saved" if self.folder is None else f"the last good checkpoint is in {self.folder.path}"
        return (
            f"{what} at {self.display.unit} {self.done}; {kept}; try a smaller --lr (now {self.settings.lr:g}), "
            "--clip 1, --warmup 500, or --precision float32"
        )

    def _lost(self, reason: str) -> str:
        kept = "nothing was saved" if self.folder is None else f"the last checkpoint is in {self.folder.path}"
        again = (
            ""
            if self.folder is None
            else (
                f"; go on from it with any number of processes: torchrun --nproc-per-node N -m unsup fit --resume "
                f"-o {self.folder.path}, or unsup fit --resume -o {self.folder.path}"
            )
        )
        return f"another process of this run has gone at {self.display.unit} {self.done} ({reason}); {kept}{again}"

    @contextmanager
    def _own_rng(self) -> Iterator[None]:
        """Dropout draws from the global generators: inside they are keyed by the seed, after it as they were."""
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            seed = manual_seed(torch.default_generator, self.settings.seed).initial_seed()
            if cuda:
                torch.cuda.manual_seed(seed)
            yield

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end training after the step in hand, so that it can be saved."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: object) -> None:
            if self.stop_signal is not None:
                raise KeyboardInterrupt  # the second time, at once
            self.stop_signal = number

        previous = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
