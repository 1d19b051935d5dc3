"""The benchmark measures what it says, and its tables are those of its results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import records, tables
from benchmarks.cases import CASES, Case, write_cifar, write_mnist
from benchmarks.turns import Worker
from tests.conftest import ROOT


def test_every_measurement_is_rendered() -> None:
    text = tables.speed()
    for result in records.load(tables.RESULTS, "*.json"):
        for case in result["cases"].values():
            for way in case["ways"].values():
                assert f"{way['training']['images_per_second']['median']:,.1f} (" in text
                assert f"{way['training']['peak_gib']:.2f} GiB" in text
    for result in records.load(tables.RESULTS / "worth", "*.json"):
        assert f"**`{result['case']}`**" in text
        assert all(f"| {change} |" in text for change in result["changes"])


def test_case_that_was_not_measured_says_so() -> None:
    result = records.load(tables.RESULTS, "*.json")[0]
    result["cases"] = {}
    assert tables.machine_table(result).count("not measured") == 2 * len(CASES)


def test_device_that_is_not_there_is_named() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "benchmarks", "--device", "gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.endswith("device=gpu: this machine has no GPU that torch can use. There is: cpu.\n")


@pytest.mark.parametrize("way", ["tutorial", "plain", "ours"])
@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: case.name)
@pytest.mark.slow
def test_worker_does_as_many_steps_as_it_is_told(tmp_path: Path, way: str, case: Case) -> None:
    write_mnist(tmp_path / "data", count=2000)
    write_cifar(tmp_path / "data")
    worker = Worker(way, case.name, tmp_path / "data", "cpu", tmp_path / "log")
    assert worker.warm["first_step"] > 0
    turn = worker.turn(1)
    assert turn["images"] == case.batch_size
    assert turn["seconds"] > 0.1
    assert worker.next_phase() > 2**30
    worker.hear()
    assert worker.turn(2)["images"] == 2 * case.batch_size
    worker.end()


@pytest.mark.slow
def test_quick_benchmark_measures_every_way(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    case = found["cases"]["alexnet-128"]
    assert list(case["ways"]) == ["tutorial", "lightning", "plain", "ours"]
    for way in case["ways"].values():
        for phase in ("training", "inference"):
            assert 0 < way[phase]["share_of_limit"] < 1.1
    assert case["ways"]["ours"]["training"]["times_tutorial"]["median"] > 1
    assert case["flops_per_image"] == {"training": 3936280576, "inference": 1328283648}
    assert "not measured" in tables.machine_table(found)
