"""What goes wrong while a run trains, in words for people."""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from src.config.errors import RunError, Stopped, UserError
from src.config.schema import TrainConfig
from src.training.writer import previous

_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file may not grow any more",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "it may not be written",
    errno.EPERM: "it may not be written",
    errno.ENOENT: "it was removed while the run wrote to it",
    errno.EIO: "the disk does not work",
}


@contextmanager
def explained(config: TrainConfig, folder: Path) -> Iterator[None]:
    """Turn what a machine does to a run into a RunError, which names what to do; other errors pass as they are."""
    said = threading.excepthook
    threading.excepthook = _quiet
    try:
        yield
    except (UserError, RunError, Stopped):
        raise
    except Exception as error:
        if (cause := explain(error, config, folder)) is None:
            raise
        raise RunError(f"{cause} {_how_to_go_on(folder)}") from error
    finally:
        threading.excepthook = said


def _quiet(found: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread raises an error of the disk once for nobody, and then again for the one who logs next."""
    if not isinstance(found.exc_value, OSError):
        threading.__excepthook__(found)


def explain(error: BaseException, config: TrainConfig, folder: Path) -> str | None:
    """The sentence for an error of memory, disk, loader or process; None for a bug, whose traceback is needed."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
        where = "the GPU's" if isinstance(error, torch.OutOfMemoryError) else "this machine's"
        half = max(config.batch_size // 2, 1)
        times = 2 * (config.trainer.accumulate_grad_batches or 1)
        return (
            f"out of {where} memory with batch_size={config.batch_size}. Take batch_size={half}, and "
            f"trainer.accumulate_grad_batches={times} for the same gradients."
        )
    hung_up = isinstance(error, ConnectionError | EOFError) and config.num_workers  # before its loader has noticed
    if hung_up or any("DataLoader worker" in str(part) for part in _chain(error)):
        return f"a process that fetches batches died: {_first_sentence(text)} num_workers=0 needs none."
    if isinstance(error, OSError) or "PytorchStreamWriter" in text or "iostream error" in text:
        number = next((part.errno for part in _chain(error) if isinstance(part, OSError) and part.errno), None)
        reason = _DISK.get(number or 0, _first_sentence(text)) if folder.exists() else _DISK[errno.ENOENT]
        return f"{folder} can't be written to: {reason}."
    if "EADDRINUSE" in text:
        return "another program took the port that the processes of this run were to meet at. Start it again."
    if any(word in text for word in ("Connection closed by peer", "Connection reset by peer", "NCCL", "gloo")):
        return f"another process of this run died: {_first_sentence(text)}"
    return None


def _how_to_go_on(folder: Path) -> str:
    last = folder / "checkpoints" / "last.ckpt"
    whole = next((path for path in (last, previous(last)) if path.exists()), None)
    if whole is None:
        return "No checkpoint was written yet."
    return f"The last whole checkpoint is {whole}; python -m src.train resume={folder} goes on from it."


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_sentence(text: str) -> str:
    text = re.sub(r"^(\[[^\]]*\]\s*)+", "", text.strip())  # where in torch's own code it happened
    return text.strip().splitlines()[0].partition(". ")[0].rstrip(".") + "." if text.strip() else "no reason was given."
