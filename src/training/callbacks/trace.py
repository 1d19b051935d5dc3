"""What a few training steps spend their time on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn
from torch.profiler import ProfilerActivity, profile, schedule, supported_activities


class Trace(L.Callback):
    """Writes `trace.json` of a few steps, for Perfetto or TensorBoard, and `costs.txt`, the operations by cost.

    Whole steps are recorded, with the fetching of the next batch; Python between torch's operations, such as
    Lightning's loop and the other callbacks, shows as gaps.
    """

    SKIPPED, RECORDED = 3, 3  # steps; in the first, kernels are chosen and memory is fetched

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._profile: profile | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # it reports its start and end, and GPUs that are not there
            self._profile = profile(
                activities=supported_activities(),
                schedule=schedule(wait=self.SKIPPED - 1, warmup=1, active=self.RECORDED, repeat=1),
                on_trace_ready=self._write,
                record_shapes=True,
            )
            self._profile.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._profile is not None:
            self._profile.step()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._profile is not None:
            self._profile.stop()
            self._profile = None
            if not (self._folder / "trace.json").exists():
                needed = self.SKIPPED + self.RECORDED
                rank_zero_warn(f"trainer.profiler=trace: too few steps for a profile, which needs {needed}.")

    def _write(self, found: profile) -> None:
        self._folder.mkdir(exist_ok=True)
        found.export_chrome_trace(str(self._folder / "trace.json"))
        on_gpu = ProfilerActivity.CUDA in found.activities
        table = found.key_averages(group_by_input_shape=True).table(
            sort_by="self_device_time_total" if on_gpu else "self_cpu_time_total",
            row_limit=40,
            max_name_column_width=50,
            max_shapes_column_width=80,
        )
        (self._folder / "costs.txt").write_text(table, encoding="utf-8")
