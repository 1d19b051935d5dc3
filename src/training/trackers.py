"""Weights & Biases and MLflow: a run's logs where those of many runs, machines and people are compared."""

from __future__ import annotations

import logging
import os
import re
import shutil
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock
from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger

from src.config.check import flat, plain
from src.config.errors import Stopped, UserError
from src.config.files import whole, write_json
from src.config.folder import RUNS
from src.config.schema import TrainConfig

STORE = RUNS / "mlflow.db"  # one for all runs, so that one page compares them
IDS = "trackers.json"  # in a run's folder; a folder's name may come again, as seed=1 does in each sweep
ADVICE = {  # MLflow comes first, for, refused, it leaves nothing behind
    "mlflow": "Set MLFLOW_TRACKING_URI to a server that answers, or unset it.",
    "wandb": "Set WANDB_MODE=offline, or WANDB_API_KEY and a network.",
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
        ids = dict(re.findall(r'"(mlflow|wandb)": "([0-9A-Za-z]+)"', text))  # a stranger's become parts of paths
        for name, advice in ADVICE.items():
            if getattr(self.config.logger, name):
                try:
                    self.loggers.append(getattr(self, f"_{name}")(ids.get(name)))
                except Exception as error:  # of the server, the database, their drivers: each has its own
                    reason = re.split(r"\.\s|\.?$| with exception |\n", str(error).strip() or repr(error))[0]
                    raise UserError(f"logger.{name}=true: {reason}. {advice}") from error
                ids[name] = str(self.loggers[-1].version)
                write_json(path, ids)
        return self.loggers

    def _wandb(self, known: str | None) -> WandbLogger:
        import wandb

        files, project = self.folder / "wandb", os.environ.get("WANDB_PROJECT", self.config.dataset.name)
        was_there = files.exists()
        # warnings and errors stay; without the rest it asks for no key either, but raises that there is none
        wandb.setup(wandb.Settings(show_info=False))
        folder, name = os.environ.get("WANDB_DIR", self.folder), self.folder.name
        try:
            run = wandb.init(dir=folder, project=project, name=name, id=known, resume="allow")
        except (wandb.Error, OSError):
            wandb.teardown(1)
            if not was_there:
                shutil.rmtree(files, ignore_errors=True)
            raise
        self.push(lambda *raised: run.finish(_ending(raised[1])[1]))
        run.config.update(plain(self.config), allow_val_change=True)
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return WandbLogger(experiment=run)

    def _mlflow(self, known: str | None) -> MLFlowLogger:
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
        experiment = mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or self.config.dataset.name)
        client = mlflow.MlflowClient(uri)
        if not client.search_runs([experiment.experiment_id], f"attributes.run_id = '{known}'"):
            known = None  # it was deleted, or is another server's
        logger = MLFlowLogger(experiment.name, self.folder.name, uri, run_id=known)
        self.push(lambda *raised: logger.finalize(_ending(raised[1])[0]))
        if known:  # with the parameters that it has: they can't be changed
            client.update_run(known, "RUNNING")
        else:
            logger.log_hyperparams(hyperparameters(self.config))
        return logger


def hyperparameters(config: TrainConfig) -> dict[str, int | float | str | bool]:
    """Each key as it is written on the command line, with its value; lists and nulls are left out."""
    return {key: value for key, value in flat(plain(config)).items() if isinstance(value, int | float | str | bool)}


def _ending(error: BaseException | None) -> tuple[str, int]:
    """MLflow's word for how a run ended, and an exit code for W&B."""
    if isinstance(error, Stopped):
        return "KILLED", error.code
    if type(error).__name__ == "TrialPruned":  # whose package takes half a second to import
        return "KILLED", 0
    return ("FAILED", 1) if error else ("FINISHED", 0)
