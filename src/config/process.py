"""This process and its like: who has started them, and the signals that ask them to stop."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from src.config.errors import RunError, Stopped, UserError
from src.config.schema import TrainConfig

# in the environment:
SLOT = "SLOT_OF_JOB"  # which of the jobs at work on this machine this process does
FOLDER = "FOLDER_OF_RUN"  # for the processes that Lightning starts for a run: where the one that leads it works
LIGHTNING = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what it says to them


def forget_launches() -> None:
    """Take out of the environment what an earlier launch has left in a shell: nobody has launched this process."""
    os.environ.pop("MPLBACKEND", None)  # of a notebook: pictures here are files
    by_hand = os.environ.get("NODE_RANK", "").isdecimal()  # on each machine of a run
    if world_size() is None and FOLDER not in os.environ and not by_hand:
        for name in ("RANK", *LIGHTNING, *(["SLURM_PROCID"] if _is_interactive() else [])):
            os.environ.pop(name, None)


def slot() -> int | None:
    """This job's number among those that run on this machine at one time; None if it is alone."""
    return int(os.environ[SLOT]) if SLOT in os.environ else None


def job() -> str | None:
    """The SLURM job's number, with that of its task in an array; None outside SLURM, and in a shell that it has opened,
    where the same command given again is another run."""
    if _is_interactive():
        return None
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '0')}"
    return os.environ.get("SLURM_JOB_ID")


def launch_name() -> str | None:
    """What all processes of a launch share: that of a SLURM job, also when it returns from the queue, or torchrun's."""
    if number := job():
        return f"job{number}"
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    return name and f"torchrun-{name}"


def world_size() -> int | None:
    """How many processes SLURM's srun or torchrun has started for this run; None if they have not."""
    if {"TORCHELASTIC_RUN_ID", "WORLD_SIZE"} <= os.environ.keys():
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ["SLURM_NTASKS"]) if _is_srun() else None


def rank() -> int:
    """This process's number among those of its run, 0 for the one that leads."""
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    if _is_srun():
        return int(os.environ["SLURM_PROCID"])
    return int(os.environ.get("LOCAL_RANK", "0")) or int(os.environ.get("NODE_RANK") or 0)


def is_child() -> bool:
    """Whether another process of the same run leads it."""
    return rank() != 0


def inherited_folder() -> Path | None:
    """The folder of the run for which Lightning has started this process; None if it has not."""
    started = is_child() and world_size() is None and FOLDER in os.environ
    return Path(os.environ[FOLDER]) if started else None


def _is_interactive() -> bool:
    """Whether this was started in a shell, whose variables are those of the job that it was opened in: by srun or
    salloc, or for OnDemand or VS Code."""
    named = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive") or "SLURM_PROCID" not in os.environ
    return named or any(map(os.isatty, range(3)))


def _is_srun() -> bool:
    # a batch script has but the second: it is one process
    return {"SLURM_STEP_ID", "SLURM_NTASKS"} <= os.environ.keys() and not _is_interactive()


def check_processes(config: TrainConfig) -> None:
    """Raises UserError if another number of processes was started than the config asks for."""
    started, nodes = world_size(), config.trainer.num_nodes or 1
    if started not in (None, config.devices * nodes):
        asked = f"devices={config.devices} on trainer.num_nodes={nodes}"
        raise UserError(
            f"{asked}: {started} processes were started for this run. devices is their number on each machine."
        )
    if nodes == 1 and int(os.environ.get("NODE_RANK") or 0):
        raise UserError("trainer.num_nodes=1: NODE_RANK is set, as on one of several machines. Unset it.")


def requeue(received: int | None) -> None:
    """Put this job back into SLURM's queue, if Lightning takes the signal for that; RunError if SLURM refuses.

    Lightning's own handler does so in the middle of a step; this is called when its checkpoint is on the disk.
    """
    if received is None or job() is None:
        return
    from lightning.pytorch.plugins.environments import SLURMEnvironment

    if not SLURMEnvironment.detect() or received != SLURMEnvironment().requeue_signal:
        return
    command = ["scontrol", "requeue", str(job())]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip()
        raise RunError(f"{' '.join(command)} failed: {reason}. Submit the job again; the run goes on.") from error


SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]
LAUNCHERS = [getattr(signal, name) for name in ("SIGUSR2",) if hasattr(signal, name)]  # if one waits for it


class Interrupts:
    """The first signal raises Stopped, or is kept in `received` while `deferred`; a second one ends the process."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.deferred = False
        self.training = False
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # only there can signals be handled
            self._earlier = {number: signal.getsignal(number) for number in SIGNALS}
            self._earlier |= {number: found for number in LAUNCHERS if callable(found := signal.getsignal(number))}
            self.install()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def hand_on(self, number: int | None) -> None:
        """Give a launcher its signal, now that the checkpoint is on the disk; submitit requeues the job and exits."""
        if number in LAUNCHERS and number in self._earlier:
            self._earlier[number](number, None)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what must not be broken off, such as an import."""
        self.deferred = True
        yield
        self.deferred = False
        if self.received is not None:
            raise Stopped(self.received)

    def install(self) -> None:
        """Take the signals; once more where a library has taken them since."""
        for number in self._earlier:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        if not self.deferred:
            raise Stopped(number)
        if self.training:  # print() is not safe in a handler: it may have interrupted a print
            line = f"{signal.Signals(number).name}: saving after this step. A second signal stops at once.\n"
            os.write(2, f"{chr(10) if os.isatty(2) else ''}{line}".encode())  # below the bar


def keep_freed_memory() -> None:
    """Keep memory that a step frees for the next one: glibc would map each large tensor anew, so that the kernel clears
    some 200,000 pages in each step of AlexNet, a fifth of its time."""
    if sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "gnu_get_libc_version"):
        return
    trim_threshold, mmap_max = -1, -4  # of malloc.h
    library.mallopt(mmap_max, 0)
    library.mallopt(trim_threshold, -1)  # never
