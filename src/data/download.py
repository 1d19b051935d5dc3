"""Files from mirrors: verified before they get their name, fetched once however many jobs ask."""

from __future__ import annotations

import hashlib
import http.client
import os
import queue
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from src.config.errors import UserError

CONNECT_SECONDS = 12.0  # for all mirrors together, so that a blocked network costs little
STALL_SECONDS = 10.0  # without a byte, before the next mirror is tried
_CHUNK = 1 << 18


class Unreachable(UserError):
    """No mirror gave the file; the message says which were tried and why each failed."""


def fetch(
    names: list[str],
    folder: Path,
    mirrors: list[str],
    md5: dict[str, str],
    store: Callable[[str, Path], object],
) -> None:
    """Have `store(name, temporary_path)` keep each of the files `names`, which is verified by then.

    Call it under `locked`, and ask for what is still missing then: another process may have been first.

    Raises:
        Unreachable: no mirror answered within CONNECT_SECONDS, or none had a file of the right checksum.
    """
    live = list(mirrors)
    for name in names:
        temporary = folder / f".{name}.{os.getpid()}.part"
        try:
            live = _from_any(name, live, temporary, md5.get(name, "none known"))
            store(name, temporary)
        finally:
            temporary.unlink(missing_ok=True)


def locked(folder: Path) -> FileLock:
    """The lock that lets one process at a time fill `folder`, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} is read-only")
    except OSError as error:
        raise UserError(f"data_dir: can't write to {folder} ({error}). Choose another data_dir.") from error
    return FileLock(folder / ".lock")


def md5_of(path: Path) -> str:
    """MD5 of a file, in hexadecimal; the published checksums of these data sets are MD5."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _from_any(name: str, mirrors: list[str], path: Path, md5: str) -> list[str]:
    """Download `name` from the first mirror that has it; gives the mirrors from that one on."""
    deadline = time.monotonic() + CONNECT_SECONDS
    failures = []
    for position, mirror in enumerate(mirrors):
        patience = (deadline - time.monotonic()) / (len(mirrors) - position)
        try:
            _save(mirror + name, path, max(patience, 1.0))
            found = md5_of(path)
            if found == md5:
                return mirrors[position:]
            failures.append(f"{mirror} (checksum {found} instead of {md5})")
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            failures.append(f"{urlsplit(mirror).netloc or mirror} ({reason})")
    raise Unreachable(f"could not download {name}; tried {', '.join(failures) or 'no mirror'}.")


def _save(url: str, path: Path, patience: float) -> None:
    with closing(_open(url, patience)) as response, path.open("wb") as file:
        size = int(response.headers.get("Content-Length") or 0)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(url.rpartition("/")[2], total=size or None)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                progress.advance(task, len(chunk))
        if size and file.tell() != size:
            raise OSError(f"broke off after {file.tell()} of {size} bytes")


def _open(url: str, patience: float) -> http.client.HTTPResponse:
    """Open `url`, or give up after `patience` seconds, a name look-up that hangs included."""
    answer: queue.Queue[http.client.HTTPResponse | Exception] = queue.Queue()

    def connect() -> None:
        try:
            answer.put(urllib.request.urlopen(url, timeout=STALL_SECONDS))
        except Exception as error:  # handed to the caller's thread, which raises it
            answer.put(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        result = answer.get(timeout=patience)
    except queue.Empty:
        raise TimeoutError(f"no answer in {patience:.0f} s") from None
    if isinstance(result, Exception):
        raise result
    return result
