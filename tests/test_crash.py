"""A short form of `make crash-test`: real processes, SIGKILL, and a comparison byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash import CASES
from tests.processes import Command, run

FAST = ["report=false", "callbacks.filters=null", "callbacks.samples=null"]  # pictures cost as much as the training


def crash_test(*arguments: str, **environment: str) -> Command:
    return run("tests.crash", *arguments, timeout=280, **environment)


def test_killed_at_many_kinds_of_places_a_run_ends_as_if_nobody_had() -> None:
    # of this seed's places none is one that the run has passed by then
    done = crash_test("--kills", "6", "--seed", "46", *CASES[1].options, *FAST)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "equal after   6 kills" in done.stdout
    for place in ("in a checkpoint", "between two renames", "in a row of the table", "in a step", "between steps"):
        assert f"    1  {place}\n" in done.stdout
    assert "6 kills survived" in done.stdout


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
    words = ["callbacks.drift._target_=drift.Drift", f"callbacks.drift.remember={remember}", "logger=csv", *FAST]
    done = crash_test("--kills", "1", "--seed", "3", *words, PYTHONPATH=str(tmp_path))
    assert (done.returncode == 0) == remember, done.stderr[-3000:]
    assert (
        "equal after   1 kills" if remember else "is not as the run that nobody killed: last.ckpt"
    ) in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "case"), [(6, 1), (2, 5)], ids=["one process", "two processes"])
def test_a_case_of_make_crash_test_is_survived(kills: int, case: int) -> None:
    done = crash_test("--kills", str(kills), "--cases", str(case))
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{kills} kills survived" in done.stdout
