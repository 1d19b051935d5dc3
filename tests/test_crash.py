"""A short form of `make crash-test`: real processes, SIGKILL, and a comparison byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def crash_test(*arguments: str) -> str:
    command = [sys.executable, "-m", "tests.crash", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_killed_at_every_kind_of_place_a_run_ends_as_if_nobody_had() -> None:
    said = crash_test("--kills", "6", "--cases", "1")
    assert "equal after   6 kills" in said
    assert "6 kills survived" in said


DRIFT = """
import lightning as L


class Drift(L.Callback):
    \"\"\"Counts its steps, and remembers the number or not.\"\"\"

    def __init__(self, remember: bool):
        self.count, self.remember = 0, remember

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.count += 1
        optimizer.param_groups[0]["weight_decay"] = 0.001 * self.count

    def state_dict(self):
        return {"count": self.count} if self.remember else {}

    def load_state_dict(self, state):
        self.count = state["count"]
"""


@pytest.mark.parametrize("remember", [True, False])
def test_it_tells_of_any_configuration_whether_it_goes_on_exactly(remember: bool, tmp_path: Path) -> None:
    (tmp_path / "drift.py").write_text(DRIFT)
    words = ["callbacks.drift._target_=drift.Drift", f"callbacks.drift.remember={remember}", "logger=csv"]
    command = [sys.executable, "-m", "tests.crash", "--kills", "2", "--seed", "3", *words]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert (done.returncode == 0) == remember, done.stderr[-3000:]
    assert (
        "equal after   2 kills" if remember else "is not as the run that nobody killed: last.ckpt"
    ) in done.stdout + done.stderr


@pytest.mark.slow
def test_two_processes_too() -> None:
    assert "2 kills survived" in crash_test("--kills", "2", "--cases", "5")
