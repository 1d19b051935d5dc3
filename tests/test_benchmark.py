"""The benchmark measures what it says, and its tables are those of its results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import records, tables
from benchmarks.cases import CASES, Case, write_cifar, write_mnist, write_photos
from benchmarks.turns import Worker
from tests.conftest import ROOT
from tests.processes import run

RESULT = {
    "machine": {"device": "Abacus", "cores": 2},
    "versions": {"torch": "2.14.1", "lightning": "2.6.6", "python": "3.11.7"},
    "device": "cpu",
    "precision": "bf16-mixed",
    "date": "2026-11-27",
    "command": "python -m benchmarks",
    "rounds": 3,
    "first_step_seconds": {"ours": {"median": 4.0}},
}


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
    assert tables.machine_table(RESULT | {"cases": {}}).count("not measured") == 2 * len(CASES)


def test_device_that_is_not_there_is_named() -> None:
    done = run("benchmarks", "--device", "gpu", folder=ROOT, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert done.stderr.endswith("device=gpu: this machine has no GPU that torch can use. There is: cpu.\n")


def test_photos_are_links_to_few_in_the_folders_of_a_data_set(tmp_path: Path) -> None:
    large = write_photos(tmp_path / "photos", (20, 40), distinct=3)
    assert {Image.open(path).size for path in large} == {(4000, 3000)}
    files = sorted((tmp_path / "photos" / "40").glob("*/class?/*.jpg"))
    assert [sum(path.parts[-3] == split for path in files) for split in ("train", "test")] == [40, 20]
    assert len({path.stat().st_ino for path in files}) == 3
    assert {Image.open(path).size for path in files[:3]} == {(500, 375)}


def test_ratios_of_photos_say_how_many_times_better_ours_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert "`python -m benchmarks --photos`: not measured." in tables.speed()
    rows = {
        "training, photos/s": {"tutorial": [100.0, 100.0, 50.0], "ours": [250.0, 300.0, 200.0]},
        "first step, s": {"tutorial": [8.0, 8.0, 9.0], "ours": [4.0, 2.0, 3.0]},
        "waits, %": {"ours": [1.0, 2.0, 3.0]},
    }
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "machine.json").write_text(json.dumps(RESULT | {"rows": rows}))
    text = tables.speed()
    assert "| 100.00 (50.00 to 100.00) | 250.00 (200.00 to 300.00) | 3.00 (2.50 to 4.00) |" in text
    assert "| 8.00 (8.00 to 9.00) | 3.00 (2.00 to 4.00) | 3.00 (2.00 to 4.00) |" in text
    assert "| waits, % |  | 2.00 (1.00 to 3.00) |  |" in text


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


@pytest.mark.slow
def test_quick_benchmark_of_photos_measures_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "photos" / "found.json"
    command = [sys.executable, "-m", "benchmarks", "--photos", "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    both = {
        **{f"first step with {count} photos, s": (1, 100) for count in (200, 400)},
        **{f"peak memory with {count} photos, GiB": (0.5, 8) for count in (200, 400)},
        **{f"{phase}, photos/s": (0.1, 1000) for phase in ("training", "evaluation")},
        **{f"read, cut and resized, processes: {count}, photos/s": (10, 10_000) for count in (1, 2)},
        "a JPEG of 4000x3000 to 256x256, ms": (1, 5000),
    }
    ours = {
        "training: time without data, %": (0, 100),
        "its mean difference, of 255": (0, 20),
        "its largest, of 255": (1, 255),
    }
    assert {name: set(ways) for name, ways in rows.items()} == {
        **{name: {"tutorial", "ours"} for name in both},
        **{name: {"ours"} for name in ours},
    }
    for name, (least, most) in (both | ours).items():
        assert all(least <= value <= most for rounds in rows[name].values() for value in rounds), (name, rows[name])
        assert all(f"{name}, {way}: " in done.stdout for way in rows[name])
    large = rows["a JPEG of 4000x3000 to 256x256, ms"]
    assert large["ours"][0] < large["tutorial"][0]
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert all(f"| {name} | " in tables.speed() for name in rows)
