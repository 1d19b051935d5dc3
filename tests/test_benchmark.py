"""The benchmark measures what it says, and its tables are those of its results."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from benchmarks import __main__ as bench
from benchmarks import gpu, project, records, tables
from benchmarks.cases import CASES, Case, write_cifar, write_mnist, write_photos
from benchmarks.turns import Worker
from tests.conftest import ROOT
from tests.processes import Command, run

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
        for change, found in result["changes"].items():
            rate = found["images_per_second"]
            assert f"| {change} | {rate['median']:.1f} ({rate['low']:.1f} to {rate['high']:.1f}) | " in text


def test_case_that_was_not_measured_says_so() -> None:
    assert tables.machine_table(RESULT | {"cases": {}}).count("not measured") == 2 * len(CASES)


def test_device_that_is_not_there_is_named() -> None:
    done = run("benchmarks", "--device", "gpu", folder=ROOT, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert done.stderr.endswith("device=gpu: this machine has no GPU that torch can use. There is: cpu.\n")


def test_photos_are_links_to_few_in_the_folders_of_a_data_set(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", [20, 40], distinct=3)
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


def test_cases_that_were_measured_before_an_end_are_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, taken, broken = tmp_path / "machine.json", list[str](), [CASES[1].name]
    for name in ("write_cifar", "write_mnist"):
        monkeypatch.setattr(bench, name, lambda data: None)

    def measure(case: Case, *_: Any) -> dict[str, Any]:
        if case.name in broken:
            raise KeyboardInterrupt
        taken.append(case.name)
        return {"ways": {way: {"first_step": 1.0} for way in bench.WAYS}}

    monkeypatch.setattr(bench, "measure", measure)
    found: dict[str, Any] = {"git": {"revision": "0"}, "command": "python -m benchmarks", "device": "gpu", "rounds": 3}
    with pytest.raises(KeyboardInterrupt):
        bench.measure_cases(dict(found), CASES, tmp_path, out)
    broken.clear()
    again = dict(found)
    bench.measure_cases(again, CASES, tmp_path, out)
    assert taken == list(again["cases"]) == [case.name for case in CASES]
    assert again["first_step_seconds"]["ours"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    bench.measure_cases(found | {"git": {"revision": "1"}}, CASES, tmp_path, out)
    assert len(taken) == 6, "another revision begins anew"
    out.write_text(json.dumps(again | {"seconds": 9}))
    bench.measure_cases(dict(found), CASES, tmp_path, out)
    assert len(taken) == 9, "what is finished is measured anew when it is asked for"


class TestGpu:
    """benchmarks.gpu, whose steps are replaced."""

    Made = Callable[..., gpu.Step]

    @pytest.fixture
    def done(self) -> list[str]:
        return []

    @pytest.fixture
    def step(self, tmp_path: Path, done: list[str]) -> Made:
        def made(name: str, seconds: float = 60, act: Callable[[], object] = lambda: None) -> gpu.Step:
            def measured() -> dict[str, Any]:
                done.append(name)
                act()
                return {"value": name}

            return gpu.Step(name, seconds, tmp_path / "results" / f"{name}.json", measured)

        return made

    def test_each_result_is_there_when_a_later_step_is_broken_off_and_is_not_measured_again(
        self, tmp_path: Path, step: Made, done: list[str]
    ) -> None:
        def stop() -> None:
            raise project.Stopped(2)

        with pytest.raises(project.Stopped):
            gpu.measure([step("a"), step("b"), step("c", act=stop), step("d")], 25)
        assert [json.loads((tmp_path / "results" / f"{name}.json").read_text())["value"] for name in "ab"] == ["a", "b"]
        assert not gpu.measure([step(name) for name in "abcd"], 25)
        assert done == ["a", "b", "c", "c", "d"]
        found = json.loads((tmp_path / "results" / "d.json").read_text())
        assert {"machine", "versions", "git", "date", "seconds"} <= found.keys()

    def test_what_would_not_fit_into_what_is_left_is_left_out_and_said_so(
        self, step: Made, done: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = [0.0]
        monkeypatch.setattr(gpu, "time", SimpleNamespace(monotonic=lambda: clock[0]))
        first = step("first", 60, lambda: clock.append(clock.pop() + 90))
        assert not gpu.measure([first, step("long", 60), step("last", 20)], 2)
        assert done == ["first", "last"]
        assert "long: left out, for it takes about 60 s, and 30 s are left\n" in capsys.readouterr().out

    def test_a_step_that_outlasts_the_time_is_stopped_and_no_later_one_begun(
        self, step: Made, done: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        wanted = [step("endless", 0, lambda: threading.Event().wait(60)), step("later", 0)]
        assert not gpu.measure(wanted, 0.1 / 60)
        assert done == ["endless"]
        assert "endless: stopped, for the time is over\n" in capsys.readouterr().out

    def test_a_step_that_fails_stops_no_other_and_its_other_seeds_are_left_out(
        self, step: Made, done: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fail() -> None:
            raise project.RunError("no such images")

        assert gpu.measure([step("a, seed 1", act=fail), step("b"), step("a, seed 2")], 25) == {"a"}
        assert done == ["a, seed 1", "b"]
        said = capsys.readouterr()
        assert said.err == "error: a, seed 1: no such images\n"
        assert "a, seed 2: left out, for another seed has failed\n" in said.out

    def test_a_record_of_an_older_command_or_a_part_of_a_result_is_not_there(self, tmp_path: Path) -> None:
        path = tmp_path / "record.json"
        step = gpu.Step("mnist_gpu, seed 1", 60, path, lambda: None)
        record = {"row": "mnist_gpu", "seed": 1, "seconds": 50, "command": records.BY_NAME["mnist_gpu"].shown(1)}
        for content, there in ((record, True), (record | {"command": "older"}, False), ({"cases": {}}, False)):
            path.write_text(json.dumps(content))
            assert step.is_there() == there
        path.unlink()
        assert not step.is_there()

    def test_order_is_speed_then_a_seed_of_each_and_then_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        describe, here = project.describe, {"machine": "Abacus GPU"}
        monkeypatch.setattr(project, "describe", lambda device: describe("cpu") | {"name": "abacus-gpu"})
        monkeypatch.setattr(records, "here", lambda facts, device: here)
        wanted = list(gpu.steps(Path("data"), dry=False))
        names = [step.name for step in wanted]
        assert names[:5] == ["speed of five ways", "profile", *(f"{name}, seed 1" for name in gpu.RECIPES)]
        assert names[5:8] == ["published_mnist, seed 1", "resume", "photos"]
        assert names.index("published_cifar10_10000, seed 1") > names.index("cifar10_gpu, seed 3")
        assert sum(step.seconds for step in wanted[:14]) <= 25 * 60, "with three seeds of each recipe"
        assert wanted[0].path == tables.RESULTS / "abacus-gpu.json"
        assert wanted[2].path == records.RECORDS / "mnist_gpu" / "abacus-gpu-seed-1.json"

    def test_profile_and_resume_are_rendered(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tables, "RESULTS", tmp_path)
        assert "| python -m benchmarks.gpu | not measured |" in tables.details(records.current()[:0])
        here = {"machine": "Abacus GPU", "date": "2026-11-27", "command": "python -m src.train"}
        made: dict[str, dict[str, Any]] = {
            "resume": {"weights": "equal to the last bit", "metrics.csv": "equal"},
            "profile": {"busy": 0.87, "costs": {"gemm": 0.401, "relu": 0.05}},
        }
        for name, found in made.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "abacus.json").write_text(json.dumps(here | found))
        row = "| python -m src.train | equal to the last bit | equal | Abacus GPU | 2026-11-27 |"
        assert row in tables.details(records.current()[:0])
        text = tables.speed()
        assert "its kernels take 87 % of the time of a step" in text
        assert "| `gemm` | 40.1 % |" in text

    @pytest.mark.slow
    @pytest.mark.timeout(900)
    def test_dry_run_takes_every_step_on_the_cpu(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Each command is forked off a process that has torch: from nothing they take twice as long."""

        def forked(words: list[str]) -> Command:
            return Command(*words[2:], folder=ROOT)

        def follow(words: list[str], environment: Any) -> None:
            command = forked(words)
            assert command.wait(400) == 0, command.stderr[-2000:]

        results: dict[str, dict[str, Any]] = {}
        take = gpu.take

        def noted(step: gpu.Step) -> None:
            take(step)
            results[step.name] = json.loads(step.path.read_text())

        for name in ("train_list", "test_list", "meta"):
            monkeypatch.setattr(CIFAR10, name, getattr(CIFAR10, name))  # so that they come back, as the next three
        monkeypatch.setattr(records, "RECORDS", records.RECORDS)
        monkeypatch.setattr(records, "RUNS", records.RUNS)
        for name in ("BENCHMARK_DRY_RUN", "OMP_NUM_THREADS"):
            monkeypatch.setenv(name, "")
        monkeypatch.setattr(gpu, "take", noted)
        monkeypatch.setattr(gpu, "Popen", forked)
        monkeypatch.setattr(project, "follow", follow)
        monkeypatch.setattr("sys.argv", ["gpu", "--dry-run"])
        with pytest.raises(SystemExit) as ended:
            gpu.main()
        assert ended.value.code == 0, capfd.readouterr().err
        rows = [f"{name}, seed 1" for name in (*gpu.RECIPES, *gpu.PUBLISHED[:2])]
        assert {*results} == {"speed of five ways", "profile", *rows, "resume", "photos"}
        assert list(results["speed of five ways"]["cases"]["alexnet-128"]["ways"]) == bench.WAYS
        assert all(0 <= results[row]["accuracy"] <= 1 for row in rows)
        assert results["resume"]["weights"] == "equal to the last bit"
        assert results["resume"]["metrics.csv"] == "equal"
        assert len(results["profile"]["costs"]) == 8
        assert "training, photos/s" in results["photos"]["rows"]


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
    assert worker.turn(0) > 2**30
    worker.hear()
    assert worker.turn(2)["images"] == 2 * case.batch_size
    worker.end()


@pytest.mark.slow
def test_quick_benchmark_measures_every_way(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--out", str(out)]
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
    }
    ours = {"training: time without data, %": (0, 100)}
    assert {name: set(ways) for name, ways in rows.items()} == {
        **{name: {"tutorial", "ours"} for name in both},
        **{name: {"ours"} for name in ours},
    }
    for name, (least, most) in (both | ours).items():
        assert all(least <= value <= most for rounds in rows[name].values() for value in rounds), (name, rows[name])
        assert all(f"{name}, {way}: " in done.stdout for way in rows[name])
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert all(f"| {name} | " in tables.speed() for name in rows)
