"""What has started this process and its like: SLURM, torchrun, Lightning, or nobody; and SLURM's queue."""

from __future__ import annotations

import hashlib
import os
import subprocess

from src.config.errors import RunError, UserError
from src.config.schema import TrainConfig

SLOT = "SLOT_OF_JOB"  # in the environment: which of the jobs at work on this machine this process does


def slot() -> int | None:
    """This job's number among those that run on this machine at one time; None if it is alone."""
    return int(os.environ[SLOT]) if SLOT in os.environ else None


def job() -> str | None:
    """The SLURM job's number, with that of its task in an array; None outside SLURM."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '0')}"
    return os.environ.get("SLURM_JOB_ID")


def launch() -> str | None:
    """A name that all processes of one launch share, and that it keeps when it is started again; None if there is none.

    A job of SLURM returns from the queue under its number, and torchrun starts its processes anew after a failure.
    """
    if (number := job()) is not None:
        return f"job{number}"
    run = os.environ.get("TORCHELASTIC_RUN_ID")
    if run is None:
        return None
    short = run if len(run) <= 20 else f"{run[:12]}-{hashlib.md5(run.encode()).hexdigest()[:6]}"
    return f"torchrun-{short}"


def unnamed() -> bool:
    """Whether torchrun has started this process without a name of its own."""
    return launch() == "torchrun-none"


def world_size() -> int | None:
    """How many processes SLURM's srun or torchrun has started for this run; None if they have not."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ["SLURM_NTASKS"]) if _is_srun() else None


def rank() -> int:
    """This process's number among those of its run, 0 for the one that leads."""
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    if _is_srun():
        return int(os.environ["SLURM_PROCID"])
    return int(os.environ.get("LOCAL_RANK", "0")) or int(os.environ.get("NODE_RANK", "0"))


def _is_srun() -> bool:
    """As Lightning sees it: a shell that SLURM has opened starts no processes of a run."""
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    return "SLURM_NTASKS" in os.environ and "SLURM_PROCID" in os.environ and not interactive


def check_processes(config: TrainConfig) -> None:
    """Raises UserError if another number of processes was started than the config asks for."""
    started, nodes = world_size(), config.trainer.num_nodes or 1
    if started is not None and started != config.devices * nodes:
        raise UserError(
            f"devices={config.devices} on trainer.num_nodes={nodes}: {started} processes were started for this run. "
            "devices is their number on each machine."
        )


def requeue(received: int | None) -> None:
    """Put this job back into SLURM's queue under its own number, if Lightning's environment takes the signal for that.

    Lightning's own handler does so in the middle of a step, with a checkpoint of that instant; this is called when
    the step has ended and its checkpoint is on the disk.

    Raises:
        RunError: SLURM refuses; the checkpoint stands.
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
