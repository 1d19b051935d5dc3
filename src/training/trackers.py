"""Weights & Biases and MLflow: a run's logs where those of many runs, machines and people are compared."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock
from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger

from src.config.check import flat, plain
from src.config.errors import Stopped, UserError
from src.config.files import whole, write_json
from src.config.folder import RUNS
from src.config.schema import TrainConfig
from src.results.screen import near

STORE = RUNS / "mlflow.db"  # one for all runs, so that one page compares them
IDS = "trackers.json"  # in a run's folder; a folder's name may come again, as seed=1 does in each sweep


class Tracker(DummyLogger):
    """One of Lightning's loggers whose failure ends no run: it is said once, and the tracker is told no more.

    Lightning would end its run with the training, before the test; here `end(status, exit code)` does.
    """

    def __init__(self, name: str, logger: Logger, end: Callable[[str, int], object]) -> None:
        super().__init__()
        self.label, self.logger, self.lost = name, logger, False
        self.end = partial(self._unless_lost, end)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._unless_lost(self.logger.log_metrics, dict(metrics), step)

    def _unless_lost(self, do: Callable[..., object], *arguments: Any) -> None:
        try:
            _ = self.lost or do(*arguments)
        except Exception as failure:  # of a server, a database, a process: each has its own
            self.lost = True
            print(f"warning: {self.label}: {_sentence(failure)} The run's own logs are whole.", file=sys.stderr)


class Trackers(ExitStack):
    """The trackers that a config asks for. As a context it ends their runs, however the run itself ends.

    A run that is interrupted and goes on does so in the same run of each.
    """

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        super().__init__()
        self.config, self.folder = config, folder
        self.loggers: list[Tracker] = []
        self.links: dict[str, str] = {}  # where each can be looked at

    def open(self) -> list[Tracker]:
        """Begin a run in each, or go on with it, and tell it the config; for the process that leads.

        Raises:
            UserError: one can't be reached, or has no key; nothing was written.
        """
        ids, parent = _read(self.folder / IDS), self.folder.absolute().parent
        group = None if parent in (RUNS.absolute(), Path.cwd()) else parent.name  # the sweep or search
        for name, begin in (("mlflow", self._mlflow), ("wandb", self._wandb)):  # MLflow, refused, leaves nothing behind
            if getattr(self.config.logger, name):
                self.loggers.append(tracker := begin(ids.get(name), group))
                self.push(lambda kind, error, trace, tracker=tracker: tracker.end(*_ending(error)))
                ids[name] = str(tracker.logger.version)
        if self.loggers:
            write_json(self.folder / IDS, ids)
        return self.loggers

    def _wandb(self, known: str | None, group: str | None) -> Tracker:
        import wandb

        for name in ("INIT", "FINISH"):
            os.environ.setdefault(f"WANDB_{name}_TIMEOUT", "30")  # a job that was stopped has not much longer
        was_there = (self.folder / "wandb").exists()
        set_by = {"dir": self.folder, "project": self.config.dataset.name, "run_group": group}
        options: Any = {key.removeprefix("run_"): os.environ.get(f"WANDB_{key.upper()}", set_by[key]) for key in set_by}
        try:
            # warnings and errors stay; without the rest it asks for no key either, but raises that there is none
            wandb.setup(wandb.Settings(show_info=False))
            run = wandb.init(name=self.folder.name, id=known, resume="allow", **options)
        except (wandb.Error, OSError) as error:
            wandb.teardown(1)
            if not was_there:
                shutil.rmtree(self.folder / "wandb", ignore_errors=True)
            advice = "Set WANDB_MODE=offline, or WANDB_API_KEY and a network."
            raise UserError(f"logger.wandb=true: {_sentence(error)} {advice}") from error
        run.config.update(plain(self.config), allow_val_change=True)
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        if not run.disabled:
            self.links["W&B"] = f"wandb sync {near(Path(run.dir).parent)}" if run.offline else str(run.url)
        return Tracker("WandB", WandbLogger(experiment=run), lambda status, code: run.finish(exit_code=code))

    def _mlflow(self, known: str | None, group: str | None) -> Tracker:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 14 s; its own 7 wait for four minutes
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or self.config.dataset.name
        try:
            if not (uri := os.environ.get("MLFLOW_TRACKING_URI")):
                uri, self.links["MLflow"] = _store(), f"uvx mlflow ui --backend-store-uri sqlite:///{STORE}"
            client = MlflowClient(uri)
            if client.get_experiment_by_name(name) is None:
                with suppress(MlflowException):  # another job of the sweep has made it since
                    client.create_experiment(name)
            try:
                if known:
                    client.update_run(known, "RUNNING")
            except MlflowException:  # it was deleted there, or is another server's
                known = None
            tags = {"folder": str(self.folder.absolute())} | ({"group": group} if group else {})
            logger = MLFlowLogger(name, self.folder.name, uri, tags, run_id=known)
            run, words = str(logger.run_id), hyperparameters(self.config)
            kept = client.get_run(run).data.params
            logger.log_hyperparams({key: value for key, value in words.items() if key not in kept})
            for key in kept.keys() & words.keys():
                if kept[key] != str(words[key])[:250]:  # a parameter stays what it was; trainer.max_epochs may not
                    client.set_tag(run, key, words[key])
        except Exception as error:  # of the server, the database, their drivers
            advice = "Set MLFLOW_TRACKING_URI to a server that answers, or unset it."
            raise UserError(f"logger.mlflow=true: {_sentence(error)} {advice}") from error
        return Tracker("MLflow", logger, lambda status, code: client.set_terminated(run, status))

    def record(self, scores: Mapping[str, float]) -> None:
        """Tell them what the run came to, to be seen beside its hyperparameters."""
        for tracker in self.loggers:
            tracker.log_metrics(scores)


def _store() -> str:
    """The address of MLflow's database, made if there is none yet.

    MLflow makes its tables in fifty steps, which two jobs at once confuse, and which a kill leaves half done.
    """
    from mlflow import MlflowClient

    STORE.parent.mkdir(exist_ok=True)
    with FileLock(STORE.with_name(".mlflow.lock")):
        if not STORE.exists():
            with TemporaryDirectory(ignore_cleanup_errors=True) as folder, whole(STORE) as temporary:
                MlflowClient(f"sqlite:///{folder}/{STORE.name}")
                shutil.copyfile(f"{folder}/{STORE.name}", temporary)  # Windows moves no file that is open
    return f"sqlite:///{STORE.absolute()}"


def hyperparameters(config: TrainConfig) -> dict[str, Any]:
    """Each key as it is written on the command line, with its value; lists and nulls are left out."""
    return {key: value for key, value in flat(plain(config)).items() if isinstance(value, int | float | str | bool)}


def _ending(error: BaseException | None) -> tuple[str, int]:
    """MLflow's word for how a run ended, and an exit code for W&B."""
    if error is None:
        return "FINISHED", 0
    if isinstance(error, Stopped):
        return "KILLED", error.code
    from optuna import TrialPruned

    return ("KILLED", 0) if isinstance(error, TrialPruned) else ("FAILED", 1)


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        # a run may be a stranger's, and these become parts of paths and addresses
        return {name: id for name, id in found.items() if isinstance(id, str) and id.isalnum()}
    except (OSError, ValueError, AttributeError):
        return {}


def _sentence(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    first = text.splitlines()[0].partition(". ")[0].partition(" with exception ")[0]
    return f"{first.rstrip('.')}."
