"""Trackers: loggers of any kind besides the run's own files, where the runs of many machines are compared."""

from __future__ import annotations

import inspect
import logging
import os
import re
import shutil
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock
from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger

from src.config.check import flat, plain
from src.config.errors import Stopped, UserError
from src.config.files import whole, write_json
from src.config.folder import RUNS
from src.config.schema import Component, TrainConfig, Values
from src.model.components import given, resolve

STORE = RUNS / "mlflow.db"  # one for all runs, so that one page compares them
IDS = "trackers.json"  # in a run's folder; a folder's name may come again, as seed=1 does in each sweep
ADVICE = {
    "WandbLogger": "Set WANDB_MODE=offline, or WANDB_API_KEY and a network.",
    "MLFlowLogger": "Set MLFLOW_TRACKING_URI to a server that answers, or unset it.",
}


class Trackers(ExitStack):
    """The trackers that a config asks for. As a context it ends their runs, however the run itself ends."""

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        super().__init__()
        self.config, self.folder, self.loggers = config, folder, list[Logger]()

    def open(self) -> list[Logger]:
        """Begin a run in each, or go on with it; raises UserError, nothing written, if one can't be reached."""
        path = self.folder / IDS
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        ids = dict(re.findall(r'"([\w-]+)": "([0-9A-Za-z]+)"', text))  # a stranger's become parts of paths
        components = self.config.logger.components().items()
        # W&B comes last, for, refused, it leaves something behind
        for name, component in sorted(components, key=lambda item: item[1].target.endswith("WandbLogger")):
            if (kind := component.target.rpartition(".")[2]) == "TensorBoardLogger":
                continue  # of RunLogs
            begin = {"WandbLogger": self._wandb, "MLFlowLogger": self._mlflow}.get(kind, self._begin)
            try:
                self.loggers.append(begin(component, ids.get(name)))
            except Exception as error:  # of the server, the database, their drivers: each has its own
                reason = re.split(r"\.\s|\.?$| with exception |\n", str(error).strip() or repr(error))[0]
                raise UserError(f"logger={name}: {reason}. {ADVICE.get(kind, '')}".rstrip()) from error
            if version := self.loggers[-1].version:
                ids[name] = str(version)
                write_json(path, ids)
        return self.loggers

    def _begin(self, component: Component, known: str | None, **more: Any) -> Any:
        """Any logger, with the run's folder, its name and the id of its run, as its parameters call them."""
        name = self.folder.name
        offered: Values = {"save_dir": str(self.folder), "name": name, "run_name": name}
        offered |= dict.fromkeys(("id", "run_id", "experiment_key", "run_hash"), known)
        logger = resolve(component)(**component.arguments() | given(component, offered | more))
        if not isinstance(logger, Logger):
            raise TypeError(f"{component.target} is no logger (lightning.pytorch.loggers.Logger)")
        self.push(lambda *raised: _end(logger, raised[1]))
        if isinstance(logger, WandbLogger):
            logger.log_hyperparams(plain(self.config))
        elif known is None:  # MLflow's can't be changed
            logger.log_hyperparams(hyperparameters(self.config))
        return logger

    def _wandb(self, component: Component, known: str | None) -> Logger:
        import wandb

        files = self.folder / "wandb"
        was_there = files.exists()
        # warnings and errors stay; without the rest it asks for no key either, but raises that there is none
        wandb.setup(wandb.Settings(show_info=False))
        folder, taken = os.environ.get("WANDB_DIR", self.folder), inspect.signature(wandb.init).parameters
        options = {key: value for key, value in component.arguments().items() if key in taken and value is not None}
        try:
            # not by the logger, which passes on an option that W&B warns of
            run = wandb.init(**options | {"dir": folder, "name": self.folder.name, "id": known})
            return self._begin(component, known, experiment=run)
        except (wandb.Error, OSError):
            wandb.teardown(1)
            if not was_there:
                shutil.rmtree(files, ignore_errors=True)
            raise

    def _mlflow(self, component: Component, known: str | None) -> Logger:
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 14 s; its own 7 wait for four minutes
        if not (uri := os.environ.get("MLFLOW_TRACKING_URI")):
            uri = f"sqlite:///{STORE.absolute()}"
            STORE.parent.mkdir(exist_ok=True)
            with FileLock(STORE.with_name(".mlflow.lock")):  # two jobs at once confuse the fifty steps of making it,
                if not STORE.exists():  # and a kill leaves them half done
                    with TemporaryDirectory(ignore_cleanup_errors=True) as folder, whole(STORE) as temporary:
                        mlflow.MlflowClient(f"sqlite:///{folder}/{STORE.name}")
                        shutil.copyfile(f"{folder}/{STORE.name}", temporary)  # Windows moves no file that is open
        mlflow.set_tracking_uri(uri)
        # makes it, also when another job of the sweep does so now
        experiment, client = mlflow.set_experiment(component.arguments()["experiment_name"]), mlflow.MlflowClient(uri)
        if not client.search_runs([experiment.experiment_id], f"attributes.run_id = '{known}'"):
            known = None  # it was deleted, or is another server's
        logger = self._begin(component, known, tracking_uri=uri)
        if known:
            client.update_run(known, "RUNNING")
        return logger


def hyperparameters(config: TrainConfig) -> dict[str, int | float | str | bool]:
    """Each key as it is written on the command line, with its value; lists and nulls are left out."""
    values = flat(plain(config)).items()
    texts = {
        key: value.encode(errors="replace").decode() for key, value in values if isinstance(value, str)
    }  # paths, too
    return {key: value for key, value in values if isinstance(value, int | float | bool)} | texts


def _end(logger: Logger, error: BaseException | None) -> None:
    """End a tracker's run as ours has ended."""
    theirs, code, word = _ending(error)
    logger.finalize(theirs if isinstance(logger, MLFlowLogger) else word)
    if isinstance(logger, WandbLogger):
        logger.experiment.finish(code)


def _ending(error: BaseException | None) -> tuple[str, int, str]:
    """MLflow's word for how a run ended, an exit code for W&B, and Lightning's word."""
    if isinstance(error, Stopped):
        return "KILLED", error.code, "failed"
    if type(error).__name__ == "TrialPruned":  # whose package takes half a second to import
        return "KILLED", 0, "success"
    return ("FAILED", 1, "failed") if error else ("FINISHED", 0, "success")
