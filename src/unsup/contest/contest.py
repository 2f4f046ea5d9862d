"""A contest: models trained and measured in turn, in a folder that can be stopped and resumed at any time.

``contest.json`` records the request and the decisions; everything else is read from the run folders.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from unsup.contest.measured import kept_measures, measures_of
from unsup.contest.outcome import Compared, Moment, Tell, check_purpose, figure, write_results
from unsup.contest.plan import TRAINING_SHARE, Asked, Entry, contestants, counted, in_words
from unsup.core.commands import path_word
from unsup.core.config import NotEmpty, Positive, Weight, plain
from unsup.core.errors import InputError, UnsupError
from unsup.core.reading import read_json
from unsup.core.registry import create
from unsup.core.storage import LOCK, held_alone, write_inside
from unsup.core.targets import folder_target, make_folder
from unsup.data import load_data
from unsup.data.load import load_supported
from unsup.data.recorded import differs
from unsup.data.source import Data
from unsup.evaluate.bench import HELD_OUT_CLASS, Bench, Measuring
from unsup.evaluate.records import Purpose, Results
from unsup.report.page import write_page
from unsup.train.progress import Snapshot
from unsup.train.runs import Run
from unsup.train.trainer import fit

_SIDE_MOST, _SIDE = 64, 32  # images larger than the first are resized to the second
_SHARE_OF_A_RUN = 0.5  # of the measuring time of a model that one slow part may take
_LEAST = 5.0  # seconds to measure a model, even in the shortest comparison


_For = TypedDict("_For", {"for": NotRequired[Purpose | None]})  # a keyword, which a class cannot have as a field


class _State(_For):
    """``contest.json``."""

    asked: Asked
    entries: Annotated[list[Entry], NotEmpty()]
    left_out: dict[str, str]
    minutes_each: Positive | None
    seconds: Weight
    digest: NotRequired[str]


def _state_in(folder: Path) -> _State | None:
    path = folder / "contest.json"
    found: _State | None = None
    if path.is_file():
        found = read_json(path, _State, mend="restore it or choose another folder (-o NAME)")
    return found


def contest_in(folder: Path) -> Asked | None:
    """The request of the contest in ``folder``, or None if it has none."""
    state = _state_in(folder)
    return None if state is None else state["asked"]


def complete_rows(name: str, **options: Any) -> Data:
    """The data without missing entries, unless they were asked for: all models are compared on the same rows."""
    return load_supported(name, takes_missing=False, **options)


def contest_data(name: str, options: dict[str, Any], anomalies: str | None) -> Data:
    """The data of a contest: without a held-out class, and folders of large or mixed images resized to 32×32."""
    options = dict(options)
    if anomalies is not None and anomalies.startswith(HELD_OUT_CLASS):
        options["without"] = anomalies.removeprefix(HELD_OUT_CLASS)
    try:
        data = complete_rows(name, **options)
    except InputError:
        if not Path(name).is_dir() or "resize" in options:
            raise
        with suppress(InputError):  # resizing helps if the images have different sizes
            return complete_rows(name, **options, resize=_SIDE)
        raise
    large = data.event.is_image and max(data.event.shape[1:]) > _SIDE_MOST
    if large and Path(name).is_dir() and "resize" not in options:
        return complete_rows(name, **options, resize=_SIDE)
    return data


def without_conditions(data: Data) -> Data:
    """The same examples without conditions: contests compare models of p(x)."""
    if data.given is None:
        return data
    assert data.name is not None
    options = {k: v for k, v in data.options.items() if k != "given"}
    columns = data.options["given"]
    if isinstance(columns, list):  # conditions are not columns of x
        options["drop"] = [*options.get("drop", ()), *columns]
    return load_data(data.name, **options)


class Contest:
    """A contest in a folder.

    Args:
        asked: the request; None to resume the contest in the folder.
        changed_data: resume although the data has changed since the contest started; its page reports the change.
        purpose: the order of table, sentences and next commands; None keeps the recorded one. It does not change what
            is trained or measured, so a finished contest can be written again for another purpose.

    Raises:
        InputError: the folder has another contest, other files, or no contest to resume; or the data or models cannot
            be used.
    """

    def __init__(
        self, folder: Path, asked: Asked | None, *, changed_data: bool = False, purpose: Purpose | None = None
    ) -> None:
        self._started, self._worked = time.monotonic(), False
        self.folder, self.changed_data = folder, changed_data
        state = _state_in(folder)
        if state is not None:
            before = state["asked"]
            was, wanted = (plain(vars(one)) for one in (before, asked or before))
            if was != wanted:
                what = next(k for k, v in wanted.items() if v != was[k])
                raise InputError(
                    f"{folder} is a comparison with other {what}: {was[what]!r}, not {wanted[what]!r}; resume it "
                    f"(unsup compare -o {path_word(folder)}) or choose another folder"
                )
            asked = before
        elif asked is None:
            start = f"unsup compare DATA -o {path_word(folder)}"
            raise InputError(f"there is no comparison in {folder} to resume; start one with {start}")
        elif folder_target(folder).is_dir() and any(p.name != LOCK for p in folder.iterdir()):
            raise InputError(f"{folder} has other files; choose another folder (-o NAME)")
        self.asked = asked
        self.data = without_conditions(contest_data(asked.data, asked.data_options, asked.anomalies))
        self.state = state or self._new_state()
        self.entries = self.state["entries"]
        self.purpose: Purpose | None = purpose or self.state.get("for")
        if purpose is not None:
            models = ((e.model, create(e.model, self.data.event, **e.options)) for e in self.entries)
            check_purpose(purpose, models, self.data)
        self.runs = [(entry, seed) for seed in range(asked.seeds) for entry in self.entries]
        self.fair = 60 * asked.minutes * (1 - TRAINING_SHARE) / len(self.runs)  # seconds to measure each
        self.measuring = Measuring(
            examples=counted(asked.minutes, len(self.data.test)),
            samples=counted(asked.minutes, len(self.data.train)),
            anomalies=asked.anomalies,
            seconds=max(_LEAST, _SHARE_OF_A_RUN * self.fair),
            importance_samples=None,
        )
        self.bench = Bench(self.data, self.measuring)
        recorded = self.state.setdefault("digest", self.bench.digest)
        name = self.data.name or "this data"
        self.has_changed = differs(folder, recorded, self.bench.digest, name, changed_data=changed_data)
        if self.has_changed:
            note = "the data has changed since the comparison started: models may have been trained on other examples"
            self.data = replace(self.data, notes=(*self.data.notes, note))
            self.bench = Bench(self.data, self.measuring)
        if state is None:
            make_folder(folder)
            self._keep_state()

    def _new_state(self) -> _State:
        minutes = self.asked.minutes / self.asked.seeds
        entries, left_out = contestants(self.data.event, len(self.data.train), self.asked.models, minutes)
        return {"asked": self.asked, "entries": entries, "left_out": left_out, "minutes_each": None, "seconds": 0.0}

    def _keep_state(self) -> None:
        text = json.dumps(self.state, indent=2, default=lambda record: plain(vars(record)))
        write_inside(self.folder / "contest.json", text.encode())

    @property
    def names(self) -> list[str]:
        """All runs in order: all models of the first seed, then of the next."""
        return [self._name(*run) for run in self.runs]

    def _name(self, entry: Entry, seed: int) -> str:
        return f"{entry.model}-{seed}" if self.asked.seeds > 1 else entry.model

    def _run(self, entry: Entry, seed: int) -> Run:
        return Run(self.folder / "runs" / f"{entry.model}-{seed}")

    # --- running --------------------------------------------------------------------------------------------------

    def run(self, tell: Tell = lambda moment: None) -> Results:
        """Train and measure what is missing, and write the page after each contestant.

        Raises:
            KeyboardInterrupt: stopped by the signal in its argument; all work has been saved.
        """
        with held_alone(self.folder, "unsup compare"):  # a second process is kept out
            self.state["for"] = self.purpose
            try:
                for i, (entry, seed) in enumerate(self.runs):
                    self._one(entry, seed, tell, self.runs[i + 1 :])
                    self._clock()
                    self.write()
            finally:
                self._clock()
            return self.write()

    def _clock(self) -> None:
        """Add the time since the last call, unless the page is only written again."""
        now = time.monotonic()
        self.state["seconds"] += now - self._started if self._worked else 0.0
        self._started = now
        self._keep_state()

    def _one(self, entry: Entry, seed: int, tell: Tell, later: Sequence[tuple[Entry, int]]) -> None:
        run, name = self._run(entry, seed), self._name(entry, seed)
        failure = run.path / "failure.json"
        if failure.is_file() and run.finished:
            failure.unlink()  # only the measuring failed, and its cause may have been fixed
        if failure.is_file():
            tell(Moment(name, "failed", note=_reason(run)))
            return
        try:
            self._worked |= not run.finished
            if not run.finished:
                self._train(entry, seed, run, lambda s: tell(Moment(name, "training", s)))
            self._prepare_bench(run)
            limit = self._seconds_to_measure(later)
            found = measures_of(
                self.bench, run, run.path, lambda stage: tell(Moment(name, f"measuring {stage}")), seconds=limit
            )
            write_page(run.path)
            tell(Moment(name, "done", note=figure(found.measures)))
        except Exception as error:
            # An error of one contestant must not stop the others: it is recorded and reported.
            kind = "" if isinstance(error, UnsupError) else f"{type(error).__name__}: "
            reason = kind + " ".join(str(error).split())
            run.path.mkdir(parents=True, exist_ok=True)
            run.write_json("failure.json", {"reason": reason})
            tell(Moment(name, "failed", note=reason))

    def _train(self, entry: Entry, seed: int, run: Run, listen: Callable[[Snapshot], None]) -> None:
        started = run.exists and run.checkpoint("last").is_file()
        if run.exists and not started:
            shutil.rmtree(run.path)  # stopped before the first checkpoint
        model = create(entry.model, self.data.event, seed=seed, **entry.options)
        fitted = fit(
            model,
            self.data,
            out=run.path,
            resume=started,
            changed_data=self.changed_data,
            progress=listen,
            minutes=run.config["training"]["minutes"] if started else self._minutes(entry),
            seed=seed,
            **entry.training,
        )
        write_page(run.path)
        if fitted.interrupted:
            raise KeyboardInterrupt(fitted.signal)

    def _prepare_bench(self, run: Run) -> None:
        """Compute what all measurements share before the first one, so that its time is not reduced."""
        if kept_measures(self.bench, run, run.path) is None:
            self._worked = True
            for prepare in (lambda: self.bench.train_features, lambda: self.bench.baselines):
                with suppress(InputError):  # a measure that needs it reports the reason
                    prepare()

    def _seconds_to_measure(self, later: Sequence[tuple[Entry, int]]) -> float:
        """The time to measure a run: an equal part of what the training of ``later`` runs leaves, or its share."""
        seconds = 60 * self.asked.minutes
        learning = sum(not entry.counts for entry, _ in later)
        each = self.state["minutes_each"] or TRAINING_SHARE * self.asked.minutes / len(self.runs)
        left = seconds - self.state["seconds"] - (time.monotonic() - self._started) - 60 * each * learning
        return max(_LEAST, self.fair, left / (1 + len(later)))

    def _minutes(self, entry: Entry) -> float:
        """An equal share of the training time: of all of it for models that count, of the rest for the others."""
        seeds, training = self.asked.seeds, TRAINING_SHARE * self.asked.minutes
        if entry.counts:
            return training / (len(self.entries) * seeds)
        minutes = self.state["minutes_each"]
        if minutes is None:
            runs = (self._run(e, 0) for e in self.entries if e.counts)
            used = seeds * sum(r.events()[-1]["seconds"] for r in runs if r.events()) / 60
            learners = sum(not e.counts for e in self.entries)
            minutes = round(max(training - used, 0.1 * training) / (learners * seeds), 4)
            self.state["minutes_each"] = minutes
            self._keep_state()
        return minutes

    # --- results --------------------------------------------------------------------------------------------------

    def write(self) -> Results:
        """Write ``results.json``, ``results.csv`` and ``index.html`` of the present state."""
        about = in_words(self.entries, self.asked.minutes, self.asked.seeds)
        if self.state["minutes_each"] is not None:
            about += f" That was {60 * self.state['minutes_each']:.0f} s each."
        if self.state["left_out"]:
            about += " Not included: " + "; ".join(f"{n} ({r})" for n, r in self.state["left_out"].items()) + "."
        return write_results(
            self.folder,
            self.bench,
            [self._compared(entry) for entry in self.entries],
            self.purpose,
            command=self.asked.command(self.folder, self.purpose, changed_data=self.has_changed),
            plan=about,
            minutes=self.asked.minutes,
            seconds=self.state["seconds"],
            asked=self.asked,
        )

    def _compared(self, entry: Entry) -> Compared:
        one = Compared(entry.model, entry)
        for seed in range(self.asked.seeds):
            run = self._run(entry, seed)
            if (run.path / "failure.json").is_file():
                one.status, one.reason = "failed", _reason(run)
            elif run.finished and (found := kept_measures(self.bench, run, run.path)) is not None:
                one.runs.append(found)
            elif one.status == "done":
                one.status = "unfinished" if run.exists else "waiting"
        return one


def _reason(run: Run) -> str:
    """The recorded reason why a run failed."""
    reason = run.side_record("failure.json").get("reason")
    return reason if isinstance(reason, str) else "the reason in failure.json cannot be read"
