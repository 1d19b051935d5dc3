"""The runs of a sweep, one by one or many at a time: their processes, their output, their errors."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from copy import deepcopy
from functools import cache
from itertools import count
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.types import HydraContext
from omegaconf import DictConfig

from src.config.cli import Request
from src.config.errors import RunError, Stopped, UserError
from src.config.files import write_text
from src.config.folder import CONFIG, ERROR, is_alive, is_finished
from src.config.groups import arguments, command
from src.config.paths import option
from src.config.process import LIGHTNING, SLOT, Interrupts, is_child, world_size
from src.config.schema import TrainConfig
from src.config.streams import steady
from src.results.outcome import Outcome, duration, in_words

Task = Callable[[Request[TrainConfig]], float | None]


class Job(NamedTuple):
    """A run of a sweep, the whole config that it was composed to, and its number with what is varied."""

    request: Request[TrainConfig]
    config: DictConfig
    title: str


def start(jobs: Sequence[Job], task: Task) -> None:
    """Have Hydra's launcher do the jobs, each by `task`; raises SystemExit if one was asked to stop."""
    # each is composed already: its number stands for its overrides; it writes into its config, and may be started again
    loader: Any = SimpleNamespace(load_sweep_config=lambda _, number: deepcopy(jobs[int(number[0])].config))
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=HydraContext(config_loader=loader, callbacks=Callback()),  # type: ignore[arg-type]
        task_function=lambda _: _run(jobs, task),
        config=jobs[0].config,
    )
    for ended in launcher.launch([[str(number)] for number in range(len(jobs))], initial_job_idx=0):
        _ = ended.return_value  # raises what a launcher's process has raised


def is_parallel(hydra: Any) -> bool:
    """Whether several jobs of a sweep run at a time and write to the same terminal."""
    return "JoblibLauncher" in str(hydra.launcher.get("_target_"))


def _run(jobs: Sequence[Job], task: Task) -> None:
    """Do the job that Hydra has made ready, in a line when it starts and one when it ends; what it shows goes into its
    folder. One that fails says so, here and there, and stops no other."""
    steady()  # joblib's processes begin here
    hydra: Any = HydraConfig.get()
    (request, _, title), leads, start = jobs[hydra.job.num], not is_child(), monotonic()
    folder, number = request.folder, title.partition(":")[0]
    if leads:
        (folder / ERROR).unlink(missing_ok=True)
        before = ", finished before" if is_finished(folder) else ", goes on" if (folder / CONFIG).exists() else ""
        print(f"{title}{before}", flush=True)
    try:
        if is_parallel(hydra):
            claim_slot(folder.parent)
        with printing_to_file(folder):
            if request.config.devices > 1 and world_size() is None:
                # a command of its own: the processes that Lightning starts for it repeat the command line that they
                # find, which here is the sweep's, and a process group that one job has left is not there for the next
                words = arguments("train", *request.named, option("hydra.run.dir", folder))
                # a job of one device with trainer=ddp leaves them; the next one's would take them for their own
                environment = {name: value for name, value in os.environ.items() if name not in LIGHTNING}
                follow([sys.executable, *words], environment)
            else:
                task(request)
        if leads:
            monitor = Outcome.read(folder).monitor
            print(f"{number}: {in_words(monitor.name, monitor.value)}, {duration(monotonic() - start)}", flush=True)
    except Stopped as stop:
        again = command("train", "-m", option("sweep", Path(hydra.sweep.dir)))  # relative, if the user wrote it so
        print(f"{Stopped(stop.number)} To continue the sweep:\n{again}", file=sys.stderr)
        raise SystemExit(0 if is_child() else stop.code) from stop
    except Exception as error:  # a bug is no reason to lose the other runs
        message = tell(error, f"{number}: ")
        if leads and not is_alive(folder):  # else it is another process's run
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / ERROR, f"{message}\n")


@contextmanager
def printing_to_file(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.txt").open("a", encoding="utf-8") as output, redirect_stdout(output):
        yield


def tell(error: Exception, title: str = "") -> str:
    """Say on stderr what a run ended with, a bug with its traceback."""
    known = isinstance(error, UserError | RunError)
    if not known or os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    message = str(error).rstrip() if known else f"{type(error).__name__}: {error}"
    for line in message.splitlines():
        print(f"error: {title}{line}", file=sys.stderr, flush=True)
    return message


@cache
def claim_slot(folder: Path) -> FileLock:
    """Take, for process.slot, the lowest number that no other process on this machine has below `folder`."""
    for number in count():
        lock = FileLock(folder / f".slot-{platform.node()}-{number}.lock")
        with suppress(Timeout):
            lock.acquire(timeout=0)
            break
    os.environ[SLOT] = str(number)
    return lock


def follow(words: list[str], environment: Mapping[str, str]) -> None:
    """Run a command in a process group of its own; raises RunError if it failed, Stopped if both were asked to stop."""
    options: Any = {"stdout": sys.stdout, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with Interrupts() as interrupts, subprocess.Popen(words, env=environment, **options) as child:
        assert child.stderr is not None
        errors = []
        try:
            for line in child.stderr:
                if line.startswith("error: "):  # which the caller tells
                    errors.append(line.removeprefix("error: ").strip())
                else:
                    sys.stderr.write(line)
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
