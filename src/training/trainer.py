"""The Lightning trainer of a run, its options and its callbacks out of a config."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.profilers import PyTorchProfiler
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from src.config.check import refuse_replaced
from src.config.errors import UserError
from src.config.process import keep_freed_memory, world_size
from src.config.schema import Component, TrainConfig
from src.model.components import given, resolve
from src.model.hardware import Hardware
from src.training.callbacks.progress import ProgressBar

QUIET = (  # warnings of Lightning's that are wrong here
    ".*does not have many workers.*",  # one indexing call a batch needs none
    ".*in eval mode at the start of training.*",  # what init.freeze names
    ".*your dataloader is not resumable.*",  # BatchOrder begins where the run does
    ".*(LeafSpec|all_gather).* is deprecated.*",  # torch's complaint about Lightning
    ".*recommended to use .*sync_dist=True.*",  # Metric.compute has seen all processes
    ".*number of training batches .* is smaller than the logging interval.*",
    ".*Profiler clears events.*",  # a profile has one cycle
    ".*lr_scheduler.step.*before.*optimizer.step.*",  # the first step of a loss scaler may be skipped
)


def build_trainer(
    config: TrainConfig, hardware: Hardware, folder: Path, callbacks: list[L.Callback], **parts: Any
) -> L.Trainer:
    """With `parts` besides, as Lightning names them; raises UserError if it refuses an option."""
    options: Any = config.trainer.model_dump(exclude_none=True) | parts
    if world_size() is None:  # and no variable of a shell says more, as those of SLURM, MPI and others would
        options["plugins"] = [*options.get("plugins", []), LightningEnvironment()]
    options.pop("max_time", None)  # Lightning's own timer counts from the first start on, and then tests
    options["enable_progress_bar"] = any(isinstance(callback, ProgressBar) for callback in callbacks)
    if config.trainer.profiler == "pytorch":
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # it reports its start and end, and GPUs that are not there
        profile = folder / "profile"  # one a run: a stranger's may be full of links
        schedule = torch.profiler.schedule(wait=0, warmup=3, active=3, repeat=1)  # kernels are chosen before
        options["profiler"] = None if profile.exists() else PyTorchProfiler(profile, "costs", schedule=schedule)
    if hardware.accelerator == "cuda":
        options.setdefault("benchmark", not config.trainer.deterministic)
    if hardware.accelerator == "cpu":
        keep_freed_memory()
    # its banners repeat what the run's own summary says; warnings stay
    for name in ("pytorch.utilities.rank_zero", "fabric.utilities.seed", "fabric.utilities.distributed"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    try:
        return L.Trainer(
            **options,
            accelerator=hardware.accelerator,
            precision=hardware.precision,
            devices=hardware.devices(config.devices),
            callbacks=callbacks,
            default_root_dir=folder,
            use_distributed_sampler=False,  # BatchOrder divides the images among the processes
            num_sanity_val_steps=0,  # they would be taken for a validation
            enable_model_summary=False,
            enable_checkpointing=False,  # Checkpoints does it
        )
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise UserError(f"trainer: {str(error).splitlines()[0]}") from error


def build_callback(name: str, component: Component, config: TrainConfig) -> L.Callback:
    """One that follows a metric follows `monitor`; raises UserError if it is no callback, or can't be resumed."""
    cls, key = resolve(component), f"callbacks.{name}"
    if not (isinstance(cls, type) and issubclass(cls, L.Callback)):
        raise UserError(f"{key}._target_={component.target}: that is no callback (lightning.Callback).")
    for base in cls.__mro__:
        refuse_replaced(f"{key}._target_={component.target}", base.__name__)
    follows = given(component, {"monitor": config.monitor, "mode": config.monitor_mode})
    try:
        return cls(**component.arguments(), **(follows if "monitor" in follows else {}))
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise UserError(f"{key}: {str(error).splitlines()[0]}") from error
