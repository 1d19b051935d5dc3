"""An Optuna study that several processes share, and that goes on where a killed one has left it."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from src.config import folder as runs
from src.config.check import check, plain
from src.config.errors import UserError
from src.config.schema import NamedComponent, TrainConfig, TuneConfig
from src.sweeps.space import Space

REPEATS = "repeats"  # the trial whose point the sampler has named again


class Study:
    """A study in `folder`.

    Raises:
        UserError: the storage can't be used, or holds another search under this name.
    """

    def __init__(self, folder: Path, name: str, config: TuneConfig, base: TrainConfig, space: Space) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=ExperimentalWarning)
        warnings.filterwarnings("ignore", message=".*is ignored because this `step`.*")  # seen before a kill
        self.folder, self._config, self._space = folder, config, space
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / ".study.lock")
        with self._lock:
            storage = open_storage(folder, config.storage)
            self.optuna = optuna.create_study(
                storage=storage,
                study_name=name,
                direction="maximize",
                load_if_exists=True,
                pruner=build_pruner(config.pruner),
            )
            self._check_definition(base)

    def _check_definition(self, base: TrainConfig) -> None:
        attributes = self.optuna.user_attrs
        if "config" not in attributes:
            self.optuna.set_user_attr("config", plain(base))
            self.optuna.set_user_attr("space", self._space.texts)
            return
        advice = "Choose another name=."
        saved = check(attributes["config"], TrainConfig)
        for key, before, now in runs.differences(base, saved, lambda key: True):
            raise UserError(f"{self.folder} was begun with {key}={before}, and this command says {key}={now}. {advice}")
        for key in attributes["space"].keys() | self._space.texts.keys():
            before, now = (texts.get(key, "fixed") for texts in (attributes["space"], self._space.texts))
            if before != now:
                raise UserError(
                    f"{self.folder} was begun with search.{key}: {before}, and this command says {now}. {advice}"
                )

    @property
    def trials(self) -> list[FrozenTrial]:
        """Those that were run, or are being run."""
        return real_trials(self.optuna)

    @contextmanager
    def next(self) -> Iterator[Trial | None]:
        """A trial for this process alone, while it is held: one that a killed process has left, or a new one.

        None where all are done, or under way elsewhere.
        """
        with self._lock:
            trial = self._abandoned() or self._new()
            if trial is None:
                claim = None
            else:
                place = self.place(trial.number)
                place.mkdir(parents=True, exist_ok=True)
                claim = FileLock(place / ".claim.lock")
                claim.acquire(timeout=0)
        try:
            yield trial
        finally:
            if claim is not None:
                Path(claim.lock_file).unlink(missing_ok=True)
                claim.release()

    def place(self, number: int) -> Path:
        """The folder of a trial's run."""
        return self.folder / f"trial-{number:03}"

    def _abandoned(self) -> Trial | None:
        for trial in self.trials:
            if trial.state is not TrialState.RUNNING:
                continue
            place = self.place(trial.number)
            if trial.params.keys() != self._space.distributions.keys():
                self._drop(Trial(self.optuna, trial._trial_id), -1)  # killed before it had a point
            elif place.exists() and not _is_held(place / ".claim.lock"):  # another machine's lies on its own disk
                return Trial(self.optuna, trial._trial_id)
        return None

    def _new(self) -> Trial | None:
        while len(self.trials) < self._config.n_trials:
            count = len(self.optuna.get_trials(deepcopy=False))
            self.optuna.sampler = _sampler(self._config.sampler, count)
            trial = self.optuna.ask(self._space.distributions)
            taken = [other for other in self.trials if other.number != trial.number]
            twin = next((other for other in taken if other.params == trial.params), None)
            if twin is None:
                return trial
            self._drop(trial, twin.number)
            if self._space.size < float("inf"):
                point = self._space.fresh([other.params for other in taken], count)
                if point is None:
                    return None
                self.optuna.enqueue_trial(point)
        return None

    def _drop(self, trial: Trial, twin: int) -> None:
        """Leave out a trial that will not run."""
        trial.set_user_attr(REPEATS, twin)
        self.optuna.tell(trial, state=TrialState.FAIL)


def real_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials of a study without those that wait, or were never run for they repeat another one."""
    found = study.get_trials(deepcopy=False)
    return [trial for trial in found if REPEATS not in trial.user_attrs and trial.state is not TrialState.WAITING]


def open_storage(folder: Path, address: str | None) -> BaseStorage:
    """The journal in `folder`, or the database at an `address`; raises UserError if it can't be opened."""
    if address is None:
        path = folder / "study.journal"
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_KernelLock(path)))
    try:
        return RDBStorage(address)
    except Exception as error:  # SQLAlchemy's, its drivers' and Alembic's, of which none is known here
        raise UserError(f"storage={address}: {' '.join(str(error).split())[:300]}") from error


class _KernelLock(JournalFileOpenLock):
    """A lock that a killed process does not leave behind; a line that it has left unfinished is cut off."""

    def __init__(self, path: Path) -> None:
        self._path, self._held = path, FileLock(path.with_name(".journal.lock"))  # Optuna's own has another name

    def acquire(self) -> bool:
        self._held.acquire()
        with self._path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(size - 2**20, 0)  # no line of a journal is that long
            file.seek(start)
            end = start + file.read().rfind(b"\n") + 1
            if end < size:
                file.truncate(end)
        return True

    def release(self) -> None:
        self._held.release()


def _is_held(path: Path) -> bool:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        return True
    lock.release()
    return False


def _sampler(config: NamedComponent, count: int) -> optuna.samplers.BaseSampler:
    """The sampler for the next trial after `count`: a search that was killed asks for the same points again.

    A sampler that is seeded once would begin anew with its first points whenever a process starts.
    """
    arguments = config.arguments()
    seed = np.random.SeedSequence([arguments.get("seed") or 0, count]).generate_state(1)[0]
    return _build(config, arguments | {"seed": int(seed)})


def build_pruner(config: NamedComponent | None) -> optuna.pruners.BasePruner:
    return optuna.pruners.NopPruner() if config is None else _build(config, config.arguments())


def _build(config: NamedComponent, arguments: dict[str, Any]) -> Any:
    module, _, name = config.target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)(**arguments)
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"{config.name}: {error}") from error
