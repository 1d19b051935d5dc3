"""Downloads: once for jobs that start together, given up when nothing comes, and nothing half-written is left."""

from __future__ import annotations

import errno
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import urlsplit

from filelock import FileLock

from src.config.errors import UserError

PATIENCE = 14.0  # seconds without a byte, for all addresses together, so that a blocked network costs little
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
Missing = Callable[[], list[str]]  # files below data_dir
Fill = Callable[[str, Path], object]  # downloads from an address into an empty folder


class Unreachable(UserError):
    """No address gave the files; the message says which were tried and why each failed."""


def fetch(data_dir: Path, name: str, missing: Missing, addresses: list[str], fill: Fill, patience: float = 0) -> None:
    """Have the files of the data set `name` that are `missing` below `data_dir` downloaded there.

    Raises Unreachable if each address, tried in turn, failed or gave nothing for `patience`, or its part of PATIENCE.
    """
    lock, folder = FileLock(data_dir / f".{name}.lock"), data_dir / f".{name}.part"  # for what is half-written
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise UserError(f"data_dir: can't write to {data_dir} ({error}). Choose another data_dir.") from error
    failures = []
    try:
        shutil.rmtree(folder, ignore_errors=True)  # of a download that was killed
        folder.mkdir()
        for address in addresses if missing() else ():  # another process may have been first
            root = Path(mkdtemp(dir=folder))  # what was given up may still write into its own
            try:
                watch(fill, address, root, patience or PATIENCE / len(addresses))
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
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)  # while it is held; who waits for it then makes a new one
        lock.release()


def watch(fill: Fill, address: str, folder: Path, seconds: float) -> None:
    """Fill the `folder`, and raise TimeoutError once nothing has been written below it for `seconds`."""
    done: Future[object] = Future()

    def run() -> None:
        try:
            done.set_result(fill(address, folder))
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()  # nothing else ends a name look-up that hangs
    size, deadline = 0, time.monotonic() + seconds
    while wait([done], 0.1).not_done:
        with suppress(FileNotFoundError):  # of a file that vanishes meanwhile
            before, size = size, sum(path.stat().st_size for path in folder.rglob("*"))
            if size != before:
                deadline = time.monotonic() + seconds
        if time.monotonic() > deadline:
            raise TimeoutError(f"no byte in {seconds:.0f} s")
    done.result()
