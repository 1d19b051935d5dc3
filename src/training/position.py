"""Where in a run a checkpoint was taken, and how Lightning's loops are set to go on from there.

Lightning's own counters depend on the hook in which they are saved, and some of their combinations go on with a batch
or an epoch too many. Here a run stops at two points only: before a batch, or before a validation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import lightning as L

from src.config.schema import TrainConfig


@dataclass(frozen=True)
class Position:
    """Everything before this is done, everything after it is not.

    `epoch` counts whole epochs, `batch` the batches of the epoch at hand and `batches` those of all epochs, `steps`
    the optimizer's steps. What comes next is a validation, nothing where training is `finished`, or a batch.
    """

    epoch: int
    batch: int
    batches: int
    steps: int
    validate: bool = False
    finished: bool = False

    @classmethod
    def of(cls, trainer: L.Trainer, validate: bool = False, finished: bool = False) -> Position:
        """Where `trainer` is: before a validation, at its end, or before the batch that it has only counted."""
        epochs: Any = trainer.fit_loop.epoch_progress.current
        batches = trainer.fit_loop.epoch_loop.batch_progress
        ahead = 0 if validate or finished else 1
        batch = 0 if finished else batches.current.ready - ahead
        return cls(epochs.processed, batch, batches.total.ready - ahead, trainer.global_step, validate, finished)

    def of_all(self, config: TrainConfig, images: float) -> str:
        """In words, in a run of which an epoch has so many images for each process."""
        epochs, batches = config.trainer.max_epochs, math.ceil(images / config.batch_size)
        next_is = f"the validation after batch {self.batch}" if self.validate else f"batch {self.batch + 1}"
        return "its end" if self.finished else f"epoch {self.epoch + 1} of {epochs}, {next_is} of {batches}"

    def loops(self) -> dict[str, Any]:
        """The state of Lightning's loops that makes `trainer.fit` go on from here."""
        inside, validation = int(self.batch > 0), int(self.validate)  # of an epoch
        behind = inside - validation  # the last batch but for its end, which Lightning takes for granted
        epochs = _counts(self.epoch, ready=self.epoch + inside, started=self.epoch + inside)
        batch, batches = (_counts(number, completed=number - behind) for number in (self.batch, self.batches))
        validations = _counts(0, ready=validation, started=validation)
        steps = _progress(_counts(self.steps), _counts(0))
        loop = {
            # by which it numbers what is logged; inside an epoch it adds one
            "epoch_loop.state_dict": {"_batches_that_stepped": self.steps - inside},
            "epoch_progress": _progress(epochs, epochs),
            "epoch_loop.batch_progress": _progress(batches, batch),
            "epoch_loop.automatic_optimization.optim_progress": {"optimizer": {"step": steps, "zero_grad": steps}},
            "epoch_loop.val_loop.batch_progress": _progress(validations, validations),
        }
        return {"fit_loop": loop}


def _counts(number: int, **others: int) -> dict[str, int]:
    return dict.fromkeys(("ready", "started", "processed", "completed"), number) | others


def _progress(total: dict[str, int], current: dict[str, int]) -> dict[str, object]:
    return {"total": total, "current": current, "is_last_batch": False}
