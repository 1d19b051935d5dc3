"""Where in a run a checkpoint was taken, and how Lightning's loops are set to go on from there.

The only file that knows Lightning's loops. Their own counters depend on the hook in which they are saved, and some of
their combinations go on with a batch or an epoch too many. Here a run stops at two points only: before a batch, or
before a validation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning as L


@dataclass(frozen=True)
class Position:
    """Everything before this is done, everything after it is not.

    `epoch` counts whole epochs, `batch` the batches of the epoch at hand and `batches` those of all epochs, `steps`
    the optimizer's steps. `validate` says that a validation comes next, else a batch. `finished` says that training
    came to its own end.
    """

    epoch: int
    batch: int
    batches: int
    steps: int
    validate: bool = False
    finished: bool = False

    @classmethod
    def before_batch(cls, trainer: L.Trainer) -> Position:
        """Called when Lightning has counted the batch that comes next, and done nothing with it."""
        batches = trainer.fit_loop.epoch_loop.batch_progress
        return cls(_epochs(trainer), batches.current.ready - 1, batches.total.ready - 1, trainer.global_step)

    @classmethod
    def before_validation(cls, trainer: L.Trainer) -> Position:
        batches = trainer.fit_loop.epoch_loop.batch_progress
        return cls(_epochs(trainer), batches.current.ready, batches.total.ready, trainer.global_step, validate=True)

    @classmethod
    def at_end(cls, trainer: L.Trainer) -> Position:
        """Called when the last epoch is over."""
        batches = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        return cls(_epochs(trainer), 0, batches, trainer.global_step, finished=True)

    def __str__(self) -> str:
        where = "its end" if self.finished else f"epoch {self.epoch + 1}, batch {self.batch + 1}"
        return f"step {self.steps:,}, {where}"

    def loops(self) -> dict[str, Any]:
        """The state of Lightning's loops that makes `trainer.fit` go on from here."""
        epochs, batch, batches = _counts(self.epoch), _counts(self.batch), _counts(self.batches)
        validation, steps = _counts(0), {"total": _counts(self.steps), "current": _counts(0)}
        if self.batch:  # inside an epoch
            epochs |= {"ready": self.epoch + 1, "started": self.epoch + 1}
            if self.validate:
                validation |= {"ready": 1, "started": 1}
            else:  # the last batch but for its end, which Lightning takes for granted
                batch["completed"] -= 1
                batches["completed"] -= 1
        loop = {
            "epoch_loop.state_dict": {"_batches_that_stepped": self.steps},
            "epoch_progress": _progress(epochs, epochs),
            "epoch_loop.batch_progress": _progress(batches, batch) | {"is_last_batch": False},
            "epoch_loop.automatic_optimization.optim_progress": {"optimizer": {"step": steps, "zero_grad": steps}},
            "epoch_loop.val_loop.batch_progress": _progress(validation, validation) | {"is_last_batch": False},
        }
        return {"fit_loop": loop}


START = Position(0, 0, 0, 0)


def number_steps(trainer: L.Trainer) -> None:
    """Make Lightning number what is logged by the optimizer's steps again, as it does in an unbroken run.

    Its own count of them after a restart depends on whether a validation is due.
    """
    before_increment = 1 if trainer.validating else 0
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step - before_increment


def _epochs(trainer: L.Trainer) -> int:
    return trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]


def _counts(number: int) -> dict[str, int]:
    return dict.fromkeys(("ready", "started", "processed", "completed"), number)


def _progress(total: dict[str, int], current: dict[str, int]) -> dict[str, Any]:
    return {"total": dict(total), "current": dict(current)}
