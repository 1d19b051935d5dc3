"""Weights & Biases and MLflow: a run's logs where those of many runs, machines and people are compared."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from filelock import FileLock
from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger

from src.config.check import flat, plain
from src.config.errors import Stopped, UserError
from src.config.files import write_json
from src.config.folder import RUNS
from src.config.schema import TrainConfig
from src.results.screen import near

# One for all runs, so that one page compares them. MLflow 3 refuses to write folders of files; what a database needs,
# SQLAlchemy and Alembic, is here with Optuna.
STORE = RUNS / "mlflow.db"
IDS = "trackers.json"  # in a run's folder; a folder's name may come again, as seed=1 does in each sweep
_PATIENCE = "30"  # seconds that W&B may keep a run from its start, and a job that was stopped from SLURM's queue


class Trackers:
    """The trackers that a config asks for. As a context it ends their runs, however the run itself ends.

    A run that is interrupted and goes on does so in the same run of each.
    """

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.links: dict[str, str] = {}  # where each can be looked at
        self._wandb: _WandB | None = None
        self._mlflow: _MLflow | None = None

    def open(self) -> list[Logger]:
        """Begin a run in each, or go on with it, and tell it the config; for the process that leads.

        Raises:
            UserError: one can't be reached, or has no key; nothing was written.
        """
        path = self.folder / IDS
        ids = _read(path)
        if self.config.logger.mlflow:  # first: refused, it leaves nothing behind
            ids["mlflow"] = self._open_mlflow(ids.get("mlflow"))
        if self.config.logger.wandb:
            ids["wandb"] = self._open_wandb(ids.get("wandb"))
        if self.loggers:
            write_json(path, ids)
        return self.loggers

    @property
    def loggers(self) -> list[Logger]:
        return [logger for logger in (self._wandb, self._mlflow) if logger is not None]

    def _open_wandb(self, known: str | None) -> str:
        import wandb

        for name in ("INIT", "FINISH"):
            os.environ.setdefault(f"WANDB_{name}_TIMEOUT", _PATIENCE)
        was_there = (self.folder / "wandb").exists()
        try:
            # warnings and errors stay; without the rest it asks for no key either, but raises that there is none
            wandb.setup(wandb.Settings(show_info=False))
            wandb.finish()  # a run that another part of this program may have left open
            run = wandb.init(
                dir=os.environ.get("WANDB_DIR", self.folder),
                project=os.environ.get("WANDB_PROJECT", self.config.dataset.name),
                name=self.folder.name,
                group=os.environ.get("WANDB_RUN_GROUP", _group(self.folder)),
                id=known or secrets.token_hex(8),
                resume="allow",
            )
        except (wandb.Error, OSError) as error:
            wandb.teardown(1)
            if not was_there:
                shutil.rmtree(self.folder / "wandb", ignore_errors=True)
            raise UserError(
                f"logger.wandb=true: {_sentence(error)} Set WANDB_MODE=offline, or WANDB_API_KEY and a network."
            ) from error
        self._wandb = _WandB(experiment=run)
        run.config.update(plain(self.config), allow_val_change=True)
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        if not run.disabled:
            self.links["W&B"] = f"wandb sync {near(Path(run.dir).parent)}" if run.offline else str(run.url)
        return run.id

    def _open_mlflow(self, known: str | None) -> str:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 14 s; its own 7 wait for four minutes
        uri, name = os.environ.get("MLFLOW_TRACKING_URI"), os.environ.get("MLFLOW_EXPERIMENT_NAME")
        name = name or self.config.dataset.name
        try:
            if not uri:
                uri = _store()
                self.links["MLflow"] = f"uvx mlflow ui --backend-store-uri sqlite:///{STORE}"
            client = MlflowClient(uri)
            if known and (known := _still_there(client, known)):
                client.update_run(known, "RUNNING")
            elif client.get_experiment_by_name(name) is None:
                with suppress(MlflowException):  # another job of the sweep has made it since
                    client.create_experiment(name)
            tags = {"folder": str(self.folder.absolute()), "group": _group(self.folder)}
            logger = _MLflow(name, self.folder.name, uri, {k: v for k, v in tags.items() if v}, run_id=known)
            run = str(logger.run_id)
            kept = client.get_run(run).data.params
            words = hyperparameters(self.config)
            logger.log_hyperparams({key: value for key, value in words.items() if key not in kept})
            for key, value in words.items():
                if kept.get(key, str(value)[:250]) != str(value)[:250]:
                    client.set_tag(run, key, value)  # a parameter stays what it was; trainer.max_epochs may not
        except Exception as error:  # of the server, the database, their drivers
            raise UserError(
                f"logger.mlflow=true: {_sentence(error)} Set MLFLOW_TRACKING_URI to a server that answers, or unset it."
            ) from error
        self._mlflow = logger
        return run

    def record(self, scores: Mapping[str, float]) -> None:
        """Tell them what the run came to, to be seen beside its hyperparameters."""
        if self._wandb is not None:
            self._wandb.record(scores)
        if self._mlflow is not None:
            self._mlflow.log_metrics(scores)

    def __enter__(self) -> Trackers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status, code = _ending(error)
        if self._mlflow is not None:
            self._mlflow.close(status)
        if self._wandb is not None:
            self._wandb.close(code)


def _store() -> str:
    """The address of MLflow's database, made if there is none yet.

    MLflow makes its tables in fifty steps, which two jobs at once confuse, and which a kill leaves half done.
    """
    from mlflow import MlflowClient

    STORE.parent.mkdir(exist_ok=True)
    with FileLock(STORE.with_name(".mlflow.lock")):
        if not STORE.exists():
            with TemporaryDirectory(dir=STORE.parent, prefix=".", ignore_cleanup_errors=True) as folder:
                made = Path(folder) / STORE.name
                MlflowClient(f"sqlite:///{made.absolute()}")
                shutil.copyfile(made, made.with_suffix(".copy"))  # Windows moves no file that is open
                made.with_suffix(".copy").replace(STORE)
    return f"sqlite:///{STORE.absolute()}"


class _Tolerant:
    """A tracker's failure ends no run: it is said once, and the tracker is told no more."""

    lost = False

    def _unless_lost(self, do: Callable[[], object]) -> None:
        if self.lost:
            return
        try:
            do()
        except Exception as failure:  # of a server, a database, a process: each has its own
            self.lost = True
            name = type(self).__name__.strip("_")
            print(f"warning: {name}: {_sentence(failure)} The run's own logs are whole.", file=sys.stderr)


class _WandB(_Tolerant, WandbLogger):
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._unless_lost(lambda: WandbLogger.log_metrics(self, metrics, step))

    def record(self, scores: Mapping[str, float]) -> None:
        self._unless_lost(lambda: self.experiment.summary.update(dict(scores)))

    def close(self, code: int) -> None:
        """Later runs of this process have their own, also after one that failed or was stopped."""
        self._unless_lost(lambda: self.experiment.finish(exit_code=code))


class _MLflow(_Tolerant, MLFlowLogger):
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._unless_lost(lambda: MLFlowLogger.log_metrics(self, metrics, step))

    def finalize(self, status: str = "success") -> None:
        """Lightning calls it when training ends; the run is to end after its test."""

    def close(self, status: str) -> None:
        self._unless_lost(lambda: self.experiment.set_terminated(str(self.run_id), status))


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


def _still_there(client: Any, run: str) -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        return run if client.get_run(run).info.lifecycle_stage == "active" else None
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _group(folder: Path) -> str | None:
    """The sweep or search that a run belongs to."""
    parent = folder.absolute().parent
    return None if parent in (RUNS.absolute(), Path.cwd()) else parent.name


def _sentence(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    first = text.splitlines()[0].partition(". ")[0].partition(" with exception ")[0]
    return f"{first.rstrip('.')}."
