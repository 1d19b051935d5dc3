"""The Lightning trainer of a run, its options and its callbacks out of a config."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.profilers import PyTorchProfiler
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from src.config.errors import UserError
from src.config.schema import Component, TrainConfig
from src.model.build import resolve
from src.model.hardware import Hardware, keep_freed_memory
from src.training.callbacks.progress import ProgressBar

QUIET = (  # warnings of Lightning's that are wrong here
    ".*does not have many workers.*",  # one indexing call a batch needs none
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
    options.pop("max_time", None)  # Lightning's own timer counts from the first start on, and then tests
    options["enable_progress_bar"] = any(isinstance(callback, ProgressBar) for callback in callbacks)
    if config.trainer.profiler == "pytorch":
        options["profiler"] = _profiler(folder / "profile")
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


def build_callback(name: str, component: Component) -> L.Callback:
    cls = resolve(component)
    if not (isinstance(cls, type) and issubclass(cls, L.Callback)):
        raise UserError(f"callbacks.{name}._target_={component.target}: that is no callback (lightning.Callback).")
    try:
        return cls(**component.arguments())
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise UserError(f"callbacks.{name}: {str(error).splitlines()[0]}") from error


def _profiler(folder: Path) -> PyTorchProfiler:
    """Records three steps of training; in those before, kernels are chosen and memory is fetched."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # it reports its start and end, and GPUs that are not there

    @rank_zero_only
    def write(profile: Any) -> None:
        if folder.exists():  # those of a validation come later
            return
        folder.mkdir()
        profile.export_chrome_trace(str(folder / "trace.json"))
        key = "self_device_time_total" if profile.use_device else "self_cpu_time_total"
        costs = profile.key_averages(group_by_input_shape=True).table(key, row_limit=40, max_name_column_width=50)
        (folder / "costs.txt").write_text(costs, encoding="utf-8")

    schedule = torch.profiler.schedule(wait=0, warmup=3, active=3, repeat=1)
    return PyTorchProfiler(schedule=schedule, on_trace_ready=write, record_shapes=True)
