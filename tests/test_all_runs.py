"""Every run below a folder as one table: filters, order, columns, files, and what can't be read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from src.config.check import as_yaml
from src.config.compose import configure
from tests.conftest import ROOT, Outcome, write_results

Door = Callable[..., Outcome]


@cache
def config(*words: str) -> str:
    return as_yaml(configure(words))


def made(run: Path, *words: str, accuracy: float | None = 0.9, date: str = "2026-11-01", seed: int = 1) -> Path:
    """The folder of a run with these options, finished with this accuracy in validation, or not."""
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(config(*words).replace("\nseed: 1\n", f"\nseed: {seed}\n"))
    if accuracy is not None:
        results = json.loads((write_results(run, accuracy) / "results.json").read_text()) | {"date": date}
        results["val"] |= {"images": 500, "accuracy_interval": [accuracy - 0.02, accuracy + 0.01]}
        (run / "results.json").write_text(json.dumps(results))
    return run


@pytest.fixture
def logs(in_tmp: Path) -> Path:
    """Four runs: one of a sweep, one unfinished."""
    made(in_tmp / "logs/a", "optimizer.lr=0.001", accuracy=0.95, date="2026-11-02")
    made(in_tmp / "logs/b", "optimizer.lr=0.01", accuracy=0.97)
    made(in_tmp / "logs/sweep/s/seed-2", "optimizer.lr=0.01", seed=2, accuracy=0.96, date="2026-11-03")
    made(in_tmp / "logs/c", "dataset=cifar10", "model=alexnet_bn", "data_dir=elsewhere", accuracy=None)
    return in_tmp / "logs"


def order(out: str) -> list[str]:
    table = [line.split()[0] for line in out.splitlines() if line and not line[0].isdigit()]
    return table[table.index("run") + 1 :]


def test_the_newest_run_is_first_and_those_of_sweeps_are_among_them(logs: Path, door: Door) -> None:
    outcome = door("report", "logs")
    assert outcome.code == 0, outcome.err
    assert order(outcome.out) == ["c", "sweep/s/seed-2", "a", "b"], "the unfinished one was begun now"
    assert outcome.out.strip().startswith("4 runs, newest first: 1 interrupted, 3 finished")


def test_the_best_by_validation_is_first_if_asked_for(logs: Path, door: Door) -> None:
    assert order(door("report", "logs", "order=best").out) == ["b", "sweep/s/seed-2", "a", "c"]


def test_a_column_is_what_differs_and_accuracies_have_their_intervals(logs: Path, door: Door) -> None:
    out = door("report", "logs", "dataset=mnist").out
    title = next(line.split() for line in out.splitlines() if line.startswith("run "))
    assert title == ["run", "state", "lr", "val", "acc", "test", "acc", "seed", "date"], "of constants none"
    row = next(line for line in out.splitlines() if line.startswith("a "))
    assert row.split(maxsplit=2)[2].startswith("0.001  95.0 % (93.0 to 96.0)  50 % (22 to 78)")
    assert row.split()[-2:] == ["1", "2026-11-02"]


def test_what_a_name_says_by_itself_is_in_the_csv_file_alone(logs: Path, door: Door) -> None:
    out = door("report", "logs").out
    assert "dataset" in out
    assert "widths" not in out
    assert "_target_" not in out
    assert "data_dir" not in out, "it changes no result"
    assert door("report", "logs", "output=runs.csv").code == 0
    runs = pd.read_csv("runs.csv", index_col="run")
    assert runs.loc["c", "model.widths"] != runs.loc["a", "model.widths"]
    assert list(runs.loc["b", ["val_accuracy", "val_low", "val_high"]]) == [0.97, 0.95, 0.98]
    assert runs.loc["a", "test_low"] == pytest.approx(0.2152, abs=1e-4), "computed, for the record has none"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["optimizer.lr=1e-2"], {"b", "sweep/s/seed-2"}),
        (["optimizer.lr=1e-2", "seed=2"], {"sweep/s/seed-2"}),
        (["seed=2,3"], {"sweep/s/seed-2"}),
        (["dataset=cifar10"], {"c"}),
        (["model=alexnet,alexnet_bn"], {"a", "b", "c", "sweep/s/seed-2"}),
        (["dataset.mean=[0.4914,0.4822, 0.4465]"], {"c"}),
        (["loss=cross_entropy", "init.weights=null", "model=alexnet"], {"a", "b", "sweep/s/seed-2"}),
        (["logger=tensorboard", "dataset=cifar10"], {"c"}),
        (["data_dir=elsewhere"], {"c"}),
    ],
)
def test_options_choose_runs_by_any_key_or_group(logs: Path, door: Door, words: list[str], found: set[str]) -> None:
    outcome = door("report", "logs", *words)
    assert set(order(outcome.out)) == found, outcome.err


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("datset=mnist", "datset: there is no such key. Did you mean dataset?"),
        ("order=bset", "order=bset: expected newest or best. Did you mean best?"),
        ("mnist=1", "mnist: there is no such key. --help shows what can be said."),
        ("trainer=debug", "trainer=debug: expected a key of it, such as trainer.max_epochs=5"),
        ("output=runs.txt", "output=runs.txt: expected a file that ends in .csv or .md or .html."),
        ("output=nowhere/runs.md", "there is no folder nowhere. Make it first."),
    ],
)
def test_a_wrong_word_is_answered_before_a_run_is_read(
    logs: Path, door: Door, monkeypatch: pytest.MonkeyPatch, word: str, said: str
) -> None:
    monkeypatch.setattr("src.results.overview._rows", lambda folder: pytest.fail("it was read"))
    outcome = door("report", "logs", word)
    assert outcome.code == 2
    assert said in outcome.err


def test_a_key_that_no_run_has_and_values_that_none_has_are_told(logs: Path, door: Door) -> None:
    assert "Did you mean optimizer.betas?" in door("report", "logs", "optimizer.beta=1").err
    outcome = door("report", "logs", "optimizer.lr=7", "seed=1", "output=runs.csv")
    assert (outcome.code, outcome.err) == (2, "error: logs: none of the runs below it fits optimizer.lr=7 seed=1.\n")
    assert not Path("runs.csv").exists()


def test_what_can_not_be_read_is_a_row_with_the_reason(logs: Path, door: Door) -> None:
    made(logs / "d")
    (logs / "d/results.json").write_text('{"model": 3')
    made(logs / "e")
    (logs / "e/config.yaml").write_text("model: [")
    made(logs / "f", accuracy=None)
    (logs / "f/error.txt").write_text("loss is\nnot a number")
    made(logs / "g", accuracy=None)
    (logs / "g/config.yaml").write_text("a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]\n")
    (logs / "h").mkdir()
    (logs / "h/error.txt").write_text("no room on the disk")
    outcome = door("report", "logs")
    assert outcome.code == 0, outcome.err
    for reason in (
        "d: logs/d/results.json is damaged",
        "e: while parsing",
        "f: loss is not a number",
        "g: config.yaml",
    ):
        assert f"failed: {reason}" in outcome.out
    assert "9 runs, newest first: 5 failed, 1 interrupted, 3 finished" in outcome.out
    assert door("report", "logs", "output=all.md").code == 0
    assert "| no room on the disk |" in Path("all.md").read_text()


def test_a_closed_folder_is_a_row_too(logs: Path, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(path: str, original: Callable[[str], object] = os.scandir) -> object:
        if str(path).endswith("sweep"):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    out = door("report", "logs").out
    assert "failed: sweep: can't be read: Permission denied" in out
    assert {"a", "b", "c"} <= set(order(out))


def test_files_of_wandb_are_no_runs(logs: Path, door: Door) -> None:
    files = logs / "a/wandb/run-1/files"
    files.mkdir(parents=True)
    (files / "config.yaml").write_text("wandb: 1")
    assert "wandb" not in door("report", "logs").out


def test_a_page_is_whole_and_a_name_in_it_is_text(logs: Path, door: Door) -> None:
    made(logs / "<b>bold & x")
    outcome = door("report", "logs", "output=runs.html", "model=alexnet")
    assert (outcome.code, outcome.out) == (0, "runs.html\n")
    page = Path("runs.html").read_text()
    assert "&lt;b&gt;bold &amp; x" in page
    assert page.count("<tr") == 5, "four runs and the titles"
    assert "95.0 % (93.0 to 96.0)" in page
    assert not [path for path in Path().iterdir() if path.name.endswith(".part")]


def test_80_columns_have_the_score_and_what_differs_first(
    logs: Path, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(24):
        name = f"2026-10-{number + 1:02}_10-00-00_mnist_alexnet_adamw_lr-0.01"
        made(logs / name, "optimizer.lr=0.01", "model.dropout=0.25", "batch_size=64", seed=number + 3)
    monkeypatch.setenv("TERM", "dumb")  # 80 columns, no colours
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    lines = door("report", "logs", "dataset=mnist", "order=best").out.splitlines()
    title = next(line for line in lines if line.startswith("run "))
    assert title.split() == ["run", "lr", "batch_size", "dropout", "val", "acc", "seed"]
    assert max(map(len, lines[:-1])) <= 80
    row = next(line for line in lines if line.startswith("2026-10-24"))
    assert row.startswith("2026-10-24_10-00-00"), "date and time tell runs apart"
    assert lines[-1].startswith("no room for: 7 more runs, state, test acc, date. output=FILE.html has all.")


def test_options_choose_among_the_runs_of_a_sweep_and_a_folder_without_runs_is_said(logs: Path, door: Door) -> None:
    (logs / "sweep/s/sweep.yaml").write_text("broken")
    assert order(door("report", "logs/sweep/s", "seed=2").out) == ["seed-2"]
    (logs / "none").mkdir()
    assert "logs/none holds no run and no sweep. Name one" in door("report", "logs/none", "seed=2").err


PROGRAM = """
import sys, time
sys.argv[1:] = ["logs", "dataset=mnist"]
from src.report import main
main()
assert not {"torch", "scipy.stats", "lightning"} & set(sys.modules), "they take seconds"
"""


def test_no_second_is_spent_on_torch_or_statistics(logs: Path) -> None:
    for path in logs.glob("**/results.json"):
        results = json.loads(path.read_text())
        results["test"]["accuracy_interval"] = [0.2, 0.8]
        path.write_text(json.dumps(results))
    done = subprocess.run([sys.executable, "-c", PROGRAM], env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True)
    assert done.returncode == 0


@pytest.mark.slow
def test_a_thousand_runs_take_seconds(in_tmp: Path) -> None:
    for number in range(1000):
        words = (f"optimizer.lr={1 + number % 7}e-3", f"model={('alexnet', 'alexnet_bn')[number % 2]}")
        made(in_tmp / f"logs/{number}", *words, f"dataset={('mnist', 'cifar10')[number % 3 // 2]}", accuracy=0.9)
    results = json.loads((in_tmp / "logs/0/results.json").read_text())
    results["test"]["accuracy_interval"] = [0.2, 0.8]
    for run in (in_tmp / "logs").iterdir():
        (run / "results.json").write_text(json.dumps(results))
    began = time.monotonic()
    command = [sys.executable, "-m", "src.report", "logs"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert time.monotonic() - began < 12, "three on an idle machine"
    assert done.stdout.count("\n") > 1000
