"""A short form of `make crash-test`: real processes, SIGKILL, and a comparison byte for byte."""

from __future__ import annotations

import subprocess
import sys

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


@pytest.mark.slow
def test_two_processes_too() -> None:
    assert "2 kills survived" in crash_test("--kills", "2", "--cases", "5")
