"""SLURM: which job this is, and its return to the queue."""

from __future__ import annotations

import os
import subprocess

from src.config import RunError


def job() -> str | None:
    """The job's number, with that of its task in an array; None outside SLURM."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '0')}"
    return os.environ.get("SLURM_JOB_ID")


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
