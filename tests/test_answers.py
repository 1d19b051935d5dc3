"""What is read off a network's answers, and that every process's answers are there once."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import inf, log
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from src.config.errors import UserError
from src.config.schema import Precision
from src.data.images import ImageSet, Splits
from src.data.readers import read_mnist_sample
from src.data.statistics import has_dark_background
from src.model.answers import Answers
from src.model.hardware import Hardware
from src.model.network import build_network
from src.model.predictor import Predictor, last_feature_maps
from src.model.saved import About, Checkpoint
from src.results.figures import canvas, curves, runs, scores, tiles
from src.results.outcome import Outcome as Results
from src.results.outcome import Score, Validation
from src.results.screen import advice, measured, show_confusion, show_end, show_start
from tests.conftest import Outcome, results_of, write_results
from tests.test_model import ABOUT, configure


def made(labels: list[int], probabilities: list[list[float]]) -> Answers:
    images = torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8)
    names = ["a", "b", "c"]
    return Answers(ImageSet(images, torch.tensor(labels)), torch.tensor(probabilities).log(), names, "test")


@pytest.fixture
def four() -> Answers:
    """Two right, two wrong; class c is never answered."""
    return made([0, 0, 1, 2], [[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.1, 0.6, 0.3], [0.95, 0.05, 0.0]])


class TestAnswers:
    def test_matrix_has_a_row_for_each_true_class(self, four: Answers) -> None:
        assert four.matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
        assert four.accuracy == 0.5

    def test_loss_is_the_mean_cross_entropy(self, four: Answers) -> None:
        assert four.loss == pytest.approx(inf)
        answers = made([0, 2], [[0.9, 0.05, 0.05], [0.2, 0.7, 0.1]])
        assert answers.loss == pytest.approx(-(log(0.9) + log(0.1)) / 2)

    def test_mistakes_come_with_the_most_confident_first(self, four: Answers) -> None:
        assert four.mistakes(5).tolist() == [3, 1]
        assert four.mistakes(1).tolist() == [3]
        assert four.successes(1).tolist() == [0]

    def test_scores_of_a_class(self, four: Answers) -> None:
        first, second, third = four.per_class()
        assert (first.images, first.precision, first.recall, first.f1) == (2, 0.5, 0.5, 0.5)
        assert (second.precision, second.recall) == (0.5, 1.0)
        assert (third.precision, third.recall) == (None, 0.0)

    def test_calibration_error_is_the_mean_distance(self, four: Answers) -> None:
        found = four.calibration(bins=10)
        # 0.9 and 0.95 share a bin (half right), 0.7 is wrong, 0.6 is right; each of the four answers counts the same
        assert found.error == pytest.approx((2 * abs(0.925 - 0.5) + 0.7 + 0.4) / 4, abs=1e-6)
        assert int(found.counts.sum()) == 4

    def test_a_network_as_sure_as_right_is_calibrated(self) -> None:
        answers = made([0] * 8 + [1] * 2, [[0.8, 0.2, 0.0]] * 10)
        assert answers.calibration().error == pytest.approx(0, abs=1e-6)


class TestPredictor:
    def test_answers_what_the_test_of_the_run_was_answered(self, trained: Path) -> None:
        results = results_of(trained)
        sample = read_mnist_sample()
        assert sample.test is not None
        answers = Predictor.load(trained / "checkpoints" / "best.ckpt").answer(sample.test, "test", 64)
        assert answers.accuracy == results["test"]["accuracy"]
        assert answers.loss == pytest.approx(results["test"]["loss"], rel=1e-6)
        assert answers.probabilities.sum(1) == pytest.approx(1)

    def test_saliency_lies_on_the_digit(self, trained: Path) -> None:
        predictor = Predictor.load(trained / "checkpoints" / "best.ckpt")
        sample = read_mnist_sample()
        images = sample.train.images[::200]
        maps = predictor.saliency(images, sample.train.labels[::200])
        assert maps is not None
        assert maps.shape == (len(images), 28, 28)
        assert 0 <= float(maps.min()) <= float(maps.max()) <= 1
        assert (maps.amax((1, 2)) > 0.99).all(), "no map is empty"
        middle = maps[:, 4:24, 4:24].mean()
        assert middle > 1.2 * maps.mean()  # where MNIST's digits are

    def test_refuses_images_of_other_channels(self, trained: Path) -> None:
        predictor = Predictor.load(trained / "checkpoints" / "best.ckpt")
        with pytest.raises(UserError, match="3 channels"):
            predictor(torch.zeros(1, 3, 28, 28, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("layers", "place"),
    [
        ([nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)], 4),
        ([nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.ReLU()], 0),
        ([nn.MaxPool2d(2), nn.ReLU()], None),
    ],
)
def test_last_feature_maps_are_those_after_the_activation(layers: list[nn.Module], place: int | None) -> None:
    found = last_feature_maps(nn.Sequential(*layers), torch.zeros(1, 1, 16, 16))
    assert found is (None if place is None else layers[place])


@pytest.mark.parametrize(("level", "channels", "dark"), [(0, 1, True), (255, 1, False), (128, 1, False), (0, 3, False)])
def test_background_is_what_lies_at_the_edge(level: int, channels: int, dark: bool) -> None:
    pixels = np.full((40, channels, 28, 28), level, np.uint8)
    pixels[:, :, 6:22, 6:22] = 255 - level
    images = ImageSet(torch.from_numpy(pixels), torch.zeros(40, dtype=torch.int64))
    assert has_dark_background(images) is dark


def test_genuine_digits_have_a_dark_background() -> None:
    assert has_dark_background(read_mnist_sample().train)


@pytest.mark.parametrize(("black", "dark"), [(37, True), (35, False)])
def test_a_background_is_dark_where_nearly_all_images_have_it_so(black: int, dark: bool) -> None:
    pixels = torch.full((40, 1, 28, 28), 255, dtype=torch.uint8)
    pixels[:black] = 0
    assert has_dark_background(ImageSet(pixels, torch.zeros(40, dtype=torch.int64))) is dark


def test_right_answers_are_shown_from_all_over_the_set() -> None:
    answers = made([0] * 10, [[0.9, 0.1, 0.0]] * 10)
    assert answers.successes(4).tolist() == [0, 3, 6, 9]
    assert answers.successes(99).tolist() == list(range(10))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_predictor_computes_as_in_its_training_unless_it_is_asked_for_another(precision: Precision) -> None:
    config = configure(["++model.widths=[1,1,1,1,1]", "++model.hidden=4"])
    about, weights = ABOUT.model_copy(update={"precision": precision}), build_network(config.model, 1, 2).state_dict()
    saved = Checkpoint(Path("best.ckpt"), config, about, weights)
    assert Predictor.of(saved, "cpu").hardware.precision == precision
    assert Predictor.of(saved, "cpu", "32-true").hardware.precision == "32-true"


def test_saliency_of_each_image_is_brought_to_one_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(["++model.widths=[2,2,2,2,2]", "++model.hidden=4"])
    torch.manual_seed(0)
    network = build_network(config.model, 1, 2)
    predictor = Predictor(network, config, ABOUT, Hardware("cpu", "32-true"))
    strengths = torch.tensor([1.0, 0.1, 0.0])[:, None, None, None]
    monkeypatch.setattr("captum.attr.LayerGradCam.attribute", lambda *_, **__: torch.ones(3, 1, 13, 13) * strengths)
    maps = predictor.saliency(torch.zeros(3, 1, 12, 12, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    assert maps is not None
    assert maps.amax((1, 2)).tolist() == pytest.approx([1, 1, 0])


def test_the_screen_has_the_recall_of_each_true_class_beside_its_row(
    four: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    show_confusion(four)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[-3:] == [
        ["a", "50.00", "%", "1", "1", "."],
        ["b", "100.00", "%", ".", "1", "."],
        ["c", "0.00", "%", "1", ".", "0"],
    ]


def test_a_screen_too_narrow_for_the_matrix_has_the_names_of_the_classes(
    four: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    many = [f"one\n{number}" for number in range(20)]
    show_confusion(Answers(four.images, torch.eye(20)[:4], many, "test"))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows[-20:]] == [["one", str(number)] for number in range(20)]
    assert all(len(row) == 4 - ("-" in row) for row in rows[-20:])


class TestPictures:
    def test_confusion_has_rows_of_true_classes_and_their_shares(self, four: Answers) -> None:
        figure = canvas.blank(5, 5)
        scores.draw_confusion(figure, four)
        (axes,) = figure.axes
        assert axes.images[0].get_array().tolist() == [[0.5, 0.5, 0], [0, 1, 0], [1, 0, 0]]  # type: ignore[union-attr]
        numbers = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
        assert numbers == {(0, 0): "1", (0, 1): "1", (1, 1): "1", (2, 0): "1"}  # row, column
        assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]

    def test_calibration_is_drawn_by_confidence_and_counted_below(self, four: Answers) -> None:
        figure = canvas.blank(5, 5)
        scores.draw_calibration(figure, four)
        upper, lower = figure.axes
        confidence, accuracy = np.asarray(upper.lines[1].get_data(), float).round(3)
        drawn = {pair for pair in zip(confidence.tolist(), accuracy.tolist(), strict=True) if pair[0] == pair[0]}
        assert drawn == {(0.6, 1.0), (0.7, 0.0), (0.925, 0.5)}
        assert [bar.get_height() for bar in lower.patches] == [0, 0, 0, 0, 0, 0, 1, 1, 0, 2]  # type: ignore[attr-defined]

    def test_captions_have_the_answer_first_and_then_the_truth(
        self, four: Answers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn: list[object] = []
        monkeypatch.setattr(tiles, "draw_tiles", lambda figure, images, captions, columns: drawn.extend(captions))
        tiles.draw_answers(canvas.blank(5, 5), four, torch.tensor([0, 1]), sure=True)
        tiles.draw_answers(canvas.blank(5, 5), four, torch.tensor([3]))
        assert drawn == [("a (90 %)", False), ("b (70 %)\nnot a (20 %)", True), ("a, not c", True)]

    def test_curves_stand_at_the_steps_and_epochs_that_were_done(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.csv"
        path.write_text("epoch,step,train/acc,val/acc\n0,3,0.5,\n0,3,,0.25\n1,7,0.75,0.5\n")
        assert curves.read_curves(path) == {"train/acc": ([4, 8], [0.5, 0.75]), "val/acc": ([4, 8], [0.25, 0.5])}
        assert curves.read_curves(path, "epoch")["val/acc"] == ([1, 2], [0.25, 0.5])

    def test_runs_that_ended_early_are_dotted_and_the_best_setting_has_the_first_colour(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        figures: list[Any] = []
        monkeypatch.setattr(runs, "save", lambda figure, path: figures.append(figure))
        rows = [("a", "finished", -0.9, "1"), ("b", "pruned", -0.5, "2"), ("c", "finished", -0.7, "1")]
        for name, *_ in rows:
            (tmp_path / name).mkdir()
            (tmp_path / name / "metrics.csv").write_text("epoch,step,val/loss\n0,3,0.5\n")
        table = pd.DataFrame(rows, columns=["run", "state", "better", "optimizer.lr"])
        runs.save_curves(tmp_path, table, "val/loss", ["optimizer.lr"])
        lines = figures[0].axes[0].lines
        assert [(line.get_linestyle(), line.get_color()) for line in lines] == [
            (":", canvas.COLOURS[0]),
            ("-", canvas.COLOURS[1]),
            ("-", canvas.COLOURS[1]),
        ]


@pytest.mark.parametrize("terminal", [True, False])
def test_the_screen_tells_training_from_validation_and_test(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "80")
    folder = "logs/" + 9 * "2026-11-26_"  # a long one, to be copied
    train, valid, test = (ImageSet(torch.zeros(n, 1, 12, 12, dtype=torch.uint8), torch.zeros(n)) for n in (2000, 14, 9))
    layers: Any = SimpleNamespace(layer_names=[], layer_types=[], out_sizes=[], param_nums=[], total_parameters=3)
    splits = Splits(train, valid, test, ["a", "b"], "full")
    used = {"train": 1500, "val": 14, "test": 9}
    show_start(configure([]), splits, used, Hardware("cpu", "32-true"), in_tmp / folder, layers, None)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "images 1,500 of 2,000 to train, 14 to validate, 9 to test" in lines
    assert "data mnist, 2 classes, 1x12x12 resized to 227x227" in lines
    assert f"writes to {folder}" in lines


@pytest.mark.parametrize(("asked", "taken"), [(["batch_size=100"], 100), ([], 32)])
def test_images_are_scored_as_many_at_a_time_as_is_asked_for_or_as_in_training(
    trained: Path, door: Callable[..., Outcome], asked: list[str], taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, answer = list[int](), Predictor.answer

    def counted(self: Predictor, images: ImageSet, split: str, batch_size: int, workers: Any) -> Answers:
        sizes.append(batch_size)
        return answer(self, images[list(range(10))], split, batch_size)

    monkeypatch.setattr(Predictor, "answer", counted)
    outcome = door("eval", f"checkpoint={trained}/checkpoints/best.ckpt", *asked)
    assert (outcome.code, sizes) == (0, [taken]), outcome.err


def test_what_spoke_for_an_answer_is_orange_and_the_rest_a_darker_grey() -> None:
    images, heat = torch.full((2, 1, 1, 1), 200, dtype=torch.uint8), torch.tensor([0.0, 1.0]).view(2, 1, 1)
    cold, hot = tiles.overlay(images, heat).flatten(1).tolist()
    assert cold == [140] * 3
    assert hot == [226, 153, 68]


def test_a_value_of_a_sweep_stands_in_its_order_with_the_mean_of_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []
    monkeypatch.setattr(runs, "save", lambda figure, path: figures.append(figure))
    rows = [("10", 0.75), ("9", 0.5), ("10", 0.25), ("9", 0.25), ("9", float("nan"))]
    runs.save_values(tmp_path, pd.DataFrame(rows, columns=["batch_size", "score"]), "val/acc", ["batch_size"])
    points, means = figures[0].axes[0].lines
    assert list(zip(points.get_xdata(), points.get_ydata(), strict=True)) == [
        ("9", 0.5),
        ("9", 0.25),
        ("10", 0.75),
        ("10", 0.25),
    ]
    assert list(zip(means.get_xdata(), means.get_ydata(), strict=True)) == [("9", 0.375), ("10", 0.5)]


@pytest.mark.parametrize(("monitor", "best"), [("val/acc", "accuracy (75.00 %)"), ("val/loss", "loss (0.7500)")])
def test_the_result_says_seconds_epochs_and_what_was_best(
    in_tmp: Path, monitor: str, best: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_results(in_tmp / "run", 0.75, seconds=120, monitor=monitor)
    show_end(Results.read(run), run, configure([]))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    expected = [
        "test accuracy 50 % (22 to 78)",
        "test loss 1.0000",
        "tested on 8 images of made",
        "training 3 epochs in 120 s",
    ]
    assert {*expected, "run: run"} <= {*lines}
    assert f"checkpoint best by validation {best}" in lines


@pytest.mark.parametrize(
    ("accuracy", "images", "guessing"),
    [(0.10, 500, True), (0.124, 500, True), (0.13, 500, False), (0.11, 10_000, False), (0.02, 500, True)],
)
def test_no_better_than_guessing_is_within_the_interval_of_chance(accuracy: float, images: int, guessing: bool) -> None:
    score = Score(accuracy=accuracy, loss=None, images=images, chance=0.1)
    assert score.is_guessing == guessing


@pytest.mark.parametrize(("tested", "said"), [(True, "test accuracy"), (False, "validation")])
def test_a_run_at_chance_says_so_and_what_to_try(
    in_tmp: Path, tested: bool, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome, score = Results.read(write_results(in_tmp / "run", 0.5)), {"accuracy": 0.1, "images": 500, "chance": 0.1}
    test = Score(loss=2.3, **score) if tested else None  # type: ignore[arg-type]
    train = outcome.train.model_copy(update={"images": 54_000})
    outcome = outcome.model_copy(update={"test": test, "val": Validation(**score), "train": train})  # type: ignore[arg-type]
    show_end(outcome, in_tmp / "run", configure(["optimizer.lr=1e-2", "trainer.max_epochs=2"]))
    words = " ".join(capsys.readouterr().out.split())
    assert f"{said} 10.0 % (7.7 to 12.9), no better than guessing (10.00 %)" in words
    tries = "optimizer.lr=0.001 (a lower rate), scheduler=one_cycle (a warm-up), or trainer.max_epochs=4 (more epochs)."
    assert f"Train again with {tries}" in words
    for option in re.findall(r"[\w.]+=[\w.]+", tries):
        configure([option])


def test_advice_for_few_images_and_for_what_was_learned_by_heart(in_tmp: Path) -> None:
    outcome, said = Results.read(write_results(in_tmp / "run", 0.5)), list[str]()
    score = Score(loss=2.3, accuracy=0.1, images=6, chance=0.1)
    for trained in ({"accuracy": 0.95, "images": 48}, {"images": 48, "epochs": 3}):
        train = outcome.train.model_copy(update=trained)
        said.append(advice(outcome.model_copy(update={"test": score, "train": train}), configure([])) or "")
    assert "It has learned the training images by heart (accuracy 95.00 %). More images, more augmentation" in said[0]
    assert "3 steps are few: train again with batch_size=8" in said[1]
    assert all(text.endswith(" And 6 images decide little.") for text in said)


def test_commands_at_the_end_fit_80_columns_and_only_characters_are_drawn(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("2026-11-26_17-14-37_mnist_alexnet_adamw_7fb8e9", "mine"):
        run = write_results(in_tmp / "logs" / name, 0.75)
        (run / "report.html").touch()
        show_end(Results.read(run), run, configure([]), handwritten=name == "mine")
    last, mine = capsys.readouterr().out.split("Result")[1:]
    assert max(len(line) for line in (last + mine).splitlines()) <= 80
    assert "try it:     python -m src.demo run=last\n" in last
    assert "(last is this run until a newer one has ended)" in last
    assert "draw on it: python -m src.demo run=logs/mine\n" in mine
    assert "last is" not in mine


@pytest.mark.parametrize(
    ("dark", "classes", "drawn"), [(True, "01", True), (False, "01", False), (True, ["bag", "boot"], False)]
)
def test_what_is_drawn_are_single_characters_light_on_dark(dark: bool, classes: list[str], drawn: bool) -> None:
    about: Any = About
    assert about.model_construct(dark_background=dark, classes=list(classes)).handwritten == drawn


def test_a_recipe_says_what_it_reached_and_took_where_that_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, where = "# python -m src.train experiment=x", "seed 1; 2026-11-23; Abacus, 2 cores, bf16-mixed"
    lines = [command, f"# 99.65 % of MNIST test, 10,000; 1,233 s; {where}"]
    lines += [f"{command} dataset.limit=40", f"# 98.54 ± 0.19 % of MNIST test, 10,000; 130 s; {where}", "defaults:"]
    monkeypatch.setattr("src.results.screen.FOLDERS", [tmp_path])
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "x.yaml").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "experiment" / "y.yaml").write_text("# python -m src.train experiment=y\n# not measured\ndefaults:")
    asked = "python -m src.train experiment=x seed=2"
    assert measured(asked) == "experiment=x reached 99.65 % of MNIST test, 10,000, in 21 min on Abacus, 2 cores"
    fewer = "experiment=x dataset.limit=40 reached 98.54 ± 0.19 % of MNIST test, 10,000, in 2 min on Abacus, 2 cores"
    assert measured(f"{asked} dataset.limit=40") == fewer
    assert measured("python -m src.train experiment=y") is None, "not measured"
    assert measured("python -m src.train 'model.widths=[4,4]'") is measured("") is None


def test_chance_is_the_share_of_the_most_frequent_class() -> None:
    images = ImageSet(torch.zeros(5, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 2, 2, 1, 2]))
    assert images.chance == pytest.approx(0.6)
    assert not Score(accuracy=0.9, loss=None, images=500).is_guessing  # a record of before says no chance
