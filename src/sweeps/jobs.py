"""The runs of a sweep, one by one or many at a time: their processes, their output, their errors."""

from __future__ import annotations

import os
import platform
import shlex
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.types import HydraContext
from omegaconf import DictConfig

from src.config.cli import Request
from src.config.compose import put
from src.config.errors import RunError, Stopped, UserError
from src.config.files import write_text
from src.config.folder import ERROR, is_alive
from src.config.process import SLOT, Interrupts, is_child, world_size
from src.config.schema import TrainConfig

Task = Callable[[Request[TrainConfig]], float | None]
OUTPUT = "output.txt"
# by a job of one device with trainer=ddp; the next one's processes would take it for their own
_LEFT_BY_LIGHTNING = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_held: list[FileLock] = []  # for as long as this process lives


@dataclass(frozen=True)
class Job:
    """A run of a sweep: its request, its overrides as Hydra has them, and the config that they were composed to."""

    request: Request[TrainConfig]
    overrides: Sequence[str]
    config: DictConfig


class _Loader:
    """Gives a launcher of Hydra's the config of each job, which was composed before the first one started."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._configs = {tuple(job.overrides): job.config for job in jobs}

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: Sequence[str]) -> DictConfig:
        return deepcopy(self._configs[tuple(sweep_overrides)])  # a job writes into it, and may be started again


def start(jobs: Sequence[Job], task: Task) -> None:
    """Have Hydra's launcher do the jobs, each by `task`, until the last one has ended.

    Raises:
        SystemExit: one was asked to stop, and the sweep with it.
    """
    requests, parallel = [job.request for job in jobs], is_parallel(jobs[0].config)
    context: Any = HydraContext(config_loader=_Loader(jobs), callbacks=Callback())  # type: ignore[arg-type]
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=context,
        task_function=lambda config: _run(requests, HydraConfig.get().job.num, task, parallel),
        config=jobs[0].config,
    )
    for ended in launcher.launch([list(job.overrides) for job in jobs], initial_job_idx=0):
        _ = ended.return_value  # raises what a launcher's process has raised


def is_parallel(config: DictConfig) -> bool:
    """Whether several jobs of a sweep run at a time and write to the same terminal."""
    return "JoblibLauncher" in str(config.hydra.launcher.get("_target_"))


def _run(requests: Sequence[Request[TrainConfig]], number: int, task: Task, parallel: bool) -> float | None:
    """Do one of the jobs; what goes wrong is said and written into its folder, and the next one has its turn."""
    request, leads = requests[number], not is_child()
    folder, title = request.folder, f"job {number + 1} of {len(requests)}"
    if leads:
        (folder / ERROR).unlink(missing_ok=True)
        print(f"{title}: {request.command}", flush=True)
    try:
        if request.config.devices > 1 and world_size() is None:
            _in_a_process(request)
            score = None
        elif parallel:
            claim_slot(folder.parent)
            with (folder / OUTPUT).open("a", encoding="utf-8") as output, redirect_stdout(output):
                score = task(request)
        else:
            score = task(request)
    except Stopped as stop:
        sweep = shlex.quote(str(folder.parent))
        print(f"{Stopped(stop.number)} The sweep goes on with its command and hydra.sweep.dir={sweep}", file=sys.stderr)
        raise SystemExit(0 if is_child() else stop.code) from stop
    except Exception as error:  # a bug is no reason to lose the other runs; its traceback is needed
        wrong = isinstance(error, UserError | RunError)
        if not wrong or os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exc()
        if leads:
            _fail(folder, str(error) if wrong else f"{type(error).__name__}: {error}")
        return None
    if leads and parallel:
        print(f"{title} is finished: {folder}", flush=True)
    return score


def _fail(folder: Path, message: str) -> None:
    """Say what a run of a sweep ended with, on stderr and in its folder: the others go on."""
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr, flush=True)
    if not is_alive(folder):  # else it is another process's run
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / ERROR, message.rstrip() + "\n")


def claim_slot(folder: Path) -> None:
    """Take the lowest number that no other process on this machine has below `folder`; see process.slot."""
    if _held:
        return
    for number in count():
        lock = FileLock(folder / f".slot-{platform.node()}-{number}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        _held.append(lock)
        os.environ[SLOT] = str(number)
        return


def release_slot() -> None:
    while _held:
        lock = _held.pop()
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _in_a_process(request: Request[TrainConfig]) -> None:
    """Run a job of several devices by a command of its own.

    The processes that Lightning starts for it repeat the command line that they find, which here is the sweep's; and
    a process group that one job has left is not there for the next.

    Raises:
        RunError: it failed.
        Stopped: this process was asked to stop; so was the job.
    """
    words = put(shlex.split(request.command)[1:], "hydra.run.dir", request.folder.absolute())
    environment = {name: value for name, value in os.environ.items() if name not in _LEFT_BY_LIGHTNING}
    follow([sys.executable, *words], environment)


def follow(words: list[str], environment: Mapping[str, str]) -> None:
    """Run a command to its end in a process group of its own, and show what it says.

    Raises:
        RunError: it failed.
        Stopped: this process was asked to stop; so was the command.
    """
    options: Any = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True, "env": environment}
    with Interrupts() as interrupts, subprocess.Popen(words, **options) as child:
        assert child.stderr is not None
        errors = []
        try:
            for line in child.stderr:
                sys.stderr.write(line)
                errors += [line.removeprefix("error: ").strip()] if line.startswith("error: ") else []
            code = child.wait()
        except Stopped as stop:
            child.send_signal(signal.SIGTERM)
            child.communicate()
            interrupts.hand_on(stop.number)
            raise
    if code > 128:
        raise Stopped(code - 128)
    if code:
        raise RunError("\n".join(errors) or f"the run ended with exit code {code}.")
