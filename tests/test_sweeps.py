"""Sweeps: folders, failures, going on, the table, several jobs at a time."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import FileLock
from omegaconf import OmegaConf
from torch import Tensor, nn

from src.config import process as cluster
from src.config.cli import Arguments, Request
from src.config.compose import configure
from src.config.errors import RunError, Stopped, UserError
from src.config.folder import LOCK
from src.config.schema import TrainConfig
from src.model.hardware import pick_hardware
from src.model.network import try_network
from src.results.outcome import duration
from src.results.table import Table
from src.sweeps import grid, jobs
from tests.conftest import ROOT, SHORT, Once, Outcome, results_of, train, wait_for, write_folder, write_results
from tests.crash import compare
from tests.processes import Command, killed_after_a_validation, run
from tests.test_resume import at_call, send

Door = Callable[..., Outcome]


OPTIONS = ["dataset=image_folder", "data_dir=images", *SHORT, "scheduler=constant"]


@pytest.fixture
def options(images_folder: Path, in_tmp: Path) -> list[str]:
    return OPTIONS


@pytest.fixture(scope="session")
def swept(once: Once) -> Path:
    """The folder of a finished sweep over two seeds."""

    def make() -> None:
        write_folder(Path("images"), classes=2, count=30)
        assert train("-m", *OPTIONS, "seed=1,2", "hydra.sweep.dir=s") == 0

    return once("sweep", make) / "s"


@pytest.fixture
def sweep(swept: Path, options: list[str], in_tmp: Path) -> Path:
    return shutil.copytree(swept, in_tmp / "s")


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class TestGrid:
    def test_a_failed_job_stops_no_other_and_is_in_the_table(
        self, door: Door, options: list[str], in_tmp: Path
    ) -> None:
        outcome = door("train", "-m", *options, "optimizer.lr=1e-3,1e30", "seed=1,2", "hydra.sweep.dir=sweep")
        assert outcome.code == 1, "one of them failed"
        sweep = in_tmp / "sweep"
        rows = {row["run"]: row for row in table(sweep)}
        good = [rows[f"optimizer.lr-0.001_seed-{seed}"] for seed in (1, 2)]
        bad = [rows[f"optimizer.lr-1e30_seed-{seed}"] for seed in (1, 2)]
        assert len(rows) == 4
        assert {row["state"] for row in good} == {"finished"}
        assert {row["state"] for row in bad} == {"failed"}
        assert all("the loss is NaN or infinite in step" in row["error"] for row in bad)
        assert outcome.err.count("the loss is NaN or infinite") == 2
        assert "error: job 3 of 4: the loss is NaN or infinite" in outcome.err
        lines = [line for line in outcome.out.splitlines() if line.startswith("job ")]
        assert lines[0] == "job 1 of 4: optimizer.lr=0.001 seed=1"
        assert re.fullmatch(r"job 1 of 4: validation accuracy \d+\.\d\d %, \d+ s", lines[1])
        assert len(lines) == 2 * 2 + 2, "two of each run, and a failed one has its error"
        assert "output shape" not in outcome.out
        assert "output shape" in (sweep / good[0]["run"] / "output.txt").read_text()
        for row in good:
            assert float(row["val_accuracy"]) == results_of(sweep / row["run"])["val"]["accuracy"]
        scores = [100 * float(row["val_accuracy"]) for row in good]
        cell = f"{fmean(scores):.2f} ± {stdev(scores):.2f} %"
        summary = (sweep / "summary.md").read_text()
        assert re.search(rf"\| 0.001 \| 2 \| {cell} \| ", summary), summary
        assert cell in outcome.out
        assert f"train the best setting:\n  {good[0]['command'].removesuffix(' seed=1')}\n" in outcome.out
        for picture in ("curves.png", "values.png"):
            assert (sweep / picture).read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize("launcher", ["basic", "joblib"])
    def test_a_network_that_takes_no_images_of_a_jobs_size_is_refused_before_the_first_job(
        self, door: Door, options: list[str], in_tmp: Path, launcher: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried: list[int | None] = []

        def counted(config: TrainConfig) -> None:
            tried.append(config.dataset.image_size)
            try_network(config)

        monkeypatch.setattr("src.model.network.try_network", counted)
        words = ["dataset.image_size=227,32", "seed=1,2", f"hydra/launcher={launcher}", "hydra.sweep.dir=s"]
        outcome = door("train", "-m", *options, *words)
        assert outcome.code == 2
        assert outcome.out == ""
        assert outcome.err.startswith("error: dataset.image_size=32: with model.padding=2, AlexNet takes images of")
        assert outcome.err.endswith("(job 3 of 4: dataset.image_size=32 seed=1)\n")
        assert tried == [227, 32], "jobs of one network and size once"
        assert not (in_tmp / "s").exists()

    def test_a_wrong_job_is_named(self, door: Door, options: list[str], in_tmp: Path) -> None:
        outcome = door("train", "-m", *options, "optimizer=adamw,sgd", "optimizer.momentum=0.9", "hydra.sweep.dir=s")
        assert outcome.code == 2
        assert outcome.err.endswith("(job 1 of 2: optimizer=adamw)\n"), outcome.err
        assert not (in_tmp / "s").exists()

    def test_names_in_square_brackets_are_shown(self, door: Door, options: list[str], in_tmp: Path) -> None:
        for name in ("a[bold]", "b[red]"):
            write_folder(in_tmp / name, classes=2, count=10)
        outcome = door("train", "-m", options[0], *SHORT, "data_dir='a[bold]','b[red]'", "hydra.sweep.dir='s[dim]'")
        assert outcome.code == 0, outcome.err
        again = door("report", "s[dim]")
        for shown in (outcome.out, again.out):
            assert re.search(r"a\[bold\]'? +1 ", shown), shown
            assert re.search(r"b\[red\]'? +1 ", shown), shown
            assert "table and pictures: 's[dim]'" in shown

    def test_a_narrow_terminal_cuts_words_and_no_numbers(
        self, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        keys = ("optimizer.lr", "optimizer.weight_decay", "model.dropout", "loss.label_smoothing")
        overrides = {}
        for name in ("a", "b"):
            overrides[name] = [f"data_dir={'a/long/way/' * 9}{name}", *(f"{key}=0.0{ord(name)}" for key in keys)]
            (in_tmp / name).mkdir()
            (in_tmp / name / "pruned.txt").touch()
            (in_tmp / name / "metrics.csv").write_text("epoch,val/acc\n0,0.5\n")
            (in_tmp / name / "config.yaml").write_text("monitor: val/acc\nmonitor_mode: max\n")
        monkeypatch.setenv("TERM", "dumb")  # 80 columns, no colours
        for terminal in (True, False):
            monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
            Table(in_tmp, overrides, "c", search=False).show()
            rows = [line for line in capsys.readouterr().out.splitlines() if "0.098" in line or "0.097" in line]
            assert [len(re.findall(r" 0\.09[78]\b", row)) for row in rows] == [4, 4], rows
            assert all(row.endswith(" 50.00 %  pruned") for row in rows), rows
            assert all(len(row) <= 80 for row in rows) == terminal, "a pipe gets whole words"
            assert all(("a/long/way/" * 9 in row) != terminal for row in rows)

    @pytest.mark.parametrize(("mode", "best", "first"), [("max", 0.75, "b"), ("min", 0.25, "a")])
    def test_a_pruned_trial_is_shown_by_its_best_validation(
        self, in_tmp: Path, mode: str, best: float, first: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name, other in (("a", 0.25), ("b", 0.75)):
            (in_tmp / name).mkdir()
            (in_tmp / name / "pruned.txt").touch()
            (in_tmp / name / "metrics.csv").write_text(f"epoch,val/x\n0,0.5\n1,\n1,{other}\n2,0.5\n")
            (in_tmp / name / "config.yaml").write_text(f"monitor: val/x\nmonitor_mode: {mode}\n")
        table = Table(in_tmp, {"a": ["seed=1"], "b": ["seed=2"]}, "c", search=True)
        assert table.runs.set_index("run").val_x[first] == best
        assert table.runs.epochs.tolist() == [3, 3]
        table.show()
        rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith(("a ", "b "))]
        assert rows[0] == first, "the best stands first"

    def test_best_command_runs_as_it_stands(self, door: Door, options: list[str], in_tmp: Path) -> None:
        outcome = door("train", "-m", *options, "optimizer=adamw,sgd", "hydra.sweep.dir=sweep")
        assert outcome.code == 0, outcome.err
        line = outcome.out.partition("train the best setting:\n")[2].partition("\n")[0]
        again = door("train", *shlex.split(line)[3:], "hydra.run.dir=again")
        assert again.code == 0, again.err
        best = max(table(in_tmp / "sweep"), key=lambda row: float(row["val_accuracy"]))
        assert results_of(in_tmp / "again")["test"] == results_of(in_tmp / "sweep" / best["run"])["test"]

    def test_killed_it_goes_on_to_the_same_weights_and_repeats_nothing(
        self, door: Door, options: list[str], in_tmp: Path
    ) -> None:
        options = [*options, "trainer.max_epochs=2", "callbacks.checkpoint_steps=2", "seed=1,2,3"]
        killed = in_tmp / "killed"
        second = killed / "seed-2"
        process = killed_after_a_validation(second, "src.train", "-m", *options, f"hydra.sweep.dir={killed}")
        assert process.returncode == -signal.SIGKILL, process.stderr
        assert not (second / "results.json").exists()
        first = (killed / "seed-1/results.json").stat().st_mtime_ns
        states = [row.split(",")[1] for row in self._report(door, killed, in_tmp)[1:]]
        assert states == ["finished", "interrupted", "waiting"]
        outcome = door("train", "-m", *options, f"hydra.sweep.dir={killed}")
        assert outcome.code == 0, outcome.err
        starts = [line for line in outcome.out.splitlines() if re.match(r"job \d of 3: seed", line)]
        endings = (", finished before", ", goes on", "")
        assert starts == [f"job {seed} of 3: seed={seed}{end}" for seed, end in zip((1, 2, 3), endings, strict=True)]
        assert "goes on at" in (second / "output.txt").read_text()
        assert (killed / "seed-1/results.json").stat().st_mtime_ns == first
        assert door("train", "-m", *options, "hydra.sweep.dir=whole").code == 0
        for seed in (1, 2, 3):
            compare(in_tmp / f"whole/seed-{seed}", killed / f"seed-{seed}")

    def _report(self, door: Door, folder: Path, in_tmp: Path) -> list[str]:
        outcome = door("report", str(folder))
        assert outcome.code == 0, outcome.err
        assert "3 runs: 1 finished, 1 interrupted, 1 waiting" in outcome.out
        return (folder / "summary.csv").read_text().splitlines()

    def test_last_names_the_newest_and_more_values_are_said(self, door: Door, options: list[str], in_tmp: Path) -> None:
        assert door("train", "-m", *options, "seed=1,2").code == 0
        sweep = next((in_tmp / "logs/sweep").iterdir())
        alone = door("train", "-m", "sweep=last")
        assert alone.code == 0, alone.err
        assert alone.out.count(", finished before") == 2, "alone it stands for the whole command"
        grown = door("train", "-m", *options, "seed=1,2,3", "sweep=last", "trainer.max_epochs=1")
        assert grown.code == 0, grown.err
        assert "This sweep was begun with seed=1,2, and goes on with seed=1,2,3." in grown.out
        assert [row["state"] for row in table(sweep)] == ["finished"] * 3
        assert len(list((in_tmp / "logs/sweep").iterdir())) == 1

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (
                ["seed=1,2", "model.dropout=0.1"],
                "was begun with no model.dropout, and this command says model.dropout=0.1",
            ),
            (["seed=4,5"], "was begun with seed=1,2, and this command says seed=4,5"),
            (
                ["seed=1,2", "scheduler=cosine"],
                "was begun with scheduler=constant, and this command says scheduler=cosine",
            ),
        ],
    )
    def test_another_sweep_is_refused(
        self, door: Door, options: list[str], in_tmp: Path, change: list[str], sentence: str
    ) -> None:
        (in_tmp / "s").mkdir()
        words = "\n".join(f"- {word}" for word in [*options, "seed=1,2"])
        (in_tmp / "s/sweep.yaml").write_text(f"command: c\noverrides:\n{words}\nruns: {{}}\n")
        outcome = door("train", "-m", *options, *change, "hydra.sweep.dir=s")
        assert outcome.code == 2
        assert sentence in outcome.err

    @pytest.mark.parametrize("content", ["step,train/gradient_norm\n9,0.5\n", "step,epoch,val/acc\n9,0,what\n", ""])
    def test_a_run_within_its_first_epoch_or_with_a_damaged_table_spoils_no_other(
        self, door: Door, sweep: Path, content: str
    ) -> None:
        (sweep / "seed-1/results.json").unlink()
        (sweep / "seed-1/metrics.csv").write_text(content)
        (sweep / "summary.md").unlink()
        outcome = door("report", "s")
        assert outcome.code == 0, outcome.err
        assert [row["state"] for row in table(sweep)] == ["interrupted", "finished"]
        assert (sweep / "summary.md").exists()

    def test_a_search_is_no_sweep(self, door: Door, options: list[str], in_tmp: Path) -> None:
        (in_tmp / "s").mkdir()
        begun = "command: c\noverrides: [seed=1]\nruns: {trial-000: [seed=1]}\nsearch: true\n"
        (in_tmp / "s/sweep.yaml").write_text(begun)
        for words in (["sweep=s"], [*options, "seed=1,2", "hydra.sweep.dir=s"]):
            outcome = door("train", "-m", *words)
            assert outcome.code == 2
            assert "s holds a search" in outcome.err
        assert (in_tmp / "s/sweep.yaml").read_text() == begun

    def test_one_process_at_a_time(self, door: Door, options: list[str], in_tmp: Path) -> None:
        (in_tmp / "s").mkdir()
        with FileLock(in_tmp / "s" / LOCK):
            outcome = door("train", "-m", *options, "seed=1,2", "hydra.sweep.dir=s")
        assert outcome.code == 2
        assert "another process works on this sweep" in outcome.err

    def test_a_run_that_is_finished_by_hand_is_failed_no_more(self, door: Door, sweep: Path, in_tmp: Path) -> None:
        (in_tmp / "s/seed-1/results.json").write_text("{}")
        assert door("report", "s").code == 0
        assert "results.json can't be read" in table(in_tmp / "s")[0]["error"]
        (in_tmp / "s/seed-1/results.json").unlink()
        (in_tmp / "s/seed-1/error.txt").write_text("the disk is full")
        assert door("report", "s").code == 0
        assert [row["state"] for row in table(in_tmp / "s")] == ["failed", "finished"]
        assert door("train", "resume=s/seed-1").code == 0
        assert door("report", "s").code == 0
        assert [row["state"] for row in table(in_tmp / "s")] == ["finished", "finished"]

    def test_paths_with_commas_and_quotes_and_another_config_dir(
        self, door: Door, options: list[str], in_tmp: Path
    ) -> None:
        (in_tmp / "mine/optimizer").mkdir(parents=True)
        (in_tmp / "mine/optimizer/own.yaml").write_text("name: own\n_target_: torch.optim.SGD\nlr: 0.01\n")
        place = 'hydra.sweep.dir="it\'s, mine"'
        outcome = door("train", "-m", "--config-dir", "mine", *options, "optimizer=own", "seed=1,2", place)
        assert outcome.code == 0, outcome.err
        assert {row["state"] for row in table(in_tmp / "it's, mine")} == {"finished"}
        for more in ([], ["--config-dir", "mine"]):
            again = door("train", "-m", "sweep=it's, mine", *more)
            assert again.code == 0, again.err
            assert again.out.count(", finished before") == 2

    def test_folders_of_requests_are_absolute(self, options: list[str], in_tmp: Path) -> None:
        folders: list[Path] = []
        words = (*options, "seed=1,2", "hydra.sweep.dir=s")
        assert not grid.run(Arguments("train", words), lambda request: folders.append(request.folder))
        assert folders == [in_tmp / "s/seed-1", in_tmp / "s/seed-2"]

    @pytest.mark.parametrize("folder", ["nowhere", "."])
    def test_report_of_something_else(self, door: Door, in_tmp: Path, folder: str) -> None:
        outcome = door("report", folder)
        assert outcome.code == 2
        assert folder in outcome.err

    def test_a_damaged_definition_is_said(self, door: Door, in_tmp: Path) -> None:
        (in_tmp / "sweep.yaml").write_text("runs: 3")
        assert "sweep.yaml can't be read" in door("report", ".").err

    @pytest.mark.slow
    @pytest.mark.skipif(
        not Path("/proc/self/status").exists(), reason="reads the memory of a process from Linux's /proc"
    )
    def test_memory_does_not_grow_over_twenty_jobs(self, options: list[str], in_tmp: Path) -> None:
        seeds = "seed=range(1,21)"
        process = subprocess.Popen(
            [sys.executable, "-m", "src.train", "-m", *options, seeds, "trainer.limit_train_batches=2"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        memory = []
        assert process.stdout is not None
        for line in process.stdout:
            if re.match(r"job \d+ of 20: seed", line):
                status = Path(f"/proc/{process.pid}/status").read_text()
                memory.append(int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024)
        assert process.wait() == 0
        print(f"MiB at the start of each job: {[round(one) for one in memory]}")
        assert len(memory) == 20
        assert memory[19] - memory[4] < 40, memory


class TestAtATime:
    def test_joblib_divides_the_threads_and_keeps_each_output_apart(self, options: list[str], in_tmp: Path) -> None:
        more = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=1,2", "optimizer.lr=1e-3,1e30"]
        environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
        done = subprocess.run(  # joblib's processes are not ended in one that is forked
            [sys.executable, "-m", "src.train", "-m", *options, *more, "hydra.sweep.dir=sweep"],
            env=environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 1, done.stderr
        rows = table(in_tmp / "sweep")
        assert sorted(row["state"] for row in rows) == ["failed"] * 2 + ["finished"] * 2
        assert len(re.findall(r"^job \d of 4: validation accuracy", done.stdout, re.MULTILINE)) == 2
        assert "layer" not in done.stdout
        for row in rows:
            assert "output shape" in (in_tmp / "sweep" / row["run"] / "output.txt").read_text()
            if row["state"] == "finished":
                threads = results_of(in_tmp / "sweep" / row["run"])["machine"]["threads"]
                assert threads == max((os.cpu_count() or 1) // 2, 1)

    def test_each_job_has_a_gpu_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
        found = [pick_hardware("auto", "auto", slot).devices(1) for slot in range(5)]
        assert found == [[0], [1], [2], [3], [0]]
        assert pick_hardware("auto", "auto", None).devices(1) == 1
        assert pick_hardware("auto", "auto", 2).devices(2) == 2, "a job of two is not held to one"

    def test_slots_are_taken_once_until_a_process_ends(self, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(cluster.SLOT, "")
        program = "import sys; from pathlib import Path; from src.config.process import slot; "
        program += "from src.sweeps import jobs; jobs.claim_slot(Path('.')); "
        program += "print(slot(), flush=True); sys.stdin.read()"
        others = []
        for expected in ("0", "1"):
            other = subprocess.Popen(
                [sys.executable, "-c", program],
                cwd=in_tmp,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            others.append(other)
            assert other.stdout is not None
            assert other.stdout.readline().strip() == expected
        others[0].kill()
        others[0].wait()
        jobs.claim_slot(in_tmp).release()
        assert cluster.slot() == 0, "that of the process that was killed"
        others[1].communicate("")


class TestSubmitit:
    def test_a_job_on_this_machine_ends_with_its_results(self, options: list[str], in_tmp: Path) -> None:
        words = ["hydra/launcher=submitit_local", "seed=7", "trainer.max_steps=1", "hydra.sweep.dir=sweep"]
        done = run("src.train", "-m", *options, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert [results_of(path.parent)["seed"] for path in in_tmp.glob("sweep/*/results.json")] == [7]
        assert [row["state"] for row in table(in_tmp / "sweep")] == ["finished"]

    @pytest.mark.slow
    def test_local_jobs_run_and_preempted_ones_go_on_exactly(
        self, door: Door, options: list[str], in_tmp: Path
    ) -> None:
        options = [*options, "trainer.max_epochs=30", "seed=1,2"]
        sweep = in_tmp / "sweep"
        process = Command("src.train", "-m", *options, "hydra/launcher=submitit_local", f"hydra.sweep.dir={sweep}")
        table = sweep / "seed-1/metrics.csv"
        wait_for(lambda: table.exists() and "val" in table.read_text(), process)
        os.kill(_worker(str(sweep), "sweep/seed-1/"), signal.SIGUSR2)  # as SLURM does before it takes the machine away
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, out + err
        logs = "".join(path.read_text() for path in sweep.glob(".submitit/*/*_log.*"))
        assert "Requeued job" in logs
        assert results_of(sweep / "seed-1")["train"]["interruptions"] == 1
        assert door("train", "-m", *options, "hydra.sweep.dir=whole").code == 0
        for seed in (1, 2):
            compare(in_tmp / f"whole/seed-{seed}", sweep / f"seed-{seed}")

    @pytest.mark.slow
    def test_slurm_is_asked_for_what_the_run_needs_and_its_requeued_job_goes_on(
        self, door: Door, options: list[str], in_tmp: Path
    ) -> None:
        """With a SLURM of shell scripts: sbatch starts the job, srun its command, scontrol starts it once more."""
        tools = in_tmp / "tools"
        tools.mkdir()
        for name, text in SLURM.items():
            (tools / name).write_text(text.replace("TOOLS", str(tools)))
            (tools / name).chmod(0o755)
        options = [*options, "trainer.max_epochs=30", "seed=1,2"]
        sweep = in_tmp / "sweep"
        environment: dict[str, Any] = {"PATH": f"{tools}:{os.environ['PATH']}"}
        words = [
            "-m",
            *options,
            "hydra/launcher=submitit_slurm",
            "hydra.launcher.partition=p",
            f"hydra.sweep.dir={sweep}",
        ]
        process = Command("src.train", *words, **environment)
        table = sweep / "seed-1/metrics.csv"
        wait_for(lambda: table.exists() and "val" in table.read_text(), process)
        os.kill(_worker(str(sweep), "SLURM_ARRAY_TASK_ID=0"), signal.SIGUSR2)
        out, err = process.communicate(timeout=200)
        logs = "".join(path.read_text() for path in [*sweep.glob(".submitit/*/*_log.*"), tools / "log"])
        assert process.returncode == 0, out + err + logs
        script = (tools / "job.sh").read_text()
        for line in (
            "--partition=p",
            "--requeue",
            "--nodes=1",
            "--ntasks-per-node=1",
            "--gpus-per-node=1",
            "--signal=",
        ):
            assert f"#SBATCH {line}" in script, script
        assert (tools / "requeued").read_text() == "requeue 900_0\n"
        assert results_of(sweep / "seed-1")["train"]["interruptions"] == 1
        assert door("train", "-m", *options, "hydra.sweep.dir=whole").code == 0
        for seed in (1, 2):
            compare(in_tmp / f"whole/seed-{seed}", sweep / f"seed-{seed}")


SLURM = {
    "sbatch": """#!/bin/bash
cp "${@: -1}" TOOLS/job.sh
for task in 0 1; do
  SLURM_ARRAY_JOB_ID=900 SLURM_ARRAY_TASK_ID=$task SLURM_JOB_ID=$((900 + task)) SLURM_NTASKS=1 SLURM_PROCID=0 \\
  SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=localhost SLURM_JOB_NAME=train \\
    setsid bash TOOLS/job.sh >> TOOLS/log 2>&1 < /dev/null &
done
echo Submitted batch job 900
""",
    "srun": """#!/bin/bash
while [[ $1 == -* ]]; do case $1 in --output|--error) shift 2;; *) shift;; esac; done
"$@"
[ -e TOOLS/again_$SLURM_ARRAY_TASK_ID ] && rm TOOLS/again_$SLURM_ARRAY_TASK_ID && "$@"
""",
    "scontrol": """#!/bin/bash
echo "$@" >> TOOLS/requeued
touch TOOLS/again_${2##*_}
""",
    "sacct": """#!/bin/bash
printf 'JobID|State\\n900_0|RUNNING\\n900_1|RUNNING\\n'
""",
}


def _worker(folder: str, mark: str) -> int:
    """The process of a job that works in `folder`, with `mark` in its environment or the names of its files."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
            files = "".join(str(link.readlink()) for link in (path / "fd").iterdir())
            traces = (path / "environ").read_bytes().decode() + files
        except OSError:
            continue
        python = command.startswith(os.fsencode(sys.executable))  # not the shell script that has started it
        if python and b"submitit.core._submit" in command and folder.encode() in command and mark in traces:
            return int(path.name)
    raise AssertionError("there is no such process")


def test_a_job_of_two_devices_in_a_sweep_does_not_sweep_again(options: list[str], in_tmp: Path) -> None:
    process = Command("src.train", "-m", *options, "trainer=ddp", "devices=2", "seed=1", "hydra.sweep.dir=s")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert re.findall(r"^job \d of 1: (?:validation accuracy)?", out, re.MULTILINE) == [
        "job 1 of 1: ",
        "job 1 of 1: validation accuracy",
    ]
    assert [row["state"] for row in table(in_tmp / "s")] == ["finished"]
    assert "test accuracy" not in out
    assert all("test accuracy" in path.read_text() for path in (in_tmp / "s").glob("*/output.txt"))
    assert not list((in_tmp / "s").glob("*/s")), "a sweep in a sweep"


def test_a_stop_ends_the_whole_sweep(door: Door, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    at_call(monkeypatch, "training_step", 3, send(signal.SIGTERM))
    outcome = door("train", "-m", *options, "seed=1,2,3", "hydra.sweep.dir=s")
    assert outcome.code == 143
    assert "job 2" not in outcome.out
    assert outcome.err.splitlines()[-2].endswith("To continue the sweep:")
    assert outcome.err.splitlines()[-1] == "python -m src.train -m sweep=s"


class TestTable:
    @pytest.mark.parametrize(
        ("monitor", "mode", "values"), [("val/acc", "max", [0.5, 0.9, 0.9]), ("val/loss", "min", [5, 2, 2])]
    )
    def test_of_equal_settings_the_first_is_the_best(
        self, in_tmp: Path, monitor: str, mode: str, values: list[float]
    ) -> None:
        for name, value in zip("cba", values, strict=True):
            write_results(in_tmp / name, value, monitor=monitor, mode=mode)
        best = Table(in_tmp, {name: [f"model={name}"] for name in "cba"}, "c", search=False).best
        assert best is not None
        assert best.run == "b"

    def test_training_is_the_mean_time_of_a_setting_and_in_all_the_sum(
        self, in_tmp: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        runs = {}
        for rate, value in ((1, 0.4), (2, 0.8)):
            for seed, seconds in ((1, 700), (2, 1300)):
                name = write_results(in_tmp / f"{rate}-{seed}", value + seed / 100, seconds * rate, seed=seed).name
                runs[name] = [f"optimizer.lr={rate}", f"seed={seed}"]
        Table(in_tmp, runs, "c", search=False).show()
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        shown = [line for line in lines if line[:2] in (["1", "2"], ["2", "2"])]
        assert [line[0] for line in shown] == ["2", "1"], "the best first"
        assert [line[line.index("min") - 1] for line in shown] == ["33", "17"]
        assert ["100", "min", "of", "training"] in [line[-4:] for line in lines]
        assert ["command", "of", "2-1"] in lines, "of the setting, which is not its luckiest seed"

    def test_where_all_guess_none_is_the_best(self, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name, value in (("a", 0.6), ("b", 0.4)):
            write_results(in_tmp / name, value, chance=0.5, test=False)
        Table(in_tmp, {name: [f"model={name}"] for name in "ab"}, "c", search=False).show()
        lines = capsys.readouterr().out.splitlines()
        assert "all runs are no better than guessing (50.00 %)" in lines
        assert any(line.startswith("to try: a lower optimizer.lr") for line in lines)
        assert not any("best" in line.split() for line in lines if line.startswith(("a ", "b ")))

    def test_a_setting_that_is_no_better_than_guessing_says_so(
        self, in_tmp: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name, value in (("a", 0.9), ("b", 0.5), ("c", 0.9), ("d", 0.5)):
            write_results(in_tmp / name, value, test=False, chance=0.5, seed=ord(name) % 2)
        runs = {name: [f"model={name > 'b'}", f"seed={name}"] for name in "abcd"}
        runs |= {"e": ["model=e", "seed=1"]}
        write_results(in_tmp / "e", 0.5, test=False, chance=0.5)
        Table(in_tmp, runs, "c", search=False).show()
        out = capsys.readouterr().out
        assert "guessing: 50.00 %\n" in out
        rows = {line.split()[0]: line for line in out.splitlines() if line.startswith(("True", "False", "e "))}
        assert rows["True"].rstrip().endswith("~ best, 1 of 2 guess")
        assert rows["e"].rstrip().endswith("1 of 1 guess")
        assert ", 1 of 1 guess |" in (in_tmp / "summary.md").read_text()

    def test_the_command_of_a_setting_has_no_seed_where_seeds_are_varied(self, in_tmp: Path) -> None:
        for name in ("a", "b"):
            results = json.loads((write_results(in_tmp / name, 0.9) / "results.json").read_text())
            results["command"] = f"python -m src.train seed={7 if name == 'a' else 8} optimizer.lr=1"
            (in_tmp / name / "results.json").write_text(json.dumps(results))
        for runs, words in (
            ({"a": ["seed=7"], "b": ["seed=8"]}, "  python -m src.train optimizer.lr=1"),
            ({"a": ["seed=7"]}, "  python -m src.train seed=7 optimizer.lr=1"),
        ):
            assert words in Table(in_tmp, runs, "c", search=False)._verdict()

    @pytest.mark.parametrize(
        ("seconds", "words"),
        [(59.4, "59 s"), (119, "119 s"), (120, "2 min"), (7_199, "120 min"), (36_000, "10 h"), (math.nan, "-")],
    )
    def test_times_are_in_seconds_minutes_or_hours(self, seconds: float, words: str) -> None:
        assert duration(seconds) == words


class TestDefinition:
    def made(self, name: str, second: int, *overrides: str) -> Path:
        folder = Path("logs/sweep") / name
        folder.mkdir(parents=True)
        grid.Definition(command="c", overrides=list(overrides), runs={}).write(folder)
        os.utime(folder / grid.DEFINITION, (second, second))
        return folder

    def test_last_is_the_newest_sweep_with_all_that_it_was_asked(self, in_tmp: Path) -> None:
        self.made("b", 200, "seed=1,2")
        newest = self.made("c", 300, "seed=3,4")
        self.made("a", 100, "seed=5,6")
        arguments, folder = grid.chosen(Arguments("train", ("sweep=last",)))
        assert folder == newest
        assert arguments.overrides == ("seed=3,4",)

    @pytest.mark.parametrize("now", ["seed=1,2,3", "seed=1"])
    def test_more_and_fewer_values_are_said_and_others_refused(
        self, in_tmp: Path, now: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        if now == "seed=1":  # of one value it is another command
            with pytest.raises(UserError, match="was begun with seed=1,2, and this command says seed=1"):
                grid._compare(in_tmp, ["seed=1,2"], [now])
            return
        for before, after in (("seed=1,2", now), (now, "seed=1,2")):
            grid._compare(in_tmp, [before], [after])
            assert f"was begun with {before}, and goes on with {after}." in capsys.readouterr().out
        with pytest.raises(UserError, match="was begun with seed=1,2, and this command says seed=2,3"):
            grid._compare(in_tmp, ["seed=1,2"], ["seed=2,3"])


@pytest.mark.parametrize(("code", "number"), [(143, 15), (138, 10)])
def test_a_command_that_was_stopped_hands_its_signal_on(code: int, number: int) -> None:
    with pytest.raises(Stopped) as stopped:
        jobs.follow([sys.executable, "-c", f"raise SystemExit({code})"], os.environ)
    assert stopped.value.number == number
    with pytest.raises(RunError, match=r"^the disk is full$"):
        jobs.follow([sys.executable, "-c", "import sys; sys.exit('error: the disk is full')"], os.environ)


def test_a_job_of_two_devices_is_told_nothing_of_the_processes_of_the_job_before(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = {"LOCAL_RANK": "0", "NODE_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    job, sweep = SimpleNamespace(num=0), SimpleNamespace(dir="s")
    hydra = SimpleNamespace(job=job, sweep=sweep, launcher={"_target_": "BasicLauncher"})
    monkeypatch.setattr(jobs.HydraConfig, "get", lambda: hydra)
    begun: list[Any] = []
    monkeypatch.setattr(jobs, "follow", lambda *given: begun.append(given))
    request = Request(configure(["devices=2"]), in_tmp / "s/a", "the command", ("devices=2",))
    jobs._run([jobs.Job(request, OmegaConf.create(), "job 1 of 1: devices=2")], lambda request: None)
    ((words, environment),) = begun
    assert words == [sys.executable, "-m", "src.train", "devices=2", f"hydra.run.dir={in_tmp}/s/a"]
    assert environment == {name: value for name, value in os.environ.items() if name not in left}


class TestTryNetwork:
    """A network is summarized with images that nobody has read."""

    def try_it(self, forward: Any, patch: pytest.MonkeyPatch, *options: str) -> tuple[list[tuple[int, str]], str]:
        """The channels and devices that were tried, and the words of the error."""
        tried: list[tuple[int, str]] = []

        def built(model: object, in_channels: int, num_classes: int) -> nn.Module:
            tried.append((in_channels, str(torch.get_default_device())))
            network: Any = nn.Linear(1, num_classes)
            network.forward = lambda images: forward(images, torch.zeros(1, num_classes))
            return network

        patch.setattr("src.model.network.build_network", built)
        try:
            try_network(configure(list(options)))
        except UserError as error:
            return tried, str(error)
        return tried, ""

    def test_what_the_meta_device_cant_is_tried_on_the_cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def forward(images: Tensor, answer: Tensor) -> Tensor:
            return answer + images.sum().item()

        assert self.try_it(forward, monkeypatch) == ([(1, "meta"), (1, "cpu")], "")

    def test_where_only_the_images_know_the_channels_one_of_both_must_fit(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def forward(images: Tensor, answer: Tensor) -> Tensor:
            if images.shape[1] != 1:
                raise ValueError("only grey images")
            return answer

        assert self.try_it(forward, monkeypatch, "dataset=image_folder")[1] == ""
        tried, words = self.try_it(forward, monkeypatch, "dataset=cifar10")
        assert tried == [(3, "meta"), (3, "cpu")]
        assert words == "only grey images."

    def test_a_bug_is_left_to_the_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.try_it(lambda images, answer: images.nothing, monkeypatch)[1] == ""

    def test_another_answer_than_a_logit_a_class_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "expected [1, 10], one logit a class" in self.try_it(lambda images, answer: answer[0], monkeypatch)[1]
