"""What the README promises: its commands, its examples, its tree."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import NARROW, ROOT, Outcome, only_run, results_of, write_folder

README = (ROOT / "README.md").read_text(encoding="utf-8")


def make(*arguments: str, cwd: Path = ROOT) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(
    shutil.which("make") is None, reason="make is not on this machine; its targets are for those who have it"
)
class TestMake:
    def test_help_lists_the_targets(self) -> None:
        listed = set(re.findall(r"^make (\S+)", make("help"), re.MULTILINE))
        assert listed >= {"train", "test", "test-all", "lint", "tensorboard", "lock", "clean"}

    def test_train_runs_the_command_that_it_prints(self, door: Callable[..., Outcome], in_tmp: Path) -> None:
        command = next(line for line in make("-n", "train").splitlines() if "src.train" in line)
        arguments = shlex.split(command)[3:]
        assert arguments == ["experiment=quick"]
        limits = [f"trainer.limit_{part}_batches=2" for part in ("train", "val", "test")]
        outcome = door("train", *arguments, *NARROW, *limits, "dataset.source=sample")
        assert outcome.code == 0, outcome.err
        assert "test accuracy" in outcome.out
        assert results_of(only_run(in_tmp))["dataset"]["source"] == "sample"

    def test_test_sets_up_and_runs_pytest_on_the_whole_source(self) -> None:
        command = next(line for line in make("-n", "test").splitlines() if "pytest" in line)
        assert '"not slow"' in command
        assert "--cov-fail-under=90" in command

    def test_set_up_installs_the_lock_and_nothing_the_second_time(self, tmp_path: Path) -> None:
        shutil.copy(ROOT / "Makefile", tmp_path)
        shutil.copy(ROOT / "requirements.lock", tmp_path)
        assert "requirements.lock" in make("-n", "train", cwd=tmp_path)
        (tmp_path / ".venv").mkdir()
        for mark in (".uv", ".installed-from-lock"):
            (tmp_path / ".venv" / mark).touch()
        assert make("-n", "train", cwd=tmp_path).strip() == ".venv/bin/python -m src.train experiment=quick"

    def test_lock_is_hashed_and_names_no_index(self) -> None:
        lock = (ROOT / "requirements.lock").read_text()
        pinned = [line for line in lock.splitlines() if re.match(r"\w", line)]
        assert len(pinned) > 30
        assert all("==" in line and line.endswith("\\") for line in pinned)
        assert "--index" not in lock
        assert "://" not in lock


def blocks() -> dict[str, str]:
    """File name -> content of each example in the README's section on adding things."""
    section = README.partition("## Add")[2].partition("## The tree")[0]
    return dict(re.findall(r"`((?:configs|src)/\S+)`:\n\n```\w+\n(.*?)```", section, re.DOTALL))


def test_examples_of_the_readme_work_as_they_stand(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for part in ("src", "configs"):
        shutil.copytree(ROOT / part, project / part, ignore=shutil.ignore_patterns("__pycache__"))
    assert sorted(blocks()) == ["configs/dataset/flowers.yaml", "configs/optimizer/nadam.yaml", "src/model/lenet.py"]
    for name, content in blocks().items():
        (project / name).write_text(content)
    write_folder(project / "data" / "flowers", classes=3, count=10)
    options = ["dataset=flowers", "model=lenet", "model.width=4", "dataset.image_size=32", "optimizer=nadam"]
    more = ["optimizer.momentum_decay=0.01", "trainer.max_epochs=1", "device=cpu", "hydra.run.dir=run"]
    command = [sys.executable, "-m", "src.train", *options, *more]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = results_of(project / "run")
    assert (results["dataset"]["name"], results["model"], results["optimizer"]) == ("flowers", "lenet", "nadam")

    wrong = subprocess.run([*command, "model.widht=4"], cwd=project, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "Did you mean model.width?" in wrong.stderr


def test_tree_names_every_source_file_and_no_other() -> None:
    tree = README.partition("## The tree")[2]
    named = set(re.findall(r"(\w+\.py) ", tree))
    there = {path.name for path in (ROOT / "src").rglob("*.py") if path.name != "__init__.py"}
    assert named >= there
    assert {name for name in named if not name.startswith(("test_", "conftest", "browser"))} == there


def test_commands_of_the_readme_are_accepted(door: Callable[..., Outcome]) -> None:
    commands = re.findall(r"^    python -m src\.train (.*)$", README, re.MULTILINE)
    assert len(commands) >= 6
    for command in commands:
        if command.startswith("--"):
            continue
        outcome = door("train", *shlex.split(command, comments=True), "batch_size=0")
        wrong = "sweep=last: there is no sweep below" if "sweep=last" in command else "batch_size=0: expected a number"
        assert outcome.err.startswith(f"error: {wrong}"), command
    searches = re.findall(r"^    python -m src\.tune (.*)$", README, re.MULTILINE)
    assert len(searches) >= 3
    for command in searches:
        outcome = door("tune", *shlex.split(command, comments=True), "batch_size=0")
        assert outcome.err.startswith("error: batch_size=0: expected a number"), command


def test_no_source_file_outgrows_a_sitting() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path
