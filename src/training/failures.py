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

from src.config.errors import RunError, UserError
from src.config.groups import command
from src.config.paths import option
from src.config.schema import TrainConfig
from src.data.decoding import SKIP, BrokenImage
from src.training.saving import previous

_ONLY_A_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)  # raises them, often without a file's name


@contextmanager
def explained(config: TrainConfig, folder: Path) -> Iterator[None]:
    """Turn what a machine does to a run into a RunError, which names what to do; other errors pass as they are."""
    hook, threading.excepthook = threading.excepthook, _quiet
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError | RunError) and not isinstance(error, BrokenImage):
            raise
        if (cause := explain(error, config, folder)) is None:
            raise
        last = folder / "checkpoints" / "last.ckpt"
        saved = next((path for path in (last, previous(last)) if path.exists()), None)
        again = f"The last whole checkpoint is {saved}; {command('train', option('resume', folder))} goes on from it."
        raise RunError(f"{cause} {again if saved else 'No checkpoint was written yet.'}") from error
    finally:
        threading.excepthook = hook


def _quiet(raised: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread raises an error of the disk once for nobody, and then again for the one who logs next."""
    if not isinstance(raised.exc_value, OSError):
        threading.__excepthook__(raised)


def explain(error: Exception, config: TrainConfig, folder: Path) -> str | None:
    """The sentence for an error of images, memory, disk or process; None for a bug, whose traceback is needed."""
    if isinstance(error, BrokenImage):
        return f"{error} {SKIP}"
    text, chain = str(error), list[BaseException]([error])
    while link := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(link)
    on_gpu = isinstance(error, torch.OutOfMemoryError)
    # on a CPU torch raises a plain RuntimeError, which nothing but its words tells from others
    if on_gpu or isinstance(error, MemoryError) or "can't allocate memory" in text:
        half, times = max(config.batch_size // 2, 1), 2 * (config.trainer.accumulate_grad_batches or 1)
        return (
            f"out of {'the GPU' if on_gpu else 'this machine'}'s memory with batch_size={config.batch_size}. "
            f"Take batch_size={half}, and trainer.accumulate_grad_batches={times} for the same gradients."
        )
    hung_up = isinstance(error, ConnectionError | EOFError) and config.num_workers  # before its loader has noticed
    # likewise a RuntimeError; an error that a process "caught" is a bug of what it runs
    if hung_up or any(re.search(r"DataLoader (worker \(pid|timed out)", str(link)) for link in chain):
        fate = "hangs" if "timed out" in text else "died"
        return f"a process that fetches batches {fate}: {_first_sentence(text)} num_workers=0 needs none."
    for link in chain:
        if isinstance(link, OSError):
            path = Path(os.fsdecode(link.filename)) if isinstance(link.filename, str | bytes) else folder
            inside = path.absolute().is_relative_to(folder.absolute()) and link.filename
            if inside or link.errno in _ONLY_A_WRITE:
                return f"{folder if inside else path} can't be written to: {os.strerror(link.errno or 0)}."
    of_gloo = type(error) is RuntimeError and re.search(r"Connection (closed|reset) by peer|gloo", text)
    if of_gloo or isinstance(error, torch.distributed.DistError):  # gloo's has no type of its own
        return f"another process of this run died: {_first_sentence(text)}"
    return None


def _first_sentence(text: str) -> str:
    text = re.sub(r"^(\[[^\]]*\]\s*)+", "", text.strip())  # where in torch's own code it happened
    return text.partition("\n")[0].partition(". ")[0].rstrip(".") + "." if text else "no reason was given."
