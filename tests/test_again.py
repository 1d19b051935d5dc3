"""A finished run trained anew from its folder: the same digits, where they part, what differs, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from src.config.naming import anew, run_of
from src.model.classifier import Classifier
from src.training.again import _parted, _read
from tests.conftest import NARROW, Once, Outcome, results_of, train, write_folder, write_results
from tests.test_resume import at_call

Door = Callable[..., Outcome]
BEGUN = "2026-11-01_10-00-00_made_alexnet"


@pytest.fixture
def run(once: Once, in_tmp: Path) -> Path:
    """A finished run of two epochs on images in images/, in logs/."""

    def make() -> None:
        write_folder(Path("images"), classes=2, count=30)
        words = ["dataset=image_folder", "dataset.image_size=63", "data_dir=images", "trainer.max_epochs=2", "seed=3"]
        assert train(*NARROW, *words, "optimizer.lr=1e-3", f"hydra.run.dir=logs/{BEGUN}") == 0

    shutil.copytree(once("again", make), in_tmp, dirs_exist_ok=True)
    return Path("logs", BEGUN)


def change(run: Path, **values: Any) -> None:
    (run / "results.json").write_text(json.dumps(results_of(run) | values))


def newest() -> Path:
    (found,) = [path for path in Path("logs").iterdir() if path.name != BEGUN]
    return found


def test_the_same_run_comes_again_digit_by_digit_in_a_folder_of_its_own(run: Path, door: Door) -> None:
    outcome = door("train", f"again={run}")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[-1] == f"Every digit of {run}/metrics.csv came again, in all rows (2)."
    assert re.fullmatch(r"logs/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_made_alexnet", str(newest()))
    for name in ("metrics.csv", "steps.csv", "config.yaml"):
        assert (newest() / name).read_bytes() == (run / name).read_bytes(), name
    assert results_of(newest())["command"] == results_of(run)["command"], "a record needs no other run's folder"
    assert not re.search(r"NOTE +(threads|torch|images|processor)", outcome.out)


def test_a_change_of_the_code_is_told_by_where_the_digits_part(
    run: Path, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Classifier.training_step

    def changed(module: Any, *arguments: Any) -> Any:
        for group in module.optimizers().param_groups if module.current_epoch == 1 else []:
            group["lr"] *= 2
        return original(module, *arguments)

    monkeypatch.setattr(Classifier, "training_step", changed)
    outcome = door("train", "again=last", "hydra.run.dir=new")
    assert outcome.code == 1
    step = _read(run)[1]["step"]
    said = rf"error: {run}/metrics.csv did not come again: in epoch 1, step {step}, train/\w+ was [\d.]+, and is [\d.]+"
    assert re.search(said, outcome.err), "the first epoch was the same"
    assert results_of(Path("new"))["train"]["epochs"] == 2, "the run itself is whole"


def test_a_changed_image_and_what_else_differs_are_noted_before_the_digits_part(run: Path, door: Door) -> None:
    for path in Path("images").glob("*/*.png"):
        Image.new("RGB", (12, 12), "red").save(path)
    Path("images").rename("elsewhere")
    machine = results_of(run)["machine"] | {"threads": 7}
    git = {"revision": "0" * 40, "modified": False}
    change(run, machine=machine, git=git, versions=results_of(run)["versions"] | {"torch": "0.1"})
    outcome = door("train", f"again={run}", "data_dir=elsewhere")
    assert outcome.code == 1
    notes = outcome.out.partition("writes to")[0]
    assert f"NOTE   torch: 0.1 then, {results_of(newest())['versions']['torch']} now.\n" in notes
    assert f"NOTE   threads: 7 then, {torch.get_num_threads()} now. OMP_NUM_THREADS=7 brings them back.\n" in notes
    assert "NOTE   code: revision 000000000000 then, " in notes
    before, now = (results_of(folder)["dataset"]["sha256"][:12] for folder in (run, newest()))
    assert f"NOTE   images: checksum {before} then, checksum {now} now.\n" in notes
    assert "in epoch 0, step " in outcome.err
    assert outcome.err.endswith("What differs: torch, code, images, threads.\n")


def test_one_that_was_stopped_goes_on_and_is_compared_at_its_end(
    run: Path, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_call(patch, "training_step", 9, lambda: os.kill(os.getpid(), signal.SIGTERM))
        stopped = door("train", f"again={run}", "hydra.run.dir=new")
    assert stopped.code == 128 + signal.SIGTERM
    command = stopped.err.splitlines()[-1]
    assert command == f"python -m src.train again={run} hydra.run.dir=new"
    for _ in range(2):
        outcome = door("train", *command.split()[3:])
        assert (outcome.code, outcome.err) == (0, "")
        assert "came again, in all rows (2)." in outcome.out
    assert "This run is finished" in outcome.out


@pytest.mark.parametrize(
    "word", ["seed=2", "resume=last", "trainer.max_epochs=3", "~optimizer.weight_decay", "report=false"]
)
def test_another_option_would_be_another_run(run: Path, door: Door, word: str) -> None:
    outcome = door("train", f"again={run}", word)
    assert outcome.code == 2
    assert outcome.err.startswith(
        f"error: {word}: the same run anew takes no option but data_dir, device and hydra.run."
    )
    assert [path.name for path in Path("logs").iterdir()] == [BEGUN]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda run: (run / "results.json").unlink(), "this run is unfinished, no results.json is there"),
        (lambda run: (run / "results.json").write_text("{"), "results.json is damaged"),
        (lambda run: (run / "metrics.csv").unlink(), "metrics.csv can't be read, so there is nothing to compare: No"),
        (lambda run: (run / "metrics.csv").write_bytes(b"epoch\n\xff\n"), "metrics.csv can't be read"),
        (lambda run: (run / "metrics.csv").write_text("a,b\n1,2\n"), "it has no epochs or steps"),
        (lambda run: (run / "config.yaml").write_text("model: 3"), "config.yaml can't be used"),
        (lambda run: (run / "config.yaml").unlink(), "config.yaml can't be read"),
        (shutil.rmtree, "there is no such folder"),
    ],
)
def test_a_run_that_can_not_be_had_again_is_told_and_leaves_nothing(
    run: Path, door: Door, damage: Callable[[Path], object], said: str
) -> None:
    damage(run)
    outcome = door("train", f"again={run}")
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert not [path for path in Path("logs").iterdir() if path.name != BEGUN]


def test_a_strangers_run_names_nothing_that_is_called(run: Path, door: Door) -> None:
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("src.model.alexnet.AlexNet", "os.system"))
    outcome = door("train", f"again={run}")
    assert outcome.code == 2
    assert "model._target_=os.system: no YAML file here names it, so it is not called" in outcome.err


def test_the_folder_of_the_run_itself_is_no_place_for_it(run: Path, door: Door) -> None:
    outcome = door("train", f"again={run}", f"hydra.run.dir={run}")
    assert outcome.err == f"error: hydra.run.dir={run.absolute()}: the run itself lies there. Choose another folder.\n"


def test_no_sweep_and_no_search_takes_it(run: Path, door: Door) -> None:
    assert "again: one run is trained anew, and no sweep. Leave out -m." in door("train", "-m", f"again={run}").err
    assert "again: that is for one run." in door("tune", f"again={run}", "n_trials=1").err
    assert "resume: that is for one run." in door("tune", f"resume={run}", "n_trials=1").err


def test_the_last_one_is_the_newest_that_is_finished(in_tmp: Path) -> None:
    for number, name in enumerate(["a", "c", "b"]):
        (in_tmp / "logs" / name / "checkpoints").mkdir(parents=True)
        (in_tmp / "logs" / name / "checkpoints/best.ckpt").touch()
        (in_tmp / "logs" / name / "config.yaml").touch()
        write_results(in_tmp / "logs" / name, 0.5)
        os.utime(in_tmp / "logs" / name / "results.json", (number, number))
    assert run_of("last") == Path("logs/b")


def test_help_shows_it_and_a_typo_is_answered(door: Door) -> None:
    assert re.search(
        r"^  again +a finished run to train anew and compare: its folder, or last", door("train", "--help").out, re.M
    )
    assert "Did you mean again?" in door("train", "agian=last").err


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ([{"epoch": "0", "step": "1", "train/loss": "0.5", "val/acc": ""}], ""),
        ([{"epoch": "0", "step": "1", "train/loss": "0.5"}], ""),
        ([{"epoch": "0", "step": "1", "train/loss": "0.50"}], "train/loss was 0.5, and is 0.50 now"),
        ([{"epoch": "0", "step": "1", "train/loss": "0.5", "val/f1": "1"}], "val/f1 was nothing, and is 1 now"),
        ([{"epoch": "0", "step": "2", "train/loss": "0.6"}], "step was 1, and is 2 now"),
        ([], "epoch was 0, and is nothing now"),
    ],
)
def test_every_digit_row_and_column_counts(now: list[dict[str, str]], said: str) -> None:
    then = [{"epoch": "0", "step": "1", "train/loss": "0.5", "val/acc": ""}]
    assert _parted(then, now).endswith(said)
    assert bool(_parted(then, now)) == bool(said)


def test_times_are_not_compared(in_tmp: Path) -> None:
    (in_tmp / "metrics.csv").write_text(
        "epoch,step,train/loss,train/seconds,val/time,train/images_per_second\n0,1,2,3,4,5\n"
    )
    assert _read(in_tmp) == [{"epoch": "0", "step": "1", "train/loss": "2"}]


@pytest.mark.parametrize("name", ["2026-11-01_10-00-00_mnist_x", "job12_mnist_x", "job12_3_mnist_x", "mnist_x"])
def test_a_new_name_has_the_new_date_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.config.naming._started", lambda: "now")
    assert anew(name) == "now_mnist_x"
