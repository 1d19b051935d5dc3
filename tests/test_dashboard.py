"""TensorBoard: what a run writes, read back from its files."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams.backend_context import Context

from src.config.folder import read_config
from tests.browser import free_port, opened
from tests.conftest import NARROW, ROOT, Outcome, only_run

Door = Callable[..., Outcome]
PICTURES = {
    "confusion matrix of validation",
    "filters of the first convolution",
    "most confident mistakes in validation",
    "training images, augmented",
}
QUICK = [
    *(text for text in NARROW if text != "callbacks=none"),
    "experiment=quick",
    "batch_size=64",
    "optimizer.lr=1e-3",
]
LIMITS = ["trainer.limit_train_batches=4", "trainer.limit_val_batches=2", "trainer.limit_test_batches=2"]


def events(run: Path) -> EventAccumulator:
    found = EventAccumulator(str(run / "tensorboard"), {"images": 0, "tensors": 0, "scalars": 0})
    found.Reload()
    return found


def pictures(run: Path, tag: str) -> list[tuple[int, Image.Image]]:
    return [(event.step, Image.open(io.BytesIO(event.encoded_image_string))) for event in events(run).Images(tag)]


class TestARun:
    def test_has_every_picture_at_each_validation(self, trained: Path) -> None:
        assert set(events(trained).Tags()["images"]) == PICTURES
        steps = {tag: [step for step, _ in pictures(trained, tag)] for tag in PICTURES}
        assert steps.pop("training images, augmented") == [0]
        assert all(found == [124] for found in steps.values()), steps

    def test_pictures_are_bounded(self, trained: Path) -> None:
        for tag in PICTURES:
            for _, picture in pictures(trained, tag):
                assert max(picture.size) <= 1000, tag

    def test_samples_are_what_the_network_was_given(self, trained: Path) -> None:
        ((_, picture),) = pictures(trained, "training images, augmented")
        pixels = torch.tensor(list(picture.convert("L").getdata()), dtype=torch.float32)
        assert picture.size == (8 * 96, 2 * 96)
        assert 15 < pixels.mean() < 60  # genuine digits have a mean of 33 of 255
        assert (pixels < 10).float().mean() > 0.6

    def test_scalars_learning_rate_gradient_and_speed(self, trained: Path) -> None:
        found = events(trained)
        wanted = {"train/loss", "val/loss", "train/acc", "val/acc", "train/learning_rate", "train/gradient_norm"}
        assert wanted | {"train/images_per_second"} <= set(found.Tags()["scalars"])
        assert all(0 < event.value < 1000 for event in found.Scalars("train/gradient_norm"))

    def test_hyperparameters_stand_beside_the_final_scores(self, trained: Path) -> None:
        text = b"".join(path.read_bytes() for path in (trained / "tensorboard").glob("events*"))
        assert b"best/test/acc" in text
        assert b"optimizer.lr" in text


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        (
            ["callbacks.confusion_matrix=null", "callbacks.samples=null", "callbacks.gradient_norm=null"],
            {"confusion matrix of validation", "training images, augmented"},
        ),
        (
            ["callbacks.mistakes=null", "callbacks.filters=null"],
            {"most confident mistakes in validation", "filters of the first convolution"},
        ),
    ],
)
def test_each_picture_and_the_gradients_norm_can_be_switched_off(
    door: Door, in_tmp: Path, options: list[str], gone: set[str]
) -> None:
    more = ["trainer.max_epochs=1", "trainer.log_every_n_steps=1"]
    assert door("train", *QUICK, *LIMITS, *more, *options).code == 0
    tags = events(only_run(in_tmp)).Tags()
    assert set(tags["images"]) == PICTURES - gone
    assert "train/learning_rate" in tags["scalars"]
    assert ("train/gradient_norm" in tags["scalars"]) == ("callbacks.gradient_norm=null" not in options)


def test_gradient_norm_is_that_of_all_weights_before_clipping(door: Door, in_tmp: Path) -> None:
    options = [*QUICK, *LIMITS, "trainer.max_epochs=1", "trainer.log_every_n_steps=1", "precision=32-true"]
    assert door("train", *options, "hydra.run.dir=logs/a").code == 0
    assert door("train", *options, "hydra.run.dir=logs/b", "trainer.gradient_clip_val=0.01").code == 0
    first, second = (events(Path("logs", run)).Scalars("train/gradient_norm") for run in "ab")
    assert [event.step for event in first] == [0, 1, 2, 3]
    assert first[0].value == second[0].value > 0.01


def test_the_table_shows_first_what_was_changed_then_what_differs_and_the_best_scores(
    door: Door, in_tmp: Path, trained: Path
) -> None:
    shutil.copytree(trained / "tensorboard", in_tmp / "logs/a/tensorboard")
    options = [*QUICK, *LIMITS, "trainer.max_epochs=1", "loss.label_smoothing=0", "hydra.run.dir=logs/b"]
    assert door("train", *options).code == 0
    runs = MultiplexerDataProvider(EventMultiplexer().AddRunsFromDirectory("logs").Reload(), "logs")
    plugin, asked = Context(TBContext(data_provider=runs)), RequestContext()
    table = plugin.experiment_from_metadata(asked, "", True, plugin.hparams_metadata(asked, ""), [])
    columns = [column.name for column in table.hparam_infos]
    assert columns[0] == "Changed"
    assert columns.index("loss.label_smoothing") < columns.index("model.hidden"), "both have the same"
    assert table.metric_infos[0].name.tag == "best/test/acc"


def test_a_run_that_goes_on_shows_each_validation_once(door: Door, in_tmp: Path) -> None:
    options = [*QUICK, *LIMITS, "hydra.run.dir=logs/run"]
    assert door("train", *options, "trainer.max_epochs=2").code == 0
    assert door("train", *options, "trainer.max_epochs=3").code == 0
    steps = [step for step, _ in pictures(in_tmp / "logs/run", "confusion matrix of validation")]
    assert steps == [3, 7, 11]


def test_there_are_none_without_tensorboard_or_by_option(door: Door, in_tmp: Path) -> None:
    options = [*QUICK, *LIMITS, "trainer.max_epochs=1"]
    assert door("train", *options, "logger=csv", "hydra.run.dir=logs/csv").code == 0
    assert not (in_tmp / "logs/csv/tensorboard").exists()
    none = ["callbacks=none", "trainer.log_every_n_steps=1", "hydra.run.dir=logs/none"]
    assert door("train", *options, *none).code == 0
    tags = events(in_tmp / "logs/none").Tags()
    assert not tags["images"]
    assert "train/learning_rate" in tags["scalars"]
    assert "train/gradient_norm" not in tags["scalars"]


def test_pictures_may_change_when_a_run_goes_on(door: Door, in_tmp: Path) -> None:
    options = [*QUICK, *LIMITS]
    assert door("train", *options, "trainer.max_epochs=1", "callbacks.filters=null", "hydra.run.dir=logs/run").code == 0
    go_on = ["resume=logs/run", "trainer.max_epochs=2"]
    changes = ["callbacks.mistakes=null", "callbacks.samples.count=40"]
    assert door("train", *go_on, *changes).code == 0
    found = read_config(in_tmp / "logs/run").callbacks.components()
    assert found["samples"].arguments() == {"count": 40}
    assert not {"mistakes", "filters"} & found.keys()
    assert [step for step, _ in pictures(in_tmp / "logs/run", "confusion matrix of validation")] == [3, 7]
    assert [step for step, _ in pictures(in_tmp / "logs/run", "most confident mistakes in validation")] == [3]
    outcome = door("train", "resume=logs/run", "trainer.max_epochs=3", "callbacks=weight_averaging")
    assert outcome.code == 2
    assert "was begun with no callbacks.weight_averaging." in outcome.err


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("callbacks.mistakes.count=0", "callbacks.mistakes.count=0: expected a number greater than 0."),
        ("callbacks.mistakes.cout=3", "callbacks.mistakes.cout: there is no such key. Did you mean"),
        (
            "callbacks.mistakes._target_=shutil.copy",
            "callbacks.mistakes._target_=shutil.copy: that is a function; expected a class.",
        ),
        ("callbacks.mistakes._target_=src.training.callbacks.pictures.Wrong", "has no class or function Wrong"),
    ],
)
def test_a_wrong_callback_is_refused_in_a_sentence(door: Door, in_tmp: Path, option: str, sentence: str) -> None:
    outcome = door("train", option)
    assert outcome.code == 2
    assert sentence in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not list(in_tmp.iterdir())


def test_what_is_no_callback_is_refused_before_anything_is_written(door: Door, in_tmp: Path) -> None:
    target = "src.model.schedules.LambdaLR"
    outcome = door(
        "train", *QUICK, f"+callbacks.mine={{_target_: {target}, optimizer: 1, lr_lambda: 1}}", "hydra.run.dir=r"
    )
    assert outcome.code == 2
    assert f"callbacks.mine._target_={target}: that is no callback" in outcome.err
    assert not (in_tmp / "r").exists()


def test_options_are_combined_and_changed_by_name(door: Door, in_tmp: Path) -> None:
    options = ["callbacks=[early_stopping,weight_averaging]", "callbacks.early_stopping.patience=3", "logger=csv"]
    assert door("train", *QUICK, *LIMITS, "trainer.max_epochs=1", *options).code == 0
    found = read_config(only_run(in_tmp)).callbacks.components()
    assert found["early_stopping"].arguments()["patience"] == 3
    assert found["weight_averaging"].arguments()["decay"] == 0.999
    assert "confusion_matrix" in found


@pytest.fixture
def tensorboard(trained: Path) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(trained.parent), "--port", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://localhost:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(address)
                break
            except OSError:
                time.sleep(0.25)
        yield address
    finally:
        os.kill(server.pid, signal.SIGKILL)
        server.wait()


def test_pages_in_a_browser(tensorboard: str) -> None:
    with opened(f"{tensorboard}/#images") as page:
        for tag in PICTURES:
            page.get_by_text(tag, exact=True).first.wait_for(timeout=60_000)
        page.locator("img[src*='individualImage']").first.wait_for(timeout=60_000)
