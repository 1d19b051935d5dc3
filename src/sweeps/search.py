"""A search for the best options: its trials are runs, shared by processes, of which each may be killed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, Trial, TrialState

from src.config.check import check, flat, plain
from src.config.cli import Arguments, check_needs, importing
from src.config.compose import compose, declared, parse, written
from src.config.errors import UserError
from src.config.files import write_text
from src.config.folder import ERROR, PRUNED, SEARCHES, is_alive, is_finished, lock, refuse_another
from src.config.groups import is_group
from src.config.problems import keys, unknown
from src.config.schema import TrainConfig, TuneConfig, Values
from src.results.outcome import in_words
from src.results.table import RERUN, Table
from src.sweeps.best import save_best
from src.sweeps.grid import Definition
from src.sweeps.jobs import claim_slot, printing_to_file, tell
from src.sweeps.study import ask, leave_out, open_study, read_space, real_trials, save_pictures, without_password

if TYPE_CHECKING:
    from lightning import Callback

BEST = 3  # trials that are run with more seeds


class Search:
    """What a command line asks for; raises UserError if something of it can't be served."""

    def __init__(self, arguments: Arguments) -> None:
        own, fixed, varied = [], ["++test=false", "++report=false"], {}  # it must not choose by the test set
        for text, override in zip(arguments.overrides, parse(arguments.overrides), strict=True):
            key, section = override.key_or_group, override.key_or_group.partition(".")[0]
            if section in TuneConfig.model_fields and override.is_sweep_override():
                inside = key.startswith("search.")
                advice = f"Write {text.lstrip('+').removeprefix('search.')}" if inside else "Name one value"
                raise UserError(f"{text}: what varies is a key of train. {advice}.")
            if section in TuneConfig.model_fields:
                own.append(f"~{key}" if override.value() is None and key in ("search", "pruner") else text)
            elif not is_group(key) and section not in (*TrainConfig.model_fields, "hydra"):
                raise UserError(unknown(key, keys(TuneConfig) | keys(TrainConfig)))
            elif override.is_sweep_override():
                varied[key] = text.partition("=")[2]
            else:
                fixed.append(text)
        composed = compose("tune", declared(own))
        config = check(composed.values, TuneConfig)
        self._arguments, self._fixed = arguments, declared(fixed)
        self._base = self.compose({})
        check_needs(self._base)
        if key := next((key for key in ("resume", "again") if getattr(self._base, key)), ""):
            raise UserError(f"{key}: that is for one run. A search goes on when the same command is given again.")
        if self._base.devices > 1:
            raise UserError("devices: each trial of a search has one. Start the same command once for each device.")
        option = composed.whole.hydra.runtime.choices.get("search") or "search"
        name = config.name or f"{self._base.dataset.name}_{self._base.model.name}_{option}"
        self.config, self.folder = config.model_copy(update={"name": name}), SEARCHES / name
        named = {text.partition("=")[0].lstrip("+") for text in fixed}
        self._texts = {key: str(text) for key, text in flat(config.search).items() if key not in named} | varied
        self._space = read_space(self._texts)
        self._check()

    def _check(self) -> None:
        """Tell what is wrong at the ends of the space before the first trial."""
        if self.config.n_seeds > 1:
            if "seed" in self._space:
                raise UserError(f"n_seeds={self.config.n_seeds}: the search varies seed itself. Leave out one of both.")
            self.compose({"seed": self._base.seed + self.config.n_seeds - 1})
        ends = {
            key: values.choices if isinstance(values, CategoricalDistribution) else (values.low, values.high)
            for key, values in self._space.items()
        }
        first = {key: values[0] for key, values in ends.items()}
        for key, value in ((key, value) for key, values in ends.items() for value in values):
            self.compose(first | {key: value})

    def compose(self, point: Values) -> TrainConfig:
        """The config of the run at a point of the space."""
        return check(compose("train", self._overrides(point)).values, TrainConfig)

    def _overrides(self, point: Values) -> list[str]:
        fixed = [text for text in self._fixed if text.lstrip("+").partition("=")[0] not in point]
        return [*fixed, *declared([f"{key}={value}" for key, value in point.items()])]

    def run(self, train: Callable[..., float | None]) -> bool:
        """Run trials until there are n_trials in all; whether any was finished. Raises UserError if it can't begin."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # Optuna has no lock around asking for a point and claiming its trial: two processes would be given the same
        self._lock = FileLock(self.folder / ".study.lock")
        with self._lock:
            try:
                self._study = open_study(self.folder, self.config, self._base.monitor_mode)
            except UserError:
                if [path.name for path in self.folder.iterdir()] == [".study.lock"]:  # nobody else's
                    shutil.rmtree(self.folder)
                raise
            asked = flat(plain(self._base) | {"search": self._texts})
            if begun := self._study.user_attrs.get("asked"):
                refuse_another(self.folder, begun, asked, "Choose another name=.")
            self._study.set_user_attr("asked", asked)
        of = f"{len(real_trials(self._study))} of {self.config.n_trials}"
        print(f"search {self.config.name}: {of} trials were begun, in {self.folder}", flush=True)
        claim_slot(self.folder)
        try:
            while self._run_next(train) or self._wait():
                pass
            while self._run_again(train):
                pass
        except StorageInternalError as error:
            reason = f"{error.__cause__}".partition("\n")[0]
            storage = without_password(str(self.config.storage))
            raise UserError(f"storage={storage}: {reason}. The same command goes on.") from error
        table = self._record()
        if table.best is not None:
            best, trials = table.best, table.runs.trial
            score = in_words(table.monitor, table.score[trials == best.trial].mean())
            options = self._overrides({key: best[key] for key in self._space})
            save_best(self.folder, options, f"{score} in {best.run} of {trials.nunique()}")
        save_pictures(self._study, self.folder, self._base.monitor)
        table.show()
        return table.best is not None

    def _run_next(self, train: Callable[..., float | None]) -> bool:
        """Run a trial, if one is left, with the folder of its run locked until Optuna was told what came of it."""
        with ExitStack() as held:
            with self._lock:
                if trial := self._abandoned() or ask(self._study, self._space, self.config):  # before others look
                    held.enter_context(lock(self._folder_of(trial)))
                self._record()
            if trial:
                self._run(trial, train)
        return trial is not None

    def _wait(self) -> bool:
        """Whether other processes had trials, of which one may be run again, and which are awaited."""
        busy = [self._folder_of(trial) for trial in real_trials(self._study)] if self.config.n_seeds > 1 else []
        if had := any(map(is_alive, busy)):
            print("waits for the trials of other processes, to run the best ones with more seeds", flush=True)
        while any(map(is_alive, busy)):
            time.sleep(1)
        return had

    def _run_again(self, train: Callable[..., float | None]) -> bool:
        """Run one of the best trials with another seed, if one is left."""
        with ExitStack() as held:
            with self._lock:
                folder = next((folder for folder in self._left() if not is_alive(folder)), None)
                if folder:
                    held.enter_context(lock(folder))
                self._record()
            if folder:
                try:
                    self._train(folder, self._left()[folder], train)
                except Exception as error:  # as of a trial
                    write_text(folder / ERROR, f"{tell(error, f'{folder.name}: ')}\n")
        return folder is not None

    def _left(self) -> dict[Path, Values]:
        """Folder and point of each run of the best trials with another seed that has not ended; they are the best by
        their first run, for others would change them."""
        sign = -1 if self._base.monitor_mode == "max" else 1
        scored = [trial for trial in real_trials(self._study) if trial.state is TrialState.COMPLETE]
        here = [trial for trial in scored if is_finished(self._folder_of(trial))]
        runs = {
            self.folder / f"{self._folder_of(trial).name}{RERUN}{seed}": trial.params | {"seed": seed}
            for seed in range(self._base.seed + 1, self._base.seed + self.config.n_seeds)
            for trial in sorted(here, key=lambda trial: sign * trial.values[0])[:BEST]
        }
        return {path: point for path, point in runs.items() if not (is_finished(path) or (path / ERROR).exists())}

    def _abandoned(self) -> Trial | None:
        """A trial that a killed process has left."""
        for frozen in real_trials(self._study):
            if frozen.state is TrialState.RUNNING:
                trial, folder = Trial(self._study, frozen._trial_id), self._folder_of(frozen)
                if frozen.params.keys() != self._space.keys():
                    leave_out(self._study, trial)
                # a trial of a database without a folder is another machine's, which has its own disk
                elif (self.config.storage is None or folder.exists()) and not is_alive(folder):
                    return trial
        return None

    def _folder_of(self, trial: Trial | FrozenTrial) -> Path:
        return self.folder / f"trial-{trial.number:03}"

    def _record(self) -> Table:
        """Write down the trials so far, and remove the weights of each that can't be the best any more."""
        runs = {
            self._folder_of(trial).name: [f"{key}={trial.params[key]}" for key in self._space]
            for trial in real_trials(self._study)
            if trial.params.keys() == self._space.keys()
        }
        again = sorted(path.name for path in self.folder.glob(f"trial-*{RERUN}*") if path.is_dir())
        runs |= {name: runs[trial] for name in again if (trial := name.partition(RERUN)[0]) in runs}
        arguments, overrides = self._arguments, list(self._arguments.overrides)
        command, folders = arguments.command(overrides), list(arguments.config_dirs)
        Definition(command=command, overrides=overrides, runs=runs, config_dirs=folders, search=True).write(self.folder)
        table = Table(self.folder, runs, command, search=True)
        ended = table.runs.run[table.runs.state.isin(["finished", "pruned"])]
        left = {folder.name.partition(RERUN)[0] for folder in self._left()}  # of which each may become the best
        for name in [] if table.best is None else ended[(ended != table.best.run) & ~ended.isin(left)]:
            for path in (self.folder / name / "checkpoints").glob("*.ckpt"):
                if path.name != "best.ckpt" or not self.config.keep_weights:
                    path.unlink(missing_ok=True)
        return table

    def _run(self, trial: Trial, train: Callable[..., float | None]) -> None:
        with importing():
            import lightning  # noqa: F401  # which the next one looks for
            from optuna import TrialPruned
            from optuna_integration import PyTorchLightningPruningCallback
        folder = self._folder_of(trial)
        try:
            pruning = PyTorchLightningPruningCallback(trial, self._base.monitor)
            self._study.tell(trial, self._train(folder, trial.params, train, [pruning]))
        except TrialPruned as pruned:
            write_text(folder / PRUNED, f"{pruned}\n")
            self._study.tell(trial, state=TrialState.PRUNED)
            print(f"{folder.name}: {str(pruned)[:1].lower()}{str(pruned)[1:]}", flush=True)
        except StorageInternalError:  # of which another trial would know no more
            raise
        except Exception as error:  # a bug is no reason to lose the other trials
            write_text(folder / ERROR, f"{tell(error, f'{folder.name}: ')}\n")
            self._study.tell(trial, state=TrialState.FAIL)

    def _train(
        self, folder: Path, point: Values, train: Callable[..., float | None], callbacks: Sequence[Callback] = ()
    ) -> float:
        """Run the point in the folder; raises UserError if nothing was validated."""
        print(f"{folder.name}: {' '.join(f'{key}={value}' for key, value in point.items())}", flush=True)
        command = replace(self._arguments, door="train").command(written(self._overrides(point)))
        with printing_to_file(folder):
            score = train(self.compose(point), folder, command=command, callbacks=callbacks)
        if score is None:
            raise UserError("nothing was validated, so that there is nothing to choose by.")
        print(f"{folder.name}: {in_words(self._base.monitor, score)}", flush=True)
        return score
