"""A search for the best options: its trials are runs, shared by processes, of which each may be killed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.core.override_parser.types import QuotedString
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, Trial, TrialState

from src.config.check import check, flat, plain
from src.config.cli import Arguments, check_needs, importing
from src.config.compose import compose, declared, parse, written
from src.config.errors import UserError
from src.config.files import write_text
from src.config.folder import ERROR, FREE, PRUNED, SEARCHES, is_alive, lock, refuse_another
from src.config.groups import is_group
from src.config.problems import keys, unknown
from src.config.schema import TrainConfig, TuneConfig, Values
from src.results.outcome import in_words
from src.results.table import Table, experiment_command
from src.sweeps.grid import Definition
from src.sweeps.jobs import claim_slot, printing_to_file, tell
from src.sweeps.study import ask, leave_out, open_study, read_space, real_trials, save_pictures, without_password

# of the machine or of the search, not of what was found
_LEFT_OUT = (FREE - {"trainer.max_epochs", "data_dir"}) | {"test", "report"}


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
        probes = {
            key: values.choices if isinstance(values, CategoricalDistribution) else (values.low, values.high)
            for key, values in self._space.items()
        }
        first = {key: values[0] for key, values in probes.items()}
        for key in probes:
            for value in probes[key]:  # a wrong one is told before the first trial
                self.compose(first | {key: value})

    def compose(self, point: Values) -> TrainConfig:
        """The config of the run at a point of the space."""
        return check(compose("train", self._overrides(point)).values, TrainConfig)

    def _overrides(self, point: Values) -> list[str]:
        return [*self._fixed, *declared([f"{key}={value}" for key, value in point.items()])]

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
        begun = f"{len(real_trials(self._study))} of {self.config.n_trials} trials were begun"
        print(f"search {self.config.name}: {begun}, in {self.folder}", flush=True)
        claim_slot(self.folder)
        try:
            while self._run_next(train):
                pass
        except StorageInternalError as error:
            reason = f"{error.__cause__}".partition("\n")[0]
            storage = without_password(str(self.config.storage))
            raise UserError(f"storage={storage}: {reason}. The same command goes on.") from error
        table = self._record()
        if table.best is not None:
            self._save_best(table, table.best)
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
        arguments, overrides = self._arguments, list(self._arguments.overrides)
        command, folders = arguments.command(overrides), list(arguments.config_dirs)
        definition = Definition(command=command, overrides=overrides, runs=runs, config_dirs=folders, search=True)
        definition.write(self.folder)
        table = Table(self.folder, runs, command, search=True)
        ended = table.runs.run[table.runs.state.isin(["finished", "pruned"])]
        for name in [] if table.best is None else ended[ended != table.best.run]:
            for path in (self.folder / name / "checkpoints").glob("*.ckpt"):
                if path.name != "best.ckpt" or not self.config.keep_weights:
                    path.unlink(missing_ok=True)
        return table

    def _run(self, trial: Trial, train: Callable[..., float | None]) -> None:
        with importing():
            import lightning  # noqa: F401  # which the next one looks for
            from optuna import TrialPruned
            from optuna_integration import PyTorchLightningPruningCallback

        folder, overrides = self._folder_of(trial), self._overrides(trial.params)
        print(f"{folder.name}: {' '.join(f'{key}={value}' for key, value in trial.params.items())}", flush=True)
        try:
            command = replace(self._arguments, door="train").command(written(overrides))
            pruning = PyTorchLightningPruningCallback(trial, self._base.monitor)
            with printing_to_file(folder):
                score = train(self.compose(trial.params), folder, command=command, callbacks=[pruning])
            if score is None:
                raise UserError("nothing was validated, so that there is nothing to choose by.")
            self._study.tell(trial, score)
            print(f"{folder.name}: {in_words(self._base.monitor, score)}", flush=True)
        except TrialPruned as pruned:
            write_text(folder / PRUNED, f"{pruned}\n")
            self._study.tell(trial, state=TrialState.PRUNED)
            print(f"{folder.name}: {str(pruned)[:1].lower()}{str(pruned)[1:]}", flush=True)
        except StorageInternalError:  # of which another trial would know no more
            raise
        except Exception as error:  # a bug is no reason to lose the other trials
            write_text(folder / ERROR, f"{tell(error, f'{folder.name}: ')}\n")
            self._study.tell(trial, state=TrialState.FAIL)

    def _save_best(self, table: Table, best: Any) -> None:
        """Write the options of the best trial as `experiment/best.yaml`: groups as its defaults, the values below."""
        options = OmegaConf.create({"defaults": []})
        for override in parse(self._overrides({key: best[key] for key in self._space})):
            key, value = override.key_or_group, override.value()
            if key == "experiment":
                options.defaults.insert(0, value)
            elif is_group(key):
                options.defaults.append({f"override /{key}": value})
            elif not key.startswith("hydra") and key not in _LEFT_OUT:
                OmegaConf.update(options, key, value.text if isinstance(value, QuotedString) else value)
        score = in_words(table.monitor, table.score[best.name])
        comment = f"{experiment_command(self.folder)}\n# {score} in {best.run} of {len(table.runs)}"
        text = f"# @package _global_\n# {comment}\n{OmegaConf.to_yaml(options)}"
        (self.folder / "experiment").mkdir(exist_ok=True)
        write_text(self.folder / "experiment/best.yaml", text)
