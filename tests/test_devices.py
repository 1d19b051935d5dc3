"""Several processes on one network: started by Lightning, torchrun and srun."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from src.model.saved import load
from tests.browser import free_port
from tests.conftest import ROOT, SHORT, Outcome, only_run, results_of, wait_for, write_folder
from tests.crash import compare
from tests.processes import Command, run
from tests.test_runs import TWELVE, folder_run

Door = Callable[..., Outcome]


@pytest.fixture
def options(in_tmp: Path) -> list[str]:
    """Splits of odd sizes: no division among two processes comes out even."""
    folder = write_folder(in_tmp / "images", classes=2, count=43)
    more = ["scheduler=constant", "trainer=ddp", "trainer.max_epochs=2", "dataset.valid_fraction=0.2"]
    return ["dataset=image_folder", f"data_dir={folder}", *SHORT, *more]


def torchrun(*options: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *options, "-m", "src.train"]


def finish(command: list[str], in_tmp: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, cwd=in_tmp, env=inherited, capture_output=True, text=True, timeout=240)


def test_two_processes_score_each_image_once_as_one_does_and_leave_one_run(
    door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(in_tmp))
    somebodys = in_tmp / "images-999999999-mine.pt"
    somebodys.touch()
    shown = [text for text in options if text not in ("report=false", "callbacks=none", "trainer=ddp")]
    process = Command("src.train", *shown, "devices=2", "precision=32-true")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert somebodys.exists(), "what lies in the temporary folder is not the run's to delete"
    run = only_run(in_tmp)
    results = results_of(run)
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/acc"]]
    assert results["val"]["images"] % 2 == 1
    assert results["test"]["images"] == 9
    for split, accuracy in (("test", results["test"]["accuracy"]), ("val", max(float(row["val/acc"]) for row in rows))):
        alone = door("eval", f"run={run}", f"split={split}")
        assert alone.code == 0, alone.err
        ((right, loss),) = re.findall(r"unrounded +accuracy ([\d.]+), loss ([\d.]+)", alone.out)
        assert float(right) == pytest.approx(accuracy, abs=1e-7)
        if split == "test":
            assert float(loss) == pytest.approx(results["test"]["loss"], rel=1e-5)
    drawn = run / "report/mistakes.png"  # each image with its probabilities
    by_two = drawn.read_bytes()
    assert door("report", str(run)).code == 0
    assert drawn.read_bytes() == by_two, "each answer stands with the image that it was given to"
    assert out.count("train loss") == out.count("test accuracy") == 1
    assert "Initializing distributed" not in out + err


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(door: Door, in_tmp: Path, images_folder: Path) -> None:
    words = folder_run(images_folder, *TWELVE, "test=false")
    parts = ["trainer=ddp", "devices=2", "batch_size=4", "trainer.accumulate_grad_batches=4"]  # of four and two images
    assert run("src.train", *words, *parts, "hydra.run.dir=two").returncode == 0
    assert door("train", *words, "batch_size=12", "hydra.run.dir=one").code == 0
    one, two = (load(in_tmp / name / "checkpoints/last.ckpt").state_dict for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_torchrun_leads_to_the_same_run_and_restarts_into_it(options: list[str], in_tmp: Path) -> None:
    """The second process fails once; torchrun starts both again, and they go on."""
    assert run("src.train", *options, "devices=2", "hydra.run.dir=whole").returncode == 0
    (in_tmp / "sitecustomize.py").write_text(FAIL_ONCE)
    command = torchrun("--standalone", "--nproc-per-node=2", "--max-restarts=1")
    # without it, torch 2.14 looks for the processes of the first start at their old addresses
    environment = {"PYTHONPATH": f"{in_tmp}{os.pathsep}{ROOT}", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    done = finish([*command, *options, "devices=2"], in_tmp, **environment)
    assert done.returncode == 0, done.stderr
    assert (in_tmp / "failed").exists()
    restarted = only_run(in_tmp)
    assert restarted.name.startswith("torchrun-")
    assert results_of(restarted)["train"]["interruptions"] == 1
    compare(in_tmp / "whole", restarted)


FAIL_ONCE = """
import os, sys
if os.environ.get("RANK") == "1" and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
    calls = []
    def failing(frame, event, argument):
        if event == "call" and frame.f_code.co_name == "validation_step" and "src" in frame.f_code.co_filename:
            calls.append(event)
            if len(calls) == 2:  # in the second epoch
                open("failed", "w").close()
                os._exit(1)
    sys.setprofile(failing)
"""


def test_two_machines_of_one_process_each(options: list[str], in_tmp: Path) -> None:
    port = free_port()
    shared = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-id=mine", "--rdzv-backend=c10d"]
    command = [*shared, f"--rdzv-endpoint=127.0.0.1:{port}", "-m", "src.train", *options]
    command += ["devices=1", "trainer.num_nodes=2"]
    nodes = [Command("torch.distributed.run", *command) for _ in range(2)]
    said = [node.communicate() for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    run = only_run(in_tmp)
    assert run.name.startswith("torchrun-mine_")
    assert "".join(out for out, _ in said).count("test accuracy") == 1
    assert results_of(run)["test"]["images"] == 9


def test_tasks_of_srun_find_one_folder_and_a_requeued_job_the_same(options: list[str], in_tmp: Path) -> None:
    names = {"JOB_ID": "77", "NTASKS": "2", "JOB_NAME": "train", "NODEID": "0", "JOB_NUM_NODES": "1", "NNODES": "1"}
    common = {f"SLURM_{name}": value for name, value in names.items()}
    common |= {
        "SLURM_STEP_ID": "0",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NODELIST": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    for _ in range(2):
        tasks = []
        for rank in range(2):
            environment: dict[str, Any] = common | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
            tasks.append(Command("src.train", *options, "devices=2", **environment))
        said = [task.communicate() for task in tasks]
        assert [task.returncode for task in tasks] == [0, 0], said
        assert only_run(in_tmp).name.startswith("job77_")
    assert "This run is finished" in said[0][0]
    assert said[1][0] == ""


# each 5 s Lightning looks for a process that died, and kills the others, whether they have said so yet or not
PATIENT = """
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from src.train import main

_ChildProcessObserver.__init__.__defaults__ = (600,)
main()
"""


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_with_a_sentence(options: list[str], in_tmp: Path, victim: int) -> None:
    program = in_tmp / "patient.py"
    program.write_text(PATIENT)
    process = Command(program, *options, "devices=2", "trainer.max_epochs=5000", "hydra.run.dir=r")
    table = in_tmp / "r/metrics.csv"
    try:
        wait_for(lambda: table.exists() and table.read_text().count("\n") > 8, process)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        numbers = [process.pid, int(children[0])]
        os.kill(numbers[victim], signal.SIGKILL)
        killed = time.monotonic()
        other = numbers[1 - victim]
        while Path(f"/proc/{other}").exists() and process.poll() is None:
            assert time.monotonic() < killed + 30
            time.sleep(0.05)
        _, err = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert time.monotonic() < killed + 30
    assert process.returncode == (1 if victim else -signal.SIGKILL)
    assert "another process of this run died" in err
    assert "resume=" in err


@pytest.mark.parametrize(
    ("words", "job", "sentence"),
    [
        (["devices=1"], "a", "devices=1 on trainer.num_nodes=1: 2 processes were started"),
        (["-m", "seed=1,2"], "a", "Start it without srun or torchrun."),
        (["devices=2"], "none", "torchrun: its processes share a folder."),
    ],
)
def test_wrong_request(
    door: Door,
    options: list[str],
    in_tmp: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    job: str,
    sentence: str,
) -> None:
    """In the environment that torchrun gives its processes, without --standalone a job of no name."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "TORCHELASTIC_RUN_ID": job}.items():
        monkeypatch.setenv(name, value)
    flags = [word for word in words if word.startswith("-")]
    outcome = door("train", *flags, *options, *words[len(flags) :])
    assert outcome.code == 2
    assert sentence in outcome.err
    assert not list(in_tmp.glob("logs/*"))
