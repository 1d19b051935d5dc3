"""Downloads: once for jobs that start together, given up when nothing comes, and nothing half-written is left."""

from __future__ import annotations

import errno
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import urlsplit

from filelock import FileLock

from src.config.errors import UserError

PATIENCE = 14.0  # seconds without a byte, for all addresses together, so that a blocked network costs little
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


class Unreachable(UserError):
    """No address gave the files; the message says which were tried and why each failed."""


def fetch(
    data_dir: Path,
    name: str,
    missing: Callable[[], list[str]],
    addresses: list[str],
    fill: Callable[[str, Path], object],
) -> None:
    """Have the files of the data set `name` that are `missing` below `data_dir` downloaded there.

    Args:
        fill: downloads from one of the `addresses`, which are tried in turn, into an empty folder.

    Raises:
        Unreachable: each address failed, or gave nothing for PATIENCE seconds.
    """
    with _alone(data_dir, name) as folder:
        failures = []
        for address in addresses if missing() else ():  # another process may have been first
            root = Path(mkdtemp(dir=folder))  # what was given up may still write into its own
            try:
                _watch(partial(fill, address, root), root, PATIENCE / len(addresses))
            except Exception as error:  # of the network, of torchvision, of an archive
                if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
                    raise
                reason = getattr(error, "reason", None) or (str(error).splitlines() or [type(error).__name__])[-1]
                failures.append(f"{urlsplit(address).netloc} ({reason})")
                continue
            for file in missing():
                (data_dir / file).parent.mkdir(parents=True, exist_ok=True)
                (root / file).replace(data_dir / file)
        if missing():
            raise Unreachable(f"nothing could be downloaded; tried {', '.join(failures)}.")


@contextmanager
def _alone(data_dir: Path, name: str) -> Iterator[Path]:
    """A folder for what is half-written, in `data_dir`, which no other process has meanwhile."""
    lock, folder = FileLock(data_dir / f".{name}.lock"), data_dir / f".{name}.part"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise UserError(f"data_dir: can't write to {data_dir} ({error}). Choose another data_dir.") from error
    try:
        shutil.rmtree(folder, ignore_errors=True)  # of a download that was killed
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)  # while it is held; who waits for it then makes a new one
        lock.release()


def _watch(work: Callable[[], object], folder: Path, seconds: float) -> None:
    """Do `work`, and raise TimeoutError once nothing has been written below `folder` for `seconds`.

    It is left to a thread then: nothing else ends a name look-up that hangs.
    """
    answers: queue.Queue[Exception | None] = queue.Queue()

    def answer() -> None:
        try:
            work()
            answers.put(None)
        except Exception as error:  # handed to the caller, who raises it
            answers.put(error)

    threading.Thread(target=answer, daemon=True).start()
    size, deadline = 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(queue.Empty):
            if error := answers.get(timeout=0.1):
                raise error
            return
        if (now := _size(folder)) != size:
            size, deadline = now, time.monotonic() + seconds
    raise TimeoutError(f"no byte in {seconds:.0f} s")


def _size(folder: Path) -> int:
    """Bytes of all files below; -1 where one vanishes meanwhile."""
    try:
        return sum(path.stat().st_size for path in folder.rglob("*"))
    except FileNotFoundError:
        return -1
