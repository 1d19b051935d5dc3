"""A loss that is no number any more ends the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from src.config.errors import RunError


class FiniteLoss(L.Callback):
    """Raises RunError with the first step whose loss is NaN or infinite.

    The losses are judged on the device, and asked for every `log_every_n_steps` steps and before a checkpoint:
    reading each one would make every step wait for a GPU.
    """

    def __init__(self, last: Path) -> None:
        self._last = last
        self._first_bad: Tensor | None = None  # int64 (), the step, -1 for none
        self._step = 0
        self._rates: dict[int, float] = {}  # of the steps since the last check

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._step = trainer.global_step + 1  # that the batch belongs to
        self._rates[self._step] = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss: Tensor = outputs["loss"].detach()
        step = self._step
        if self._first_bad is None:
            self._first_bad = torch.full((), -1, dtype=torch.int64, device=loss.device)
        self._first_bad.masked_fill_((self._first_bad < 0) & ~loss.isfinite(), step)
        if step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.check(trainer)

    def check(self, trainer: L.Trainer) -> None:
        """Raise if a loss since the last call was bad; every process of the run must call it."""
        step = -1 if self._first_bad is None else int(self._first_bad)
        bad = trainer.strategy.reduce_boolean_decision(step >= 0, all=False) if trainer.world_size > 1 else step >= 0
        if bad:
            rate = self._rates.get(step, next(reversed(self._rates.values()), 0.0))
            saved = (
                f"The last good checkpoint is {self._last}." if self._last.exists() else "No checkpoint was written."
            )
            raise RunError(
                f"the loss is NaN or infinite in step {step if step >= 0 else trainer.global_step}, at learning rate "
                f"{rate:.3g}. {saved} Begin another run with a smaller optimizer.lr or with trainer.gradient_clip_val.",
                everywhere=True,
            )
        self._rates.clear()
