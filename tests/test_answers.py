"""What is read off a network's answers, and that every process's answers are there once."""

from __future__ import annotations

from math import inf, log
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from src.config.errors import UserError
from src.config.schema import Precision
from src.data.images import ImageSet, has_dark_background
from src.data.readers import read_mnist_sample
from src.model.answers import Answers
from src.model.build import build_network
from src.model.hardware import Hardware
from src.model.predictor import Predictor, last_feature_maps
from src.model.saved import Checkpoint
from tests.conftest import results_of
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
