"""Whole runs through the front doors: what they leave behind, and that train and eval agree."""

from __future__ import annotations

import contextlib
import csv
import os
import pickle
import re
import shlex
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.config.errors import UserError
from src.config.schema import CONFIGS
from src.model import saved as checkpoint
from src.model.alexnet import AlexNet
from src.model.predictor import Predictor
from src.model.provenance import fingerprint
from src.model.saved import load
from src.results.intervals import percent
from tests.conftest import ROOT, SHORT, Once, Outcome, only_run, results_of, train, write_folder, write_idx
from tests.processes import Command
from tests.processes import run as run_command
from tests.test_resume import broken

Door = Callable[..., Outcome]


# 12 images to train on, and steps that are their gradient alone
TWELVE = ["dataset.limit=14", "dataset.valid_fraction=0.12", "dataset/augmentation=none", "model.dropout=0"]
TWELVE += ["precision=32-true", "scheduler=constant", "optimizer=sgd", "optimizer.momentum=0", "optimizer.lr=0.05"]
TWELVE += ["optimizer.nesterov=false", "seed=3"]


def folder_run(folder: Path, *more: str) -> list[str]:
    return ["dataset=image_folder", f"data_dir={folder}", *SHORT, *more]


@pytest.fixture(scope="session")
def finished(once: Once) -> Path:
    """A folder with a finished run below logs/."""

    def make() -> None:
        write_folder(Path("images"), classes=2, count=30)
        assert train(*folder_run(Path("images"), "seed=3", "trainer.max_epochs=2", "report=true")) == 0

    return once("runs", make)


@pytest.fixture
def run(finished: Path, in_tmp: Path, images_folder: Path) -> Path:
    shutil.copytree(finished / "logs", in_tmp / "logs")
    return only_run(in_tmp)


class TestWhatARunLeaves:
    def test_files_and_results(self, run: Path) -> None:
        assert {path.name for path in run.iterdir()} == {
            "checkpoints",
            "config.yaml",
            "metrics.csv",
            "report",
            "report.html",
            "results.json",
            "steps.csv",
            "predictions.csv",
            "summary.png",
            "tensorboard",
        }
        assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
        results = results_of(run)
        assert results["dataset"]["name"] == "image_folder"
        assert results["dataset"]["source"] == "full"
        assert (results["model"], results["optimizer"], results["seed"]) == ("alexnet", "adamw", 3)
        assert results["device"] == "cpu"
        assert results["precision"] in ("32-true", "bf16-mixed")
        assert results["parameters"] == 4_930
        assert results["train"]["epochs"] == 2
        assert results["train"]["seconds"] > 0
        assert results["train"]["images_per_second"] > 0
        assert (results["train"]["images"], results["val"]["images"], results["test"]["images"]) == (48, 6, 6)
        assert 0 <= results["val"]["accuracy"] <= 1
        assert 0 <= results["test"]["accuracy"] <= 1
        assert results["test"]["loss"] > 0
        assert results["checkpoint"] == "checkpoints/best.ckpt"
        assert "data_dir=images" in results["command"]
        assert results["command"].startswith("python -m src.train dataset=image_folder")
        assert results["versions"]["torch"] == torch.__version__.partition("+")[0]
        assert results["machine"]["cores"] == os.cpu_count()
        assert set(results["git"] or {"revision": 0, "modified": 0}) == {"revision", "modified"}
        with Image.open(run / "summary.png") as picture:
            assert min(picture.size) > 500

    def test_name_says_when_and_what(self, run: Path) -> None:
        date, time, *what = run.name.split("_")
        assert len(date.split("-")) == len(time.split("-")) == 3
        assert "_".join(what).startswith("image_folder_alexnet_adamw_max_epochs-2_")

    def test_resolved_config_has_no_auto_mean(self, run: Path) -> None:
        config = OmegaConf.load(run / "config.yaml")
        assert config.seed == 3
        assert len(config.dataset.mean) == 3

    def test_metrics_csv_has_a_row_an_epoch(self, run: Path) -> None:
        with (run / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [(row["epoch"], row["step"]) for row in rows] == [("0", "5"), ("1", "11")]
        assert all(value for row in rows for value in row.values()), "training and validation together"
        names = {"train/acc", "train/loss", "val/acc", "val/loss"}
        assert names | {"step", "epoch"} == rows[0].keys(), "no timing: the same run gives the same bytes"
        assert (run / "steps.csv").read_text().startswith("step,train/learning_rate\n")

    def test_tensorboard_has_curves_hyperparameters_and_the_config(self, run: Path) -> None:
        events = EventAccumulator(str(run / "tensorboard")).Reload()
        scalars = set(events.Tags()["scalars"])
        wanted = {
            "train/loss",
            "train/acc",
            "val/loss",
            "val/acc",
            "train/learning_rate",
            "train/images_per_second",
        }
        assert wanted <= scalars
        assert "best/test/acc" in scalars
        text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
        assert "seed: 3" in text

    def test_checkpoint_describes_itself_and_loads_with_weights_only(self, run: Path) -> None:
        for name in ("best.ckpt", "last.ckpt"):
            content = torch.load(run / "checkpoints" / name, weights_only=True)
            about = content["about"]
            assert about["config"]["seed"] == 3
            assert about["classes"] == ["class0", "class1"]
            assert (about["channels"], about["source"]) == (3, "full")
            assert about["command"] == results_of(run)["command"]
        assert "optimizer_states" in content

    def test_screen_fits_80_columns_and_is_plain_when_piped(self, door: Door, images_folder: Path) -> None:
        outcome = door("train", *folder_run(images_folder, "hydra.run.dir=r"))
        assert outcome.code == 0, outcome.err
        assert "\x1b" not in outcome.out
        assert max(len(line) for line in outcome.out.splitlines()) <= 80
        for words in (
            "image_folder, 2 classes, 3x12x12 resized to 67x67",
            "writes to",
            "Conv2d",
            "4 x 16 x 16",
        ):
            assert words in outcome.out
        for words in (
            "test accuracy",
            "test loss",
            "6 images of image_folder",
            "images/s",
            "src.eval run=r",
        ):
            assert words in outcome.out
        assert outcome.out.isascii()


def test_square_brackets_of_folders_and_classes_stand_on_every_screen(door: Door, in_tmp: Path) -> None:
    images = write_folder(in_tmp / "images", classes=2, count=15)
    (images / "class0").rename(images / "[a]")
    trained = door("train", *folder_run(images, "hydra.run.dir=x[b]"))
    assert trained.code == 0, trained.err
    assert re.search(r"writes to +x\[b\] *$", trained.out, re.MULTILINE)
    (command,) = re.findall(r"evaluate: +python -m src\.eval (.*)", trained.out)
    scored = door("eval", *shlex.split(command))
    assert scored.code == 0, scored.err
    assert re.search(r"^ *true +accuracy +\[a\] +cla", scored.out, re.MULTILINE)
    assert re.search(r"^ *\[a\] ", scored.out, re.MULTILINE)
    answered = door("predict", *shlex.split(command), "input=images/[[]a]/000.png")
    assert answered.code == 0, answered.err
    assert re.search(r"^ *\[a\]/000\.png +(\[a\]|class1) +.*\[a\]", answered.out, re.MULTILINE)
    described = door("export", *shlex.split(command), "output=x[b]/a.pt2", "format=torch_export")
    assert described.code == 0, described.err
    assert "x[b]/a.pt2, " in described.out
    assert "2: [a], class1" in described.out


class TestEval:
    @pytest.mark.parametrize("extra", [[], ["precision=32-true", "model.batch_norm=true"]])
    def test_it_agrees_with_the_runs_own_test_to_the_last_digit(
        self, door: Door, in_tmp: Path, images_folder: Path, extra: list[str]
    ) -> None:
        assert door("train", *folder_run(images_folder, *extra)).code == 0
        results = results_of(only_run(in_tmp))
        moved = in_tmp / "elsewhere" / "mine.ckpt"
        moved.parent.mkdir()
        shutil.move(only_run(in_tmp) / results["checkpoint"], moved)
        shutil.rmtree(in_tmp / "logs")
        outcome = door("eval", f"checkpoint={moved}", "device=cpu")
        assert outcome.code == 0, outcome.err
        test = results["test"]
        words = re.escape(percent(test["accuracy"], interval=test["accuracy_interval"]))
        assert re.search(rf"^ +accuracy +{words}", outcome.out, re.MULTILINE)
        assert f"accuracy {test['accuracy']}, loss {test['loss']}" in " ".join(outcome.out.split())
        assert not (in_tmp / "logs").exists(), "an evaluation leaves nothing behind"

    def test_a_run_is_taken_wherever_a_checkpoint_is(self, door: Door, run: Path, in_tmp: Path) -> None:
        Image.new("RGB", (12, 12)).save(in_tmp / "image.png")
        (in_tmp / "logs" / "RUN").symlink_to(run)
        for words in (["eval", "device=cpu"], ["predict", "input=image.png"], ["export", "output=g.pt2"]):
            name, *others = words
            others += ["format=torch_export"] if name == "export" else []
            outcome = door(name, "run=logs/RUN", *others)
            assert (outcome.code, outcome.err) == (0, ""), name
            assert outcome.out.startswith("checkpoint: logs/RUN/checkpoints/best.ckpt\n"), name
        assert "checkpoint and run mean the same." in door("eval", "run=last", f"checkpoint={run}").err
        assert door("demo", "run=nothing").err.startswith("error: checkpoint=nothing: it does not exist. Name a .ckpt")
        assert door("eval").err == (
            "error: checkpoint: a value is needed. Expected a .ckpt file, a run's folder or last; also as run=.\n"
        )
        assert "run: there is no such key" in door("train", "run=last").err

    def test_each_split_is_scored_with_a_row_a_class(self, door: Door, run: Path) -> None:
        for split, count in (("train", 48), ("val", 6), ("test", 6)):
            outcome = door("eval", f"checkpoint={run}/checkpoints/best.ckpt", f"split={split}", "device=cpu")
            assert outcome.code == 0, outcome.err
            assert f"{split} split, {count} images" in outcome.out
            rows = [line.split() for line in outcome.out.splitlines() if line.strip().startswith("class")]
            counts = [int(cell) for row in rows for cell in row[2:] if cell.isdigit()]
            assert sum(counts) == count

    def test_images_that_do_not_fit_are_refused(self, door: Door, run: Path, in_tmp: Path) -> None:
        path = f"checkpoint={run}/checkpoints/best.ckpt"
        three = write_folder(in_tmp / "three", classes=3, count=10)
        outcome = door("eval", path, f"data_dir={three}")
        assert outcome.code == 2
        assert outcome.err.endswith("the checkpoint's network doesn't know class2; it knows class0, class1.\n")
        outcome = door("eval", path, f"data_dir={three}", "match=number")
        assert (outcome.code, outcome.err) == (2, "error: match=number: these images have 3 classes, the network 2.\n")
        outcome = door("eval", path, "dataset=mnist", "dataset.source=sample")
        assert outcome.code == 2
        assert "these images have 1 channels, the checkpoint's network takes 3" in outcome.err

    def test_classes_are_matched_by_their_names(self, door: Door, in_tmp: Path) -> None:
        folder = write_folder(in_tmp / "images", classes=3, count=30)
        assert door("train", *folder_run(folder, "hydra.run.dir=r")).code == 0
        path = "checkpoint=r/checkpoints/best.ckpt"
        shutil.copytree(folder, in_tmp / "fewer")
        shutil.rmtree(in_tmp / "fewer/class1")
        outcome = door("eval", path, "data_dir=fewer")
        assert outcome.code == 0, outcome.err
        rows = [line.split() for line in outcome.out.splitlines() if line.strip().startswith("class")]
        assert [sum(int(cell) for cell in row[2:] if cell.isdigit()) for row in rows] == [3, 0, 3]
        (in_tmp / "fewer/class2").rename(in_tmp / "fewer/class1")
        (in_tmp / "fewer/class0").rename(in_tmp / "fewer/other")
        outcome = door("eval", path, "data_dir=fewer")
        assert (outcome.code, outcome.out) == (2, "")
        assert "network doesn't know other; it knows class0, class1, class2.\n" in outcome.err

    def test_classes_of_other_names_are_scored_by_their_order_if_that_is_asked_for(
        self, door: Door, run: Path, images_folder: Path
    ) -> None:
        path = f"checkpoint={run}/checkpoints/best.ckpt"
        before = door("eval", path).out
        for number in "01":
            (images_folder / f"class{number}").rename(images_folder / f"other{number}")
        assert "match=number" in door("eval", path, f"data_dir={images_folder}").err
        after = door("eval", path, f"data_dir={images_folder}", "match=number").out
        assert "other1" in after
        assert re.findall(r"[\d.]+", after) == re.findall(r"[\d.]+", before)

    def test_images_that_changed_since_training_are_refused_unless_they_are_asked_for(
        self, door: Door, run: Path, images_folder: Path
    ) -> None:
        path, note = (
            f"checkpoint={run}/checkpoints/best.ckpt",
            "NOTE   These are other images than those of the training",
        )
        assert note not in door("eval", path, f"data_dir={images_folder}").out
        shutil.copy(images_folder / "class0" / "000.png", images_folder / "class0" / "999.png")
        outcome = door("eval", path)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
        assert outcome.err.startswith("error: data_dir=images: the images of image_folder have changed since")
        for asked in ([f"data_dir={images_folder}"], ["dataset=image_folder", f"data_dir={images_folder}"]):
            outcome = door("eval", path, *asked)
            assert outcome.code == 0, outcome.err
            assert note in outcome.out
            assert max(map(len, outcome.out.splitlines())) <= 80

    def test_other_images_are_prepared_as_the_training_images_were(self, door: Door, run: Path, in_tmp: Path) -> None:
        other = write_folder(in_tmp / "other", classes=2, count=12, size=20)
        outcome = door("eval", f"checkpoint={run}/checkpoints/best.ckpt", "dataset=image_folder", f"data_dir={other}")
        assert outcome.code == 0, outcome.err

    def test_padded_images_are_padded_wherever_they_are_read_and_the_screen_says_so(
        self, door: Door, images_folder: Path
    ) -> None:
        for number in range(20):
            wide = Image.linear_gradient("L").convert("RGB").resize((24, 12))
            wide.save(images_folder / "class0" / f"wide{number}.png")
        outcome = door("train", *folder_run(images_folder, "dataset.fit=pad", "hydra.run.dir=r"))
        assert outcome.code == 0, outcome.err
        said = " ".join(outcome.out.split())
        assert "image_folder, 2 classes, padded to a square, 12x12, then resized to 67x67" in said
        asked = ["checkpoint=r/checkpoints/best.ckpt", "dataset=image_folder", f"data_dir={images_folder}"]
        for more, others in ([], False), (["dataset.fit=crop"], True):
            outcome = door("eval", *asked, *more)
            assert outcome.code == 0, outcome.err
            assert ("These are other images" in outcome.out) == others


class TestStrangers:
    def test_refused_evaluation_removes_no_folder_of_the_user(self, door: Door, in_tmp: Path) -> None:
        (in_tmp / "mine" / "empty").mkdir(parents=True)
        assert door("eval", "checkpoint=nothing.ckpt").code == 2
        assert (in_tmp / "mine" / "empty").is_dir()

    def test_refused_run_removes_no_folder_of_the_user(self, door: Door, in_tmp: Path) -> None:
        (in_tmp / "mine" / "empty").mkdir(parents=True)
        outcome = door("train", "dataset=image_folder", "data_dir=nothing", "hydra.run.dir=mine")
        assert outcome.code == 2
        assert (in_tmp / "mine" / "empty").is_dir()

    def test_checkpoint_does_not_say_what_is_downloaded(self, door: Door, run: Path) -> None:
        content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
        content["about"]["config"]["dataset"] |= {
            "_target_": "src.data.readers.read_torchvision",
            "dataset": "https://example.org/digits",
        }
        torch.save(content, run / "crafted.ckpt")
        outcome = door("eval", f"checkpoint={run}/crafted.ckpt")
        assert outcome.code == 2
        assert "dataset: 'https://example.org/digits' is an address or a file of weights, which" in outcome.err

    def test_weights_of_another_network_are_named(self, door: Door, run: Path, in_tmp: Path) -> None:
        content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
        content["about"]["config"]["model"]["hidden"] = 8
        torch.save(content, in_tmp / "other.ckpt")
        outcome = door("eval", f"checkpoint={in_tmp}/other.ckpt")
        assert outcome.code == 2
        revision = content["about"]["git"]["revision"][:12]
        assert outcome.err.splitlines()[0].endswith("weights are not those of src.model.alexnet.AlexNet as it is now.")
        assert outcome.err.splitlines()[1].startswith(f"error: It was trained at revision {revision}")
        assert outcome.err.splitlines()[2:] == [
            "error:     cp src/model/alexnet.py src/model/mine.py",
            f"error:     git checkout {revision} -- src/model/alexnet.py",
        ]
        content["about"]["git"] = None
        torch.save(content, in_tmp / "other.ckpt")
        outcome = door("eval", f"checkpoint={in_tmp}/other.ckpt")
        assert "undo that: trained outside a git checkout, it names no revision." in outcome.err

    def test_a_network_whose_options_have_changed_since_says_its_revision(
        self, door: Door, run: Path, in_tmp: Path
    ) -> None:
        content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
        content["about"]["config"]["model"]["groups"] = 8
        torch.save(content, in_tmp / "other.ckpt")
        outcome = door("eval", f"checkpoint={in_tmp}/other.ckpt")
        assert "its config can't be used: model.groups: there is no such key." in outcome.err
        assert f"git checkout {content['about']['git']['revision'][:12]} -- src/model/alexnet.py" in outcome.err

    def test_a_run_of_another_network_does_not_go_on_and_keeps_its_results(
        self, door: Door, run: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        grown = AlexNet.__init__

        def edited(self: AlexNet, *arguments: Any, **options: Any) -> None:
            grown(self, *arguments, **options)
            self.more = torch.nn.Linear(1, 1)

        monkeypatch.setattr(AlexNet, "__init__", edited)
        outcome = door("train", f"resume={run}", "trainer.max_epochs=3")
        assert outcome.code == 2
        assert "its weights are not those of src.model.alexnet.AlexNet as it is now." in outcome.err
        assert " -- src/model/alexnet.py" in outcome.err
        assert (run / "results.json").exists()

    def test_a_network_that_is_not_here_names_the_file_that_is_missing(
        self, door: Door, run: Path, in_tmp: Path
    ) -> None:
        content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
        content["about"]["config"]["model"]["_target_"] = "src.model.theirs.Theirs"
        torch.save(content, in_tmp / "other.ckpt")
        outcome = door("eval", f"checkpoint={in_tmp}/other.ckpt")
        assert outcome.code == 2
        assert "Weights come without code: get src/model/theirs.py from where it was trained." in outcome.err
        assert "git checkout" not in outcome.err, "no revision here has it"

    def test_a_network_that_computes_something_else_since_is_noted_and_its_run_does_not_go_on(
        self, door: Door, run: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        saved = load(run / "checkpoints" / "best.ckpt")
        assert not Predictor.of(saved, "cpu").hardware.note
        monkeypatch.setattr("src.model.saved.fingerprint", lambda target: "another")
        changed = "src/model/alexnet.py has changed since this network was trained: it may compute something else now"
        assert Predictor.of(saved, "cpu").hardware.note == f"{changed}."
        files = {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()}
        outcome = door("train", f"resume={run}", "trainer.max_epochs=3")
        assert outcome.code == 2
        assert outcome.err.startswith(f"error: {changed}, so this run can't go on.\n")
        assert " -- src/model/alexnet.py" in outcome.err
        assert {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()} == files

    def test_a_network_is_the_same_whatever_its_comments(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(tmp_path)
        prints = []
        for name, text in (("one", "x = 1"), ("two", "x = 1  # why\n"), ("three", "x = 2")):
            (tmp_path / f"net_{name}.py").write_text(text)
            prints.append(fingerprint(f"net_{name}.Net"))
        assert prints[0] == prints[1] != prints[2]
        assert fingerprint("torch.nn.Linear") == ""


class TestBadCheckpoints:
    def evil(self, path: Path, trap: Path) -> Path:
        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(trap),)

        torch.save({"state_dict": {}, "about": Evil()}, path)
        return path

    def test_one_that_would_run_code_does_not(self, door: Door, in_tmp: Path) -> None:
        path = self.evil(in_tmp / "evil.ckpt", in_tmp / "trap")
        outcome = door("eval", f"checkpoint={path}")
        assert outcome.code == 2
        assert "which could run code" in outcome.err
        assert not (in_tmp / "trap").exists()
        plain = in_tmp / "plain.ckpt"
        with plain.open("wb") as file:
            pickle.dump({"about": print}, file)
        assert door("eval", f"checkpoint={plain}").code == 2

    @pytest.mark.parametrize("damage", ["missing", "folder", "empty", "truncated", "text", "foreign"])
    def test_what_is_wrong_is_said(self, door: Door, run: Path, in_tmp: Path, damage: str) -> None:
        whole = (run / "checkpoints" / "best.ckpt").read_bytes()
        path = in_tmp / "it.ckpt"
        if damage == "folder":
            path.mkdir()
        elif damage == "foreign":
            torch.save({"state_dict": {"weight": torch.zeros(3)}, "epoch": 3}, path)
        elif damage != "missing":
            path.write_bytes({"empty": b"", "truncated": whole[: len(whole) // 2], "text": b"hello"}[damage])
        outcome = door("eval", f"checkpoint={path}")
        assert outcome.code == 2
        words = {"folder": "no checkpoint lies in that folder", "foreign": "another program wrote it"}
        assert f"checkpoint={path}: {words.get(damage, 'it ')}" in outcome.err
        assert "Traceback" not in outcome.err
        assert len(outcome.err.splitlines()) == 1

    def test_one_whose_config_names_a_foreign_class_is_refused(self, run: Path, in_tmp: Path) -> None:
        content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
        content["about"]["config"]["model"]["_target_"] = "os.system"
        torch.save(content, in_tmp / "crafted.ckpt")
        with pytest.raises(UserError, match=r"its config can.t be used: model._target_=os.system"):
            checkpoint.load(in_tmp / "crafted.ckpt")


class TestBadData:
    """Through the front door: exit code 2, one line, and no run folder left."""

    def refused(self, door: Door, in_tmp: Path, *arguments: str) -> str:
        outcome = door("train", *SHORT, *arguments)
        assert outcome.code == 2
        assert "Traceback" not in outcome.err
        assert len(outcome.err.splitlines()) == 1
        assert not (in_tmp / "logs").exists() or not list((in_tmp / "logs").iterdir())
        return outcome.err

    def test_damaged_idx_file(self, door: Door, in_tmp: Path, rng: Any) -> None:
        raw = write_idx(in_tmp / "data" / "MNIST" / "raw", rng)
        (raw / "train-images-idx3-ubyte").write_bytes(b"")
        assert "its checksum is wrong" in self.refused(door, in_tmp)

    def test_own_idx_files_are_read_without_checksums(self, door: Door, in_tmp: Path, rng: Any) -> None:
        write_idx(in_tmp / "data" / "MNIST" / "raw", rng, train=200, test=40)
        assert door("train", *SHORT, "dataset.verify=false").code == 0
        results = results_of(only_run(in_tmp))
        assert results["dataset"]["source"] == "full"
        assert (results["train"]["images"], results["test"]["images"]) == (180, 40)

    def test_empty_folder(self, door: Door, in_tmp: Path) -> None:
        (in_tmp / "empty").mkdir()
        assert "no sub-folder" in self.refused(door, in_tmp, "dataset=image_folder", "data_dir=empty")

    def test_broken_image(self, door: Door, in_tmp: Path, images_folder: Path) -> None:
        (images_folder / "class0" / "000.png").write_bytes(b"no image")
        err = self.refused(door, in_tmp, "dataset=image_folder", f"data_dir={images_folder}")
        assert "class0/000.png" in err

    @pytest.mark.parametrize(
        ("request_", "sentence"),
        [
            ("optimizer=sgd optimizer.momentum=0", "Nesterov momentum requires"),
            ("optimizer.betas=[2,2]", "beta"),
        ],
    )
    def test_optimizer_that_refuses_its_arguments(
        self, door: Door, in_tmp: Path, images_folder: Path, request_: str, sentence: str
    ) -> None:
        arguments = ["dataset=image_folder", f"data_dir={images_folder}", *request_.split()]
        assert sentence in self.refused(door, in_tmp, *arguments)

    @pytest.mark.parametrize("size", [32, 62])
    def test_input_size_that_does_not_fit(self, door: Door, in_tmp: Path, images_folder: Path, size: int) -> None:
        arguments = ["dataset=image_folder", f"data_dir={images_folder}", f"dataset.image_size={size}"]
        assert "AlexNet takes images of 63 pixels a side and more" in self.refused(door, in_tmp, *arguments)

    def test_mean_of_too_few_channels(self, door: Door, in_tmp: Path, images_folder: Path) -> None:
        arguments = ["dataset=image_folder", f"data_dir={images_folder}", "dataset.mean=[0.5]"]
        assert "expected 3 numbers, one a channel" in self.refused(door, in_tmp, *arguments)

    def test_crop_wider_than_the_images(self, door: Door, in_tmp: Path, images_folder: Path) -> None:
        crop = ["dataset/augmentation=flip_crop", "dataset.augmentation.crop.padding=12"]
        told = self.refused(door, in_tmp, "dataset=image_folder", f"data_dir={images_folder}", *crop)
        assert "dataset.augmentation.crop: padding=12 needs images of more than 12 pixels a side." in told


def test_sample_is_named_on_screen_in_the_results_and_in_the_checkpoint(door: Door, in_tmp: Path) -> None:
    limits = ["trainer.limit_train_batches=2", "trainer.limit_val_batches=2"]
    outcome = door("train", "dataset.source=sample", *SHORT, *limits)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("SAMPLE")
    assert "packaged mnist digits, not the official test set" in outcome.out
    results = results_of(only_run(in_tmp))
    assert (results["dataset"]["source"], results["dataset"]["test_set"]) == ("sample", "mnist sample")
    about = torch.load(only_run(in_tmp) / results["checkpoint"], weights_only=True)["about"]
    assert (about["source"], about["test_set"]) == ("sample", "mnist sample")


def test_16_mixed_on_a_cpu_says_what_is_used_instead(door: Door, in_tmp: Path, images_folder: Path) -> None:
    outcome = door("train", *folder_run(images_folder, "precision=16-mixed", "hydra.run.dir=r"))
    assert outcome.code == 0, outcome.err
    used = results_of(in_tmp / "r")["precision"]
    assert used in ("bf16-mixed", "32-true")
    assert f"precision=16-mixed needs a CUDA GPU; this run uses {used} instead" in outcome.out


def test_multirun_of_two_jobs_leaves_two_runs_named_by_their_overrides(
    door: Door, in_tmp: Path, images_folder: Path
) -> None:
    outcome = door("train", "-m", *folder_run(images_folder), "seed=1,2", "hydra.sweep.dir=sweep")
    assert outcome.code == 0, outcome.err
    runs = sorted(path for path in (in_tmp / "sweep").iterdir() if path.is_dir())
    assert [results_of(run)["seed"] for run in runs] == [1, 2]
    assert all(f"seed-{seed}" in run.name for seed, run in enumerate(runs, 1))
    scored = door("eval", f"checkpoint={runs[0]}/checkpoints/best.ckpt", "device=cpu")
    assert scored.code == 0, scored.err
    assert [results_of(run)["command"].endswith(f"seed={seed}") for seed, run in enumerate(runs, 1)] == [True, True]


def test_runs_started_in_the_same_instant_get_two_folders(door: Door, images_folder: Path, in_tmp: Path) -> None:
    fixed = datetime(2026, 1, 2, 3, 4, 5)

    class Stopped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return fixed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.config.naming.datetime", Stopped)
        for _ in range(2):
            assert door("train", *folder_run(images_folder)).code == 0
    runs = list((in_tmp / "logs").iterdir())
    assert len(runs) == 2
    first, second = sorted(run.name for run in runs)
    assert second == f"{first}_2"


def test_the_same_command_gives_the_same_accuracy_to_the_last_digit(
    door: Door, in_tmp: Path, images_folder: Path
) -> None:
    for name in ("a", "b"):
        assert door("train", *folder_run(images_folder, f"hydra.run.dir={name}")).code == 0
    one, two = (results_of(in_tmp / name) for name in ("a", "b"))
    assert one["test"] == two["test"]
    assert one["val"] == two["val"]


def test_limit_reaches_the_run_its_results_and_its_evaluation(door: Door, in_tmp: Path, images_folder: Path) -> None:
    assert door("train", *folder_run(images_folder, "dataset.limit=40", "hydra.run.dir=few")).code == 0
    results = results_of(in_tmp / "few")
    counts = [results[part]["images"] for part in ("train", "val", "test")]
    assert (sum(counts[:2]), counts[2]) == (40, 6)
    assert results["date"] == datetime.now(UTC).date().isoformat()
    outcome = door("eval", "checkpoint=few/checkpoints/best.ckpt", "device=cpu")
    assert "test split, 6 images" in outcome.out
    assert f"accuracy {results['test']['accuracy']}, " in outcome.out
    refused = door("train", *folder_run(images_folder, "dataset.limit=61"))
    words = "error: dataset.limit=61: 61 training images: expected a number from 1 to 54, which there are.\n"
    assert (refused.code, refused.err) == (2, words)


@pytest.mark.parametrize("tested", [True, False])
def test_images_that_a_limit_leaves_out_are_not_counted(
    door: Door, in_tmp: Path, images_folder: Path, tested: bool
) -> None:
    limits = ["trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "trainer.limit_test_batches=0.5"]
    more = ["batch_size=3", f"report={tested}", f"test={tested}", "dataset.valid_fraction=0.15", "hydra.run.dir=r"]
    outcome = door("train", *folder_run(images_folder, *limits, *more))
    assert outcome.code == 0, outcome.err
    assert "6 of 45 to train, 3 of 9 to validate, 3 of 6 to test" in outcome.out
    results = results_of(in_tmp / "r")
    assert [results["train"]["images"], results["val"]["images"]] == [6, 3]
    if not tested:
        assert door("report", "r").code == 0
    page = (in_tmp / "r/report.html").read_text()
    assert "1 epoch of 6 images" in page
    name, scored = ("test", results["test"]) if tested else ("validation", results["val"])
    assert scored["images"] == 3
    shown = re.search(rf"{name} accuracy.{{0,99}}?([\d.]+) %.{{0,99}}?\d of 3 wrong", page, re.DOTALL)
    assert shown
    assert float(shown[1]) == pytest.approx(100 * scored["accuracy"], abs=0.01)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_limit_that_leaves_no_batch_is_refused(door: Door, in_tmp: Path, images_folder: Path, split: str) -> None:
    limit = f"trainer.limit_{split}_batches=0.01"
    outcome = door("train", *folder_run(images_folder, limit, "hydra.run.dir=r"))
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert outcome.err.startswith(f"error: {limit}: that is less than one of ")
    assert not (in_tmp / "r").exists()


def test_a_run_of_few_steps_says_what_it_has_seen(door: Door, in_tmp: Path, images_folder: Path) -> None:
    few = ["trainer.max_steps=2", "trainer.check_val_every_n_epoch=2", "batch_size=4", "hydra.run.dir=r"]
    outcome = door("train", *folder_run(images_folder, *few))
    assert outcome.code == 0, outcome.err
    assert "8 of 48 to train" in outcome.out
    assert "last, for none was validated" in outcome.out
    assert results_of(in_tmp / "r")["train"]["images"] == 8
    assert "goes on" not in door("train", "resume=r").out
    outcome = door("train", "resume=r", "trainer.max_epochs=8")
    words = "error: trainer.max_epochs=8: trainer.max_steps=2 has ended this run. Begin another one.\n"
    assert (outcome.code, outcome.err) == (2, words)
    assert (in_tmp / "r/results.json").exists()


def test_an_epoch_without_a_validation_shows_none(door: Door, in_tmp: Path, images_folder: Path) -> None:
    words = folder_run(images_folder, "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2", "test=false")
    lines = [line.replace(" %", "%").split() for line in door("train", *words).out.splitlines()]
    shown = {line[0]: line[3:5] for line in lines if line and line[0] in ("1/3", "2/3", "3/3")}
    assert shown["1/3"] == shown["3/3"] == ["-", "-"]
    assert re.fullmatch(r"\d+\.\d\d%", shown["2/3"][1])


@pytest.mark.parametrize("way", ["4 x4", "5 x3", "4 x2, interrupted", "4 x4, weight_averaging", "4 x4, balanced"])
def test_the_gradient_of_a_group_is_the_mean_over_its_images(
    door: Door, in_tmp: Path, images_folder: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    division, _, more = way.partition(", ")
    size, many = map(int, division.split(" x"))
    plain = [*TWELVE, "trainer.max_epochs=3"]
    plain += ["callbacks=weight_averaging"] if more == "weight_averaging" else []
    plain += ["loss.class_weights=[1,20]"] if more == "balanced" else []
    one = [f"batch_size={size * many}", "hydra.run.dir=one"]
    assert door("train", *folder_run(images_folder, *plain, *one)).code == 0
    parts = [f"batch_size={size}", f"trainer.accumulate_grad_batches={many}", "hydra.run.dir=parts"]
    words = folder_run(images_folder, *plain, *parts)
    if more == "interrupted":
        words = [*words, "callbacks.checkpoint_steps=1"]
        broken(door, monkeypatch, 6, *words)  # in the last and incomplete group of an epoch
        assert door("train", "resume=parts").code == 0
    else:
        assert door("train", *words).code == 0
    assert results_of(in_tmp / "one")["train"]["images"] == 12
    whole, divided = (checkpoint.load(in_tmp / name / "checkpoints/last.ckpt").state_dict for name in ("one", "parts"))
    for name, weight in whole.items():
        torch.testing.assert_close(divided[name], weight, rtol=1e-4, atol=1e-6)


def test_early_stopping_ends_a_run_that_gains_nothing(door: Door, in_tmp: Path, images_folder: Path) -> None:
    arguments = folder_run(images_folder, "callbacks=early_stopping", "trainer.max_epochs=20", "optimizer.lr=1e-9")
    assert door("train", *arguments, "callbacks.early_stopping.patience=1", "logger=csv").code == 0
    assert results_of(only_run(in_tmp))["train"]["epochs"] < 20


GROUPS = {
    "dataset/augmentation": "dataset=image_folder",
    "model": "",
    "loss": "",
    "metrics": "",
    "optimizer": "",
    "scheduler": "",
    "trainer": "",
    "callbacks": "",
    "logger": "",
}
OPTIONS = [(group, file.stem) for group in GROUPS for file in sorted((CONFIGS / group).glob("*.yaml"))]
OPTIONS = [option for option in OPTIONS if option[1] not in ("timm", "torchvision")]  # test_library.py trains them
OPTIONS = [option for option in OPTIONS if option[1] not in ("aim", "comet", "top5")]  # test_loggers.py, test_extend.py


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_of_every_group_trains(
    door: Door, in_tmp: Path, images_folder: Path, group: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    outcome = door("train", *folder_run(images_folder), f"{group}={option}", "trainer.max_steps=2", "batch_size=4")
    assert outcome.code == 0, outcome.err
    assert results_of(only_run(in_tmp))["test"]["images"] == 6


@pytest.mark.parametrize("name", [file.stem for file in sorted((CONFIGS / "dataset").glob("*.yaml"))])
def test_every_dataset_names_a_reader_that_takes_its_config(door: Door, in_tmp: Path, name: str) -> None:
    outcome = door("train", *SHORT, f"dataset={name}", "data_dir=none", "dataset.source=full", *offline(name))
    assert outcome.code == 2
    assert "none" in outcome.err, "each says where it looked"
    assert "Put " in outcome.err or "Set data_dir" in outcome.err or name == "huggingface"


def offline(name: str) -> list[str]:
    keys = OmegaConf.load(CONFIGS / "dataset" / f"{name}.yaml").keys()
    if name == "huggingface":
        return ["dataset.path=none", "dataset.download=false"]
    return ["dataset.download=false"] if {"dataset", "train"} & {*keys} else []  # they may download


@pytest.mark.parametrize("name", [file.stem for file in sorted((CONFIGS / "experiment").glob("*.yaml"))])
def test_every_recipe_trains_and_evaluates(
    door: Door, in_tmp: Path, name: str, images_folder: Path, rng: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = OmegaConf.load(CONFIGS / "experiment" / f"{name}.yaml").defaults[0]["override /dataset"]
    if dataset == "cifar10":
        from tests.conftest import trust, write_cifar

        write_cifar(in_tmp / "data" / "cifar-10-batches-py", rng)
        trust(monkeypatch, "CIFAR10", in_tmp / "data")
        given = ["dataset.source=full"]
    elif dataset == "cifar10_jpeg":
        write_folder(in_tmp / "data" / "cifar10-jpeg", classes=10, count=4, size=32)
        given = ["dataset.source=full"]
    elif dataset == "fashion_mnist":
        write_idx(in_tmp / "data" / "FashionMNIST" / "raw", rng)
        given = ["dataset.verify=false"]
    elif dataset == "imagenet":
        from tests.test_sets import write_imagenet

        write_imagenet(in_tmp / "data", monkeypatch)
        given = ["dataset.valid_fraction=0.2", "dataset.test=${dataset.train}"]
    elif dataset == "image_folder":
        given = [f"data_dir={images_folder}"]
    else:
        given = ["dataset.source=sample"]
    limits = [f"trainer.limit_{part}_batches=2" for part in ("train", "val", "test")]
    outcome = door("train", f"experiment={name}", *SHORT, *given, *limits)
    assert outcome.code == 0, outcome.err
    assert door("eval", f"checkpoint={only_run(in_tmp)}/checkpoints/best.ckpt", "device=cpu").code == 0


def test_workers_start_by_spawn_and_give_the_same_run(door: Door, in_tmp: Path, images_folder: Path) -> None:
    """Nothing relies on fork, which macOS and Windows don't start workers by."""
    program = in_tmp / "spawned.py"
    program.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from src.train import main\n"
        "if __name__ == '__main__':\n"
        "    import torch\n"
        "    torch.multiprocessing.set_start_method('spawn', force=True)\n"
        "    main()\n"
    )
    arguments = folder_run(images_folder, "logger=csv", "trainer.check_val_every_n_epoch=2", "test=false")
    assert door("train", *arguments, "hydra.run.dir=alone").code == 0
    done = run_command(program, *arguments, "num_workers=1", "hydra.run.dir=spawned")
    assert done.returncode == 0, done.stderr
    one, two = (load(in_tmp / name / "checkpoints/last.ckpt").state_dict for name in ("alone", "spawned"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminal for a test to look through")
def test_bar_on_a_terminal_ends_with_the_numbers_of_the_epochs_line_which_stays(
    in_tmp: Path, images_folder: Path
) -> None:
    import pty

    ours, theirs = pty.openpty()
    shown = bytearray()

    def look() -> None:
        with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
            while chunk := os.read(ours, 1 << 16):
                shown.extend(chunk)

    looker = threading.Thread(target=look)
    looker.start()
    arguments = folder_run(images_folder, "logger=csv", "batch_size=2", "trainer.max_epochs=2")
    process = Command("src.train", *arguments, terminal=Path(os.ttyname(theirs)), TERM="xterm", COLUMNS="80")
    code = process.wait()
    os.close(theirs)
    looker.join()
    os.close(ours)
    assert code == 0, process.stderr
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.decode())
    for epoch in ("1/2", "2/2"):
        bar = re.findall(rf"Epoch {epoch} [^\r\n]*24/24 [^\r\n]*img/s: \d+", plain)[-1]
        assert len(bar) <= 80
        shown_last = re.findall(r"loss: ([\d.]+) acc: ([\d.]+ %)", bar)
        assert re.findall(rf" {epoch} +([\d.]+) +([\d.]+ %) ", plain) == shown_last, plain
    assert shown.count(b"\x1b[2K") > 20, "the bar is taken away"


@pytest.mark.slow
def test_compiled_network_trains_to_the_same_answer(door: Door, in_tmp: Path, images_folder: Path) -> None:
    """Without dropout, whose draws the compiler makes in its own way."""
    losses = []
    for compiled in ("true", "false"):
        more = [f"compile={compiled}", f"hydra.run.dir=compile-{compiled}", "precision=32-true", "model.dropout=0"]
        outcome = door("train", *folder_run(images_folder, *more))
        assert outcome.code == 0, outcome.err
        losses.append(results_of(in_tmp / f"compile-{compiled}")["test"]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.slow
class TestThePackagedDigitsAreLearned:
    """As someone begins who has no connection, with three seeds."""

    @pytest.fixture(params=[1, 2, 3])
    def accuracy(self, request: pytest.FixtureRequest, door: Door, in_tmp: Path) -> Callable[..., float]:
        def run(*options: str) -> float:
            common = ["dataset=mnist", "dataset.source=sample", "report=false", "callbacks=none", "device=cpu"]
            outcome = door("train", *common, f"seed={request.param}", *options)
            assert outcome.code == 0, outcome.err
            results = results_of(only_run(in_tmp))
            shutil.rmtree(in_tmp / "logs")  # nearly a gigabyte
            return results["test"]["accuracy"]

        return run

    @pytest.mark.parametrize("optimizer", [path.stem for path in sorted((CONFIGS / "optimizer").glob("*.yaml"))])
    def test_in_two_epochs_by_each_optimizer_at_its_own_rate(
        self, accuracy: Callable[..., float], optimizer: str
    ) -> None:
        assert accuracy(f"optimizer={optimizer}", "trainer.max_epochs=2") > 0.8

    def test_in_one_epoch_at_the_first_tutorials_rate(self, accuracy: Callable[..., float]) -> None:
        assert accuracy("optimizer.lr=1e-3", "trainer.max_epochs=1") > 0.5
