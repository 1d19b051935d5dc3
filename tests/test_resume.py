"""A run that was stopped goes on in its folder, and ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from filelock import FileLock
from omegaconf import OmegaConf

from src.config.folder import LOCK
from src.model.classifier import Classifier
from src.model.predictor import Predictor
from src.training import resume, saving
from src.training.checkpoints import Checkpoints
from tests.conftest import KEPT, ROOT, SHORT, Once, Outcome, only_run, results_of, train, wait_for, write_folder
from tests.processes import Command

Door = Callable[..., Outcome]


class Power(Exception):
    """It fails."""


# 6 batches an epoch, 1 to validate
OPTIONS = ["dataset=image_folder", "data_dir=images", *SHORT, "seed=3", "scheduler=constant", "trainer.max_epochs=2"]
OPTIONS += ["callbacks.checkpoint_steps=2", KEPT]


@pytest.fixture
def options(images_folder: Path, in_tmp: Path) -> list[str]:
    return OPTIONS


def at_call(
    monkeypatch: pytest.MonkeyPatch, name: str, number: int, do: Callable[[], object], owner: type = Classifier
) -> None:
    """Have the owner's method `name` do this too in its call of that number, counted from 1."""
    original, calls = getattr(owner, name), iter(range(1, 1_000_000))

    def counted(*arguments: Any) -> Any:
        result = original(*arguments)
        if next(calls) == number:
            do()
        return result

    monkeypatch.setattr(owner, name, counted)


def fail() -> None:
    raise Power


def broken(door: Door, monkeypatch: pytest.MonkeyPatch, step: int, *arguments: str) -> None:
    """A run that ends in step `step` with nothing said and nothing saved."""
    with monkeypatch.context() as patch:
        patch.setattr(saving.Writer, "busy", False)  # however slow the disk is
        at_call(patch, "training_step", step, fail)
        with contextlib.suppress(Power):  # which Hydra lets through where a coverage tool or a debugger looks on
            assert door("train", *arguments).code == 1


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def content(run: Path) -> dict[str, Any]:
    found = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    return {key: found[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "position")}


def assert_same(run: Path, other: Path) -> None:
    one, two = content(run), content(other)
    assert one["position"] == two["position"]
    assert all(torch.equal(value, two["state_dict"][name]) for name, value in one["state_dict"].items())
    assert str(one["optimizer_states"]) == str(two["optimizer_states"])
    assert (run / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
    assert results_of(run)["test"] == results_of(other)["test"]


@pytest.fixture(scope="session")
def prepared(once: Once) -> Path:
    """A folder with the run that nothing interrupts, `whole`, and those that ended in step 3 and in step 10."""

    def make() -> None:
        write_folder(Path("images"), classes=2, count=30)
        assert train(*OPTIONS, "hydra.run.dir=whole") == 0
        for step in (3, 10):
            with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Power):
                patch.setattr(saving.Writer, "busy", False)  # however slow the disk is
                at_call(patch, "training_step", step, fail)
                assert train(*OPTIONS, f"hydra.run.dir=broken-{step}") == 1

    return once("resume", make)


@pytest.fixture
def whole(prepared: Path, options: list[str], in_tmp: Path) -> Path:
    """The run that nothing interrupts."""
    return shutil.copytree(prepared / "whole", in_tmp / "whole")


@pytest.fixture
def at_3(prepared: Path, options: list[str], in_tmp: Path) -> Path:
    """The run r that was broken in step 3."""
    return shutil.copytree(prepared / "broken-3", in_tmp / "r")


@pytest.fixture
def at_10(prepared: Path, options: list[str], in_tmp: Path) -> Path:
    """The run r that was broken in step 10."""
    return shutil.copytree(prepared / "broken-10", in_tmp / "r")


class TestGoingOn:
    def test_in_the_same_folder_with_the_saved_config(self, door: Door, at_10: Path, whole: Path) -> None:
        run = at_10
        assert not (run / "results.json").exists()
        outcome = door("train", f"resume={run}")
        assert outcome.code == 0, outcome.err
        assert "goes on at  epoch 2 of 2, batch 3 of 6" in outcome.out
        assert_same(run, whole)
        assert results_of(run)["train"]["interruptions"] == 1
        assert results_of(run)["command"].endswith(KEPT)
        assert OmegaConf.load(run / "config.yaml").resume is None
        assert {path.name for path in run.iterdir()} == {path.name for path in whole.iterdir()}

    def test_the_same_command_goes_on_and_then_has_nothing_to_do(
        self, door: Door, options: list[str], at_3: Path, whole: Path
    ) -> None:
        command = [*options, "hydra.run.dir=r"]
        assert door("train", *command).code == 0
        assert_same(at_3, whole)
        before = sorted((path, path.stat().st_mtime_ns) for path in at_3.rglob("*"))
        outcome = door("train", *command)
        assert outcome.code == 0
        assert "This run is finished" in outcome.out
        assert door("train", "resume=r").code == 0
        assert sorted((path, path.stat().st_mtime_ns) for path in at_3.rglob("*")) == before

    def test_a_group_that_is_named_again_changes_nothing(self, door: Door, whole: Path) -> None:
        before = (whole / "results.json").read_bytes()
        outcome = door("train", "resume=whole", "trainer=default")
        assert outcome.code == 0, outcome.err
        assert "This run is finished" in outcome.out
        assert (whole / "results.json").read_bytes() == before

    def test_a_run_that_saved_nothing_begins_again(
        self, door: Door, options: list[str], whole: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken(door, monkeypatch, 1, *options)
        run = only_run(in_tmp)
        assert not (run / "checkpoints/last.ckpt").exists()
        assert door("train", "resume=last").code == 0
        assert_same(run, whole)

    def test_last_is_the_newest_unfinished_run_that_nobody_works_on(
        self, door: Door, prepared: Path, whole: Path, in_tmp: Path
    ) -> None:
        assert door("train", "resume=last").code == 2
        for name in ("a", "b", "c"):
            shutil.copytree(prepared / "broken-3", in_tmp / "logs" / name)
            os.utime(in_tmp / "logs" / name / "config.yaml", (time.time(), 1_000_000_000 + ord(name)))
        shutil.copy(whole / "results.json", in_tmp / "logs/c")
        with FileLock(in_tmp / "logs/b" / LOCK):
            assert door("train", "resume=last").code == 0
        assert (in_tmp / "logs/a/results.json").exists()
        assert not (in_tmp / "logs/b/results.json").exists()

    def test_more_epochs_with_averages_batch_norm_and_accumulated_batches(
        self, door: Door, options: list[str], in_tmp: Path
    ) -> None:
        more = ["callbacks=weight_averaging", "model=alexnet_bn", "model.widths=[4,4,4,4,4]", "model.hidden=16"]
        words = [*options, *more, "trainer.accumulate_grad_batches=2", "trainer.check_val_every_n_epoch=2"]
        assert door("train", *words, "trainer.max_epochs=4", "hydra.run.dir=four").code == 0
        assert door("train", *words, "trainer.max_epochs=2", "hydra.run.dir=two").code == 0
        assert door("train", "resume=two", "trainer.max_epochs=4").code == 0
        four, two = content(in_tmp / "four"), content(in_tmp / "two")
        assert all(torch.equal(value, two["state_dict"][name]) for name, value in four["state_dict"].items())

    def test_more_epochs_for_a_finished_run(self, door: Door, options: list[str], whole: Path, in_tmp: Path) -> None:
        assert door("train", *options, "trainer.max_epochs=1", "hydra.run.dir=short").code == 0
        outcome = door("train", "resume=short", "trainer.max_epochs=2", "num_workers=2", "logger=csv")
        assert outcome.code == 0, outcome.err
        assert results_of(in_tmp / "short")["train"]["interruptions"] == 0
        one, two = content(in_tmp / "short"), content(whole)
        assert all(torch.equal(value, two["state_dict"][name]) for name, value in one["state_dict"].items())
        assert results_of(in_tmp / "short")["train"]["epochs"] == 2

    def test_a_finished_run_keeps_one_file_of_weights_and_goes_on_from_it_with_a_new_optimizer(
        self, door: Door, options: list[str], in_tmp: Path
    ) -> None:
        few = [*options[:-1], "scheduler=cosine", "callbacks=weight_averaging", "hydra.run.dir=few"]
        assert door("train", *few).code == 0
        last, best = (in_tmp / f"few/checkpoints/{name}.ckpt" for name in ("last", "best"))
        assert [path.name for path in sorted(last.parent.iterdir())] == ["best.ckpt", "last.ckpt"]
        assert last.samefile(best)
        weights = results_of(in_tmp / "few")["parameters"] * 4
        assert last.stat().st_size < 1.1 * weights + 100_000
        before = content(in_tmp / "few")
        assert [state["state"] for state in before["optimizer_states"]] == [{}]
        outcome = door("train", "resume=few", "trainer.max_epochs=3")
        assert outcome.code == 0, outcome.err
        assert "A new optimizer goes on from the best weights" in outcome.out
        assert results_of(in_tmp / "few")["train"]["epochs"] == 3
        assert last.samefile(best)
        assert content(in_tmp / "few")["position"]["steps"] == 18
        assert list(pd.read_csv(in_tmp / "few/metrics.csv").epoch) == [0, 1, 2]

    def test_the_file_of_a_finished_run_holds_the_best_weights(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        best: list[dict[str, torch.Tensor]] = []
        original = Checkpoints._write

        def write(self: Checkpoints, trainer: Any, path: Path, weights_only: bool) -> None:
            if path == self.best:
                best.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
            original(self, trainer, path, weights_only)

        monkeypatch.setattr(Checkpoints, "_write", write)
        # so slowly learned that the second epoch's accuracy is no better
        assert door("train", *options[:-1], "optimizer.lr=1e-6", "hydra.run.dir=r").code == 0
        kept = torch.load(in_tmp / "r/checkpoints/last.ckpt", weights_only=True)
        assert kept["position"]["finished"]
        assert kept["best_step"] < kept["position"]["steps"], "else nothing is shown here"
        assert all(torch.equal(value, best[-1][name]) for name, value in kept["state_dict"].items())

    def test_where_there_are_no_links_two_files_are_left(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.link", lambda *_, **__: (_ for _ in ()).throw(PermissionError("no links here")))
        assert door("train", *options[:-1], "trainer.max_epochs=1", "hydra.run.dir=r").code == 0
        last, best = (in_tmp / f"r/checkpoints/{name}.ckpt" for name in ("last", "best"))
        assert not last.samefile(best)
        assert last.read_bytes() == best.read_bytes()

    @pytest.mark.parametrize(
        "scheduler",
        ['cosine optimizer.groups=[{match:"^classifier",lr:0.01}]', "one_cycle", "onecyclelr scheduler.max_lr=0.1"],
    )
    def test_more_epochs_are_trained_at_the_rates_of_a_run_that_had_them_at_once(
        self, door: Door, options: list[str], in_tmp: Path, scheduler: str
    ) -> None:
        words = [*options, *f"scheduler={scheduler}".split(), "trainer.log_every_n_steps=1", "logger=csv"]
        assert door("train", *words, "trainer.max_epochs=2", "hydra.run.dir=whole").code == 0
        assert door("train", *words, "trainer.max_epochs=1", "hydra.run.dir=r").code == 0
        assert door("train", "resume=r", "trainer.max_epochs=2").code == 0
        whole, gone_on = (pd.read_csv(in_tmp / run / "steps.csv") for run in ("whole", "r"))
        rates = [table.set_index("step").filter(like="train/learning_rate").dropna() for table in (whole, gone_on)]
        assert len(rates[1]) == len(rates[0]) == 12
        assert rates[1][6:].equals(rates[0][6:])

    def test_from_a_checkpoint_that_is_named(self, door: Door, at_10: Path, whole: Path) -> None:
        outcome = door("train", "resume=r/checkpoints/last.previous.ckpt")
        assert "goes on at  epoch 1 of 2, the validation after batch 6 of 6" in outcome.out
        assert_same(at_10, whole)

    def test_killed_again_after_going_on_from_an_older_checkpoint(
        self, door: Door, options: list[str], whole: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken(door, monkeypatch, 12, *options, "hydra.run.dir=r")
        broken(door, monkeypatch, 1, "resume=r/checkpoints/last.previous.ckpt")
        outcome = door("train", "resume=r")
        assert "goes on at  epoch 2 of 2, batch 3 of 6" in outcome.out, "not from one that is newer than the logs"
        assert_same(in_tmp / "r", whole)

    @pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
    def test_damaged_checkpoint_falls_back_to_the_one_before(
        self, door: Door, at_10: Path, whole: Path, damage: str
    ) -> None:
        last = at_10 / "checkpoints/last.ckpt"
        whole_bytes = bytearray(last.read_bytes())
        if damage == "gone":
            last.unlink()
        elif damage == "cut":
            last.write_bytes(whole_bytes[: len(whole_bytes) // 2])
        else:
            whole_bytes[
                whole_bytes.index(torch.load(last)["state_dict"]["network.classifier.1.bias"].numpy().tobytes())
            ] ^= 1
            last.write_bytes(whole_bytes)
        outcome = door("train", "resume=r")
        what = "does not exist" if damage == "gone" else "is damaged or no checkpoint"
        assert f"warning: checkpoint={last}: it {what}." in outcome.err
        assert f"Going on from {saving.previous(last)}, the one before it." in outcome.err
        assert outcome.code == 0, outcome.err
        assert "goes on at  epoch 1 of 2, the validation after batch 6 of 6" in outcome.out
        assert_same(at_10, whole)

    def test_a_table_that_has_lost_rows_is_said_and_goes_on(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken(door, monkeypatch, 4, *options, "trainer.log_every_n_steps=1", "hydra.run.dir=r")
        (in_tmp / "r/steps.csv").unlink()
        outcome = door("train", "resume=r")
        assert outcome.code == 0, outcome.err
        assert f"warning: {in_tmp}/r/steps.csv has lost 2 rows from before the interruption." in outcome.err


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ("seed=4", "was begun with seed=3, and this command says seed=4"),
            ("optimizer=sgd", "optimizer."),
            ("model.dropout=0.1", "was begun with model.dropout=0.5"),
            ("devices=2", "was begun with devices=1"),
            ("dataset.fit=pad", "was begun with dataset.fit=crop, and this command says dataset.fit=pad"),
            ("trainer.gradient_clip_val=0.1", "was begun with trainer.gradient_clip_val=null"),
            ("model.padding=null", "model.padding=null: expected"),
            ("dataset/augmentation=none", "dataset.augmentation.flip._target_=src.data"),
        ],
    )
    def test_another_run(self, door: Door, whole: Path, options: list[str], change: str, sentence: str) -> None:
        for command in (["resume=whole", change], [*options, "hydra.run.dir=whole", change]):
            outcome = door("train", *command)
            assert outcome.code == 2
            assert sentence in outcome.err
            assert len(outcome.err.splitlines()) == 1

    def test_the_data_set_is_named_before_what_it_moves(self, door: Door, whole: Path) -> None:
        outcome = door("train", "resume=whole", "dataset=mnist")
        assert outcome.code == 2
        assert "was begun with dataset.name=image_folder, and this command says dataset.name=mnist." in outcome.err

    def test_null_is_a_value_like_any_other(
        self, door: Door, options: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken(door, monkeypatch, 1, *options, "callbacks=early_stopping", "hydra.run.dir=r")
        outcome = door("train", "resume=r", "callbacks.early_stopping=null")
        assert outcome.code == 2
        assert "r was begun with callbacks.early_stopping._target_=lightning.pytorch.callbacks.Early" in outcome.err

    @pytest.mark.parametrize("name", ["results.json", "metrics.csv", "tensorboard/thesis.txt", "checkpoints/mine.pt"])
    def test_a_folder_with_something_of_another_program(
        self, door: Door, options: list[str], in_tmp: Path, name: str
    ) -> None:
        theirs = in_tmp / "theirs" / name
        theirs.parent.mkdir(parents=True)
        theirs.write_text("mine")
        outcome = door("train", *options, "hydra.run.dir=theirs")
        assert outcome.code == 2
        assert f"{name.partition('/')[0]} lies there without a config.yaml. Choose another folder." in outcome.err
        assert theirs.read_text() == "mine"

    def test_what_is_no_run(self, door: Door, whole: Path, images_folder: Path, in_tmp: Path) -> None:
        (in_tmp / "alone").mkdir()
        shutil.copy(whole / "checkpoints/last.ckpt", in_tmp / "alone")
        for run, sentence in {
            "": "resume=: ",
            str(images_folder): "that folder holds no run",
            "nothing": "there is no such run or checkpoint",
            "alone/last.ckpt": "that file does not lie in a run's checkpoints",
        }.items():
            outcome = door("train", f"resume={run}")
            assert outcome.code == 2
            assert sentence in outcome.err

    def test_weights_alone(self, door: Door, whole: Path) -> None:  # `whole` kept its optimizer apart from them
        outcome = door("train", "resume=whole/checkpoints/best.ckpt", "trainer.max_epochs=3")
        assert outcome.code == 2
        assert "holds the weights alone" in outcome.err

    def test_fewer_epochs_than_are_done(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        more = ["batch_size=24", "trainer.max_epochs=3", "callbacks.checkpoint_steps=1"]
        broken(door, monkeypatch, 6, *options, *more, "hydra.run.dir=r")
        outcome = door("train", "resume=r", "trainer.max_epochs=1")
        assert outcome.code == 2
        assert "has 2 epochs behind it" in outcome.err

    def test_a_run_that_another_process_works_on(self, door: Door, at_3: Path) -> None:
        with FileLock(at_3 / LOCK):
            outcome = door("train", "resume=r")
        assert outcome.code == 2
        assert "another process works on this run" in outcome.err

    @pytest.mark.parametrize(("change", "checksum"), [("pixel", "content"), ("label", "names")])
    def test_images_that_have_changed(
        self,
        door: Door,
        options: list[str],
        images_folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        change: str,
        checksum: str,
    ) -> None:
        broken(door, monkeypatch, 3, *options, f"dataset.checksum={checksum}", "hydra.run.dir=r")
        first, second = images_folder / "class0/000.png", images_folder / "class1/000.png"
        if change == "pixel":
            shutil.copy(images_folder / "class0/001.png", first)
        else:
            shutil.move(second, images_folder / "class0/100.png")
            shutil.copy(images_folder / "class0/001.png", second)
        outcome = door("train", "resume=r")
        assert outcome.code == 2
        assert "have changed since this run began (checksum " in outcome.err

    def test_classes_that_have_another_name(self, door: Door, at_3: Path, images_folder: Path) -> None:
        (images_folder / "class1").rename(images_folder / "other")
        outcome = door("train", "resume=r")
        assert outcome.code == 2
        assert "this run began with the classes class0, class1, and now they are class0, other. Bring" in outcome.err

    def test_in_a_sweep(self, door: Door) -> None:
        outcome = door("train", "-m", "resume=last", "seed=1,2")
        assert outcome.code == 2
        assert "goes on where it stopped when it is started again in its hydra.sweep.dir" in outcome.err


class TestSignals:
    @pytest.mark.parametrize(
        ("number", "code", "method", "call"),
        [
            (signal.SIGTERM, 143, "training_step", 9),
            (signal.SIGINT, 130, "validation_step", 1),
            (signal.SIGUSR1, 138, "training_step", 6),
        ],
    )
    def test_the_step_ends_a_checkpoint_is_written_and_the_exit_code_says_why(
        self,
        door: Door,
        options: list[str],
        whole: Path,
        in_tmp: Path,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
        code: int,
        method: str,
        call: int,
    ) -> None:
        with monkeypatch.context() as patch:
            at_call(patch, method, call, send(number))
            # longer validations, so that there is a next batch to stop at
            stopped = door("train", *options, "callbacks.checkpoint_steps=null", "hydra.run.dir=r")
        name = signal.Signals(number).name
        assert stopped.code == code, stopped.err
        assert f"{name}: saving after this step" in stopped.err
        ended = "Stopped." if number == signal.SIGINT else f"Stopped by {name}."
        assert f"{ended} To continue:\npython -m src.train resume=r\n" in stopped.err
        done = {"training_step": call, "validation_step": 6}[method]
        assert content(in_tmp / "r")["position"]["steps"] == done
        assert not (in_tmp / "r/results.json").exists()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert door("train", "resume=r").code == 0
        assert_same(in_tmp / "r", whole)

    def test_within_ten_seconds_and_a_second_signal_at_once(self, options: list[str], in_tmp: Path) -> None:
        for signals, code in ([signal.SIGTERM], 143), ([signal.SIGINT, signal.SIGTERM], 143):
            run = in_tmp / f"run{len(signals)}"
            process = Command("src.train", *options, "trainer.max_epochs=100000", f"hydra.run.dir={run}")
            wait_for((run / "checkpoints/last.ckpt").exists, process)
            started = time.monotonic()
            for number in signals:
                process.send_signal(number)
            _, error = process.communicate(timeout=30)
            assert process.returncode == code
            assert time.monotonic() - started < 10
            assert "Traceback" not in error
            assert content(run)["position"]["steps"] > 0

    def test_an_evaluation_says_no_more_than_its_exit_code(
        self, door: Door, whole: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        at_call(monkeypatch, "answer", 1, send(signal.SIGINT), owner=Predictor)
        outcome = door("eval", "checkpoint=whole/checkpoints/best.ckpt")
        assert outcome.code == 130
        assert outcome.err.strip().splitlines()[-1] == "Stopped."

    def test_before_training_there_is_nothing_to_save(
        self, door: Door, options: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        at_call(monkeypatch, "configure_optimizers", 1, send(signal.SIGTERM))
        outcome = door("train", *options, "hydra.run.dir=r")
        assert outcome.code == 143
        assert "nothing was saved yet" in outcome.err

    @pytest.mark.skipif(sys.platform != "linux", reason="reads in /proc how far a process has come")
    @pytest.mark.parametrize("library", ["libtorch_cpu", "libtorch_python", "torchvision"])
    def test_while_it_starts_it_stops_with_a_sentence_and_leaves_nothing(
        self, options: list[str], in_tmp: Path, library: str
    ) -> None:
        command = [sys.executable, "-m", "src.train", *options, "trainer.max_epochs=100000"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        maps = Path(f"/proc/{process.pid}/maps")
        wait_for(lambda: library in maps.read_text(), process)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 130, error
        assert "Stopped." in error
        assert "Traceback" not in error

    def test_gradients_that_wait_for_more_are_taken_along(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        command = [*options, "trainer.accumulate_grad_batches=4", "trainer.max_epochs=1"]
        assert door("train", *command, "hydra.run.dir=one").code == 0
        with monkeypatch.context() as patch:
            at_call(patch, "training_step", 2, send(signal.SIGTERM))
            assert door("train", *command, "hydra.run.dir=two").code == 143
        assert content(in_tmp / "two")["position"]["batches"] == 4, "the step of four batches has ended"
        assert door("train", "resume=two").code == 0
        assert_same(in_tmp / "two", in_tmp / "one")

    def test_max_time_stops_in_the_same_way(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ticks = count()
        clock = SimpleNamespace(monotonic=lambda: next(ticks) / 8, perf_counter=time.perf_counter)
        monkeypatch.setattr("src.training.checkpoints.time", clock)  # each look at it is an eighth of a second later
        command = [*options, "trainer.max_epochs=1000", "hydra.run.dir=r", "trainer.max_time=00:00:00:01"]
        outcome = door("train", *command)
        assert outcome.code == 124
        assert "Stopped by trainer.max_time. To continue:\n" in outcome.err
        first = content(in_tmp / "r")["position"]["steps"]
        assert door("train", *command).code == 124, "each start has its time"
        assert content(in_tmp / "r")["position"]["steps"] > first > 0
        outcome = door("train", *options, "trainer.max_time=ten")
        assert outcome.code == 2
        assert "trainer.max_time=ten: expected days, hours, minutes and seconds as DD:HH:MM:SS" in outcome.err

    def test_ctrl_c_stops_the_sweep(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sweep = ["-m", *options, "trainer.max_epochs=1", "seed=3,4", "hydra.sweep.dir=sweep"]
        with monkeypatch.context() as patch:
            at_call(patch, "training_step", 3, send(signal.SIGINT))
            stopped = door("train", *sweep)
            assert stopped.code == 130
            assert "To continue the sweep:\npython -m src.train -m sweep=sweep\n" in stopped.err
        jobs = [path.parent.name for path in (in_tmp / "sweep").glob("*/config.yaml")]
        assert len(jobs) == 1
        assert door("train", *sweep).code == 0, "the same command goes on with the sweep"
        found = sorted(path.parent for path in (in_tmp / "sweep").glob("*/results.json"))
        assert [results_of(run)["seed"] for run in found] == [3, 4]
        assert [results_of(run)["train"]["interruptions"] for run in found] == [1, 0]


@pytest.fixture
def slurm(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SLURM job whose `scontrol` writes down what it was told."""
    told, tools = in_tmp / "told", in_tmp / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {told}\n')
    (tools / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    names = {"JOB_ID": "4711", "NTASKS": "1", "JOB_NAME": "train", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in {**names, "JOB_NUM_NODES": "1", "NTASKS_PER_NODE": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return told


class TestSlurm:
    def test_the_job_is_requeued_and_its_command_goes_on_by_itself(
        self, door: Door, options: list[str], whole: Path, slurm: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            at_call(patch, "training_step", 9, send(signal.SIGUSR1))
            assert door("train", *options).code == 138
        run = only_run(in_tmp)
        assert run.name.startswith("job4711_")
        assert slurm.read_text() == "requeue 4711\n"
        assert content(run)["position"]["steps"] == 9
        assert door("train", *options, "seed=4", "trainer.max_steps=1", "test=false").code == 0, (
            "another command of the same job is another run"
        )
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        outcome = door("train", *options)
        assert outcome.code == 0, outcome.err
        assert "goes on at  epoch 2 of 2, batch 4 of 6" in outcome.out
        assert_same(run, whole)
        assert len(list((in_tmp / "logs").iterdir())) == 2

    def test_a_signal_in_the_test_requeues_too(
        self, door: Door, options: list[str], whole: Path, slurm: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            at_call(patch, "test_step", 1, send(signal.SIGUSR1))
            assert door("train", *options).code == 138
        assert slurm.read_text() == "requeue 4711\n"
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        assert door("train", *options).code == 0
        assert_same(only_run(in_tmp), whole)

    def test_an_array_has_a_number_for_each_task(
        self, door: Door, options: list[str], slurm: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4700")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "11")
        at_call(monkeypatch, "training_step", 2, send(signal.SIGUSR1))
        assert door("train", *options).code == 138
        assert slurm.read_text() == "requeue 4700_11\n"

    def test_other_signals_do_not_requeue_and_a_refusal_is_said(
        self, door: Door, options: list[str], slurm: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            at_call(patch, "training_step", 2, send(signal.SIGTERM))
            assert door("train", *options).code == 143
        assert not slurm.exists()
        (in_tmp / "tools/scontrol").write_text("#!/bin/sh\necho no such job >&2\nexit 1\n")
        at_call(monkeypatch, "training_step", 2, send(signal.SIGUSR1))
        outcome = door("train", *options, "hydra.run.dir=r")
        assert outcome.code == 1
        assert "scontrol requeue 4711 failed: no such job. Submit the job again; the run goes on." in outcome.err
        assert content(in_tmp / "r")["position"]["steps"] == 2


class TestWriting:
    def test_a_file_is_whole_or_the_one_before_it_stands(self, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = in_tmp / "last.ckpt"
        for number in (1, 2):
            saving.write({"number": torch.tensor(number)}, path)
        assert int(torch.load(path)["number"]) == 2
        assert int(torch.load(saving.previous(path))["number"]) == 1

        def break_off(value: Any, file: Any) -> None:
            file.write(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(saving.torch, "save", break_off)
        with pytest.raises(OSError, match="No space left"):
            saving.write({}, path)
        assert int(torch.load(path)["number"]) == 2
        assert sorted(item.name for item in in_tmp.iterdir()) == ["last.ckpt", "last.previous.ckpt"]

    def test_training_changes_nothing_that_is_being_written(self, in_tmp: Path) -> None:
        one, weights = saving.Writer(), torch.zeros(1_000_000)
        one.save_checkpoint({"weights": weights}, in_tmp / "it.ckpt")
        weights.fill_(1)
        one.wait()
        assert not torch.load(in_tmp / "it.ckpt")["weights"].any()

    def test_an_error_of_the_thread_is_raised(self, in_tmp: Path) -> None:
        one = saving.Writer()
        one.save_checkpoint({}, in_tmp / "nowhere/it.ckpt")
        with pytest.raises(FileNotFoundError):
            one.wait()

    def test_by_minutes_by_steps_and_at_the_end_of_each_epoch(
        self, door: Door, options: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        saved: list[tuple[int, bool]] = []
        original = Checkpoints._save

        def save(self: Any, trainer: Any, **before: bool) -> None:
            saved.append((trainer.global_step, before.get("validate", False)))
            original(self, trainer, **before)

        monkeypatch.setattr(Checkpoints, "_save", save)
        monkeypatch.setattr(saving.Writer, "busy", False)  # however slow the disk is
        for more, expected in {
            "callbacks.checkpoint_steps=null": [(6, True), (12, True), (12, False)],
            "callbacks.checkpoint_steps=4": [(4, False), (6, True), (8, False), (12, True), (12, False)],
            "callbacks.checkpoint_minutes=1e-9": [(n, n in (6, 12)) for n in range(13)] + [(12, False)],
            "trainer.check_val_every_n_epoch=5": [(6, False), (12, False)],
        }.items():
            saved.clear()
            base = [text for text in options if "checkpoint_steps" not in text]
            assert door("train", *base, more).code == 0
            assert saved == expected, more


class TestBest:
    def made(self, folder: Path, name: str, step: int) -> None:
        torch.save({"global_step": step}, folder / name)

    def test_weights_of_a_part_that_is_lost_give_way_to_those_before(self, in_tmp: Path) -> None:
        self.made(in_tmp, "best.ckpt", 12)
        self.made(in_tmp, "best.previous.ckpt", 6)
        resume.restore_best(in_tmp / "best.ckpt", 6)
        assert torch.load(in_tmp / "best.ckpt")["global_step"] == 6

    @pytest.mark.parametrize(("best", "older"), [(6, 3), (12, 9)])
    def test_others_stay(self, in_tmp: Path, best: int, older: int) -> None:
        self.made(in_tmp, "best.ckpt", best)
        self.made(in_tmp, "best.previous.ckpt", older)
        resume.restore_best(in_tmp / "best.ckpt", 6)
        assert torch.load(in_tmp / "best.ckpt")["global_step"] == best
