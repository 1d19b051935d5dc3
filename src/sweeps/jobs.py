"""One run of a sweep, in whichever process a launcher has it: its place, its output, its errors."""

from __future__ import annotations

import os
import platform
import shlex
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from src.config import compose
from src.config import folder as runs
from src.config import process as cluster
from src.config.check import check
from src.config.errors import RunError, Stopped, UserError
from src.config.interrupts import Interrupts
from src.config.schema import TrainConfig
from src.sweeps import grid as sweeps

Task = Callable[[TrainConfig, Path], float | None]
OUTPUT = "output.txt"
# by a job of one device with trainer=ddp; the next one's processes would take it for their own
_LEFT_BY_LIGHTNING = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_held: list[FileLock] = []  # for as long as this process lives


def run(command: str, total: int, config: DictConfig, task: Task) -> float | None:
    """Do one of `total` jobs; what goes wrong is said and written into its folder, and the next one has its turn.

    Raises:
        SystemExit: it was asked to stop, and the sweep with it.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    title = f"job {hydra.job.num + 1} of {total}"
    leads = not runs.is_child()
    if leads:
        (folder / runs.ERROR).unlink(missing_ok=True)
        print(f"{title}: {command}", flush=True)
    try:
        checked = check(config, TrainConfig)
        if checked.devices > 1 and cluster.world_size() is None:
            _in_a_process(checked, folder)
            score = None
        elif _is_parallel():
            claim_slot(Path(hydra.sweep.dir))
            with (folder / OUTPUT).open("a", encoding="utf-8") as output, redirect_stdout(output):
                score = task(checked, folder)
        else:
            score = task(checked, folder)
    except Stopped as stop:
        sweep = shlex.quote(str(hydra.sweep.dir))
        print(f"{Stopped(stop.number)} The sweep goes on with its command and hydra.sweep.dir={sweep}", file=sys.stderr)
        raise SystemExit(0 if runs.is_child() else stop.code) from stop
    except (UserError, RunError) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exc()
        if leads:
            sweeps.fail(folder, str(error))
        return None
    except Exception as error:  # a bug is no reason to lose the other runs; its traceback is needed
        traceback.print_exc()
        if leads:
            sweeps.fail(folder, f"{type(error).__name__}: {error}")
        return None
    if leads and _is_parallel():
        print(f"{title} is finished: {folder}", flush=True)
    return score


def _is_parallel() -> bool:
    """Whether other jobs of the sweep run beside this one and write to the same terminal."""
    return "JoblibLauncher" in str(HydraConfig.get().launcher.get("_target_"))


def claim_slot(folder: Path) -> None:
    """Take the lowest number that no other process on this machine has below `folder`; see cluster.slot."""
    if _held:
        return
    for number in count():
        lock = FileLock(folder / f".slot-{platform.node()}-{number}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        _held.append(lock)
        os.environ[cluster.SLOT] = str(number)
        return


def release_slot() -> None:
    while _held:
        lock = _held.pop()
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _in_a_process(config: TrainConfig, folder: Path) -> None:
    """Run a job of several devices by a command of its own.

    The processes that Lightning starts for it repeat the command line that they find, which here is the sweep's; and
    a process group that one job has left is not there for the next.

    Raises:
        RunError: it failed.
        Stopped: this process was asked to stop; so was the job.
    """
    hydra = HydraConfig.get()
    sources = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    words = [sys.executable, "-m", "src.train", *(word for path in sources for word in ("--config-dir", path))]
    words += compose.put(list(hydra.overrides.task), "hydra.run.dir", folder.absolute())
    follow(words, {name: value for name, value in os.environ.items() if name not in _LEFT_BY_LIGHTNING})


def follow(words: list[str], environment: Mapping[str, str]) -> None:
    """Run a command to its end in a process group of its own, and show what it says.

    Raises:
        RunError: it failed.
        Stopped: this process was asked to stop; so was the command.
    """
    options: Any = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True, "env": environment}
    with Interrupts() as interrupts, subprocess.Popen(words, **options) as child:
        assert child.stderr is not None
        said = []
        try:
            for line in child.stderr:
                sys.stderr.write(line)
                said += [line.removeprefix("error: ").strip()] if line.startswith("error: ") else []
            code = child.wait()
        except Stopped as stop:
            child.send_signal(signal.SIGTERM)
            child.communicate()
            interrupts.hand_on(stop.number)
            raise
    if code > 128:
        raise Stopped(code - 128)
    if code:
        raise RunError("\n".join(said) or f"the run ended with exit code {code}.")
