"""What a machine does to a run while it trains, in words for people."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from src.config.errors import RunError, Stopped, UserError
from src.config.schema import TrainConfig
from src.training.saving import previous

_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EFBIG: "a file may not grow any more",
    errno.EACCES: "it may not be written",
    errno.EPERM: "it may not be written",
    errno.ENOENT: "it was removed while the run wrote to it",
    errno.EIO: "the disk does not work",
}
_NAMELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # only a write raises them, often without a file's name
_DISTRIBUTED = (torch.distributed.DistError,) if torch.distributed.is_available() else ()


@contextmanager
def explained(config: TrainConfig, folder: Path) -> Iterator[None]:
    """Turn what a machine does to a run into a RunError, which names what to do; other errors pass as they are."""
    hook = threading.excepthook
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
        threading.excepthook = hook


def _quiet(raised: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread raises an error of the disk once for nobody, and then again for the one who logs next."""
    if not isinstance(raised.exc_value, OSError):
        threading.__excepthook__(raised)


def explain(error: BaseException, config: TrainConfig, folder: Path) -> str | None:
    """The sentence for an error of memory, disk, loader or process; None for a bug, whose traceback is needed."""
    text = str(error)
    on_gpu = isinstance(error, torch.OutOfMemoryError)
    # on a CPU torch raises a plain RuntimeError, which nothing but its words tells from others
    if on_gpu or isinstance(error, MemoryError) or "can't allocate memory" in text:
        half, times = max(config.batch_size // 2, 1), 2 * (config.trainer.accumulate_grad_batches or 1)
        return (
            f"out of {'the GPU' if on_gpu else 'this machine'}'s memory with batch_size={config.batch_size}. "
            f"Take batch_size={half}, and trainer.accumulate_grad_batches={times} for the same gradients."
        )
    hung_up = isinstance(error, ConnectionError | EOFError) and config.num_workers  # before its loader has noticed
    if hung_up or any("DataLoader worker" in str(link) for link in _chain(error)):  # likewise a RuntimeError
        return f"a process that fetches batches died: {_first_sentence(text)} num_workers=0 needs none."
    for link in _chain(error):
        if isinstance(link, OSError) and (sentence := _of_disk(link, folder)):
            return sentence
    if isinstance(error, _DISTRIBUTED) and "EADDRINUSE" in text:  # its number stands in its words only
        return "another program took the port that the processes of this run were to meet at. Start it again."
    of_gloo = type(error) is RuntimeError and re.search(r"Connection (closed|reset) by peer|gloo", text)
    if isinstance(error, _DISTRIBUTED) or of_gloo:  # it has no type of its own
        return f"another process of this run died: {_first_sentence(text)}"
    return None


def _of_disk(error: OSError, folder: Path) -> str | None:
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
    inside = name is not None and Path(name).absolute().is_relative_to(folder.absolute())
    if not inside and error.errno not in _NAMELESS:
        return None
    reason = _DISK.get(error.errno or 0, str(error.strerror))
    return f"{folder if inside or name is None else name} can't be written to: {reason}."


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
