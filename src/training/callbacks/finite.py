"""A loss that is no number any more ends the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch

from src.config.errors import RunError

NEVER = 2**31 - 1


class FiniteLoss(L.Callback):
    """Raises RunError with the first step whose loss is NaN or infinite; asked for every `log_every_n_steps` steps and
    before a checkpoint, for reading each loss would make every step wait for a GPU."""

    def __init__(self, last: Path) -> None:
        self._last, self._step = last, 0

    def on_fit_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._first_bad = torch.tensor(NEVER, device=trainer.strategy.root_device)  # int64 (), the step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._step = trainer.global_step + 1  # that the batch belongs to

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, *_: Any) -> None:
        bad = ~outputs["loss"].detach().isfinite()
        self._first_bad.masked_fill_(bad & (self._first_bad == NEVER), self._step)
        if self._step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.check(trainer)

    def check(self, trainer: L.Trainer) -> None:
        """Raise if a loss since the last call was bad; every process of the run must call it."""
        step = int(trainer.strategy.reduce(self._first_bad, reduce_op="min"))
        if step < NEVER:
            there = self._last.exists()
            saved = f"The last good checkpoint is {self._last}." if there else "No checkpoint was written."
            advice = "Begin another run with a smaller optimizer.lr or with trainer.gradient_clip_val."
            raise RunError(f"the loss is NaN or infinite in step {step}. {saved} {advice}", everywhere=True)
