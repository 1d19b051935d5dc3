"""What a run answered to each image, in its predictions.csv."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from src.config.errors import UserError
from src.data.images import ImageSet
from src.model.answers import Answers
from src.results import predictions
from src.results.predictions import COLUMNS, read, table
from tests.conftest import SHORT, Outcome, only_run, read_folder, results_of, write_folder
from tests.processes import killed_after_a_validation

SAMPLE = ["dataset=mnist", "dataset.source=sample", "trainer.limit_train_batches=2", *SHORT]

NO_NUMBERS = f"{','.join(COLUMNS)}\ntest,1,a,a,,\n".encode()


def made(count: int, split: str = "test") -> Answers:
    images = ImageSet(torch.zeros(count, 1, 1, 1, dtype=torch.uint8), torch.arange(count) % 3)
    logits = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    return Answers(images, logits, ['a "b", c', "ü", "NA"], split)


class TestFile:
    def test_holds_every_answer_and_gives_it_back(self, tmp_path: Path) -> None:
        answers = made(50)
        predictions.write(tmp_path, [table(answers)])
        found = read(tmp_path)
        assert list(found) == COLUMNS
        assert found.image.tolist() == [str(number) for number in range(50)]
        assert [answers.classes.index(name) for name in found.predicted] == answers.predicted.tolist()
        assert [answers.classes.index(name) for name in found.label] == answers.labels.tolist()
        assert found.probability.to_numpy() == pytest.approx(answers.confidence.numpy(), abs=1e-5)
        right = found.label == found.predicted
        assert (found.probability_of_label[right] == found.probability[right]).all()

    def test_ten_thousand_images_take_less_than_a_megabyte_and_many_are_compressed(self, tmp_path: Path) -> None:
        predictions.write(tmp_path, [table(made(10_000))])
        assert (tmp_path / "predictions.csv").stat().st_size < 1e6
        predictions.write(tmp_path, [table(made(20_001))])
        assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv.gz"], "the other one is gone"
        assert len(read(tmp_path)) == 20_001

    def test_answers_that_are_no_numbers_are_kept_as_such(self, tmp_path: Path) -> None:
        answers = Answers(made(3).images, torch.full((3, 3), float("nan")), ["a", "b", "c"], "test")
        predictions.write(tmp_path, [table(answers)])
        assert read(tmp_path).probability.isna().all()

    @pytest.mark.parametrize("content", [b"", b"split,image\ntest,1\n", b"\x00\xff" * 10, NO_NUMBERS])
    def test_a_damaged_one_is_told(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "predictions.csv").write_bytes(content)
        with pytest.raises(UserError, match=r"predictions\.csv is damaged, or holds no predictions"):
            read(tmp_path)

    def test_a_cut_one_too_and_none(self, tmp_path: Path) -> None:
        (tmp_path / "predictions.csv.gz").write_bytes(gzip.compress(b"split," * 1000)[:50])
        with pytest.raises(UserError, match=r"predictions.csv.gz is damaged"):
            read(tmp_path)
        (tmp_path / "predictions.csv.gz").unlink()
        with pytest.raises(UserError, match=r"has no predictions\.csv, which runs of before did not keep. again=RUN"):
            read(tmp_path)


def accuracies(run: Path) -> dict[str, float]:
    answered = read(run)
    return (answered.label == answered.predicted).groupby(answered.split).mean().to_dict()


class TestRun:
    def test_keeps_the_answers_of_the_best_validation_and_of_the_test(
        self, door: Callable[..., Outcome], in_tmp: Path
    ) -> None:
        # a rate that is far too high for the second epoch: the first one is the best
        options = ["trainer.max_epochs=2", "scheduler=step", "scheduler.milestones=[1]", "scheduler.gamma=1000"]
        assert door("train", *SAMPLE, *options).code == 0
        run = only_run(in_tmp)
        results = results_of(run)
        found = accuracies(run)
        assert found["validation"] == pytest.approx(results["val"]["accuracy"])
        assert found["test"] == pytest.approx(results["test"]["accuracy"])
        curve = pd.read_csv(run / "metrics.csv")["val/acc"].dropna()
        assert curve.iloc[0] != curve.iloc[1]
        low, high = results["test"]["accuracy_interval"]
        assert low < results["test"]["accuracy"] < high
        assert (
            results["test"]["intervals"]["loss"][0] < results["test"]["loss"] < results["test"]["intervals"]["loss"][1]
        )

    def test_images_of_a_folder_go_by_their_files_in_memory_or_not(
        self, door: Callable[..., Outcome], in_tmp: Path
    ) -> None:
        folder = write_folder(in_tmp / "images", classes=2, count=20)
        options = ["dataset=image_folder", f"data_dir={folder}", "test=false", *SHORT]
        for number, held in enumerate(("true", "false")):
            words = [f"dataset.in_memory={held}", f"hydra.run.dir={number}"]
            assert door("train", *options, *words).code == 0
        held, decoded = (read(Path(name)) for name in "01")
        assert held.equals(decoded)
        assert all((folder / name).is_file() for name in held.image)
        assert set(held.split) == {"validation"}
        assert len({results_of(Path(name))["val"]["sha256"] for name in "01"}) == 1

    def test_killed_it_ends_with_the_answers_of_one_that_was_not(
        self, door: Callable[..., Outcome], in_tmp: Path
    ) -> None:
        options = [*SAMPLE, "trainer.max_epochs=2"]
        killed_after_a_validation(in_tmp / "killed", "src.train", *options, "hydra.run.dir=killed")
        assert door("train", "resume=killed").code == 0
        assert door("train", *options, "hydra.run.dir=whole").code == 0
        assert read(Path("killed")).equals(read(Path("whole")))

    def test_with_more_epochs_the_answers_are_those_of_the_best(
        self, door: Callable[..., Outcome], in_tmp: Path
    ) -> None:
        assert door("train", *SAMPLE, "hydra.run.dir=r").code == 0
        assert door("train", "resume=r", "trainer.max_epochs=2").code == 0
        found, results = accuracies(Path("r")), results_of(Path("r"))
        assert found["validation"] == pytest.approx(results["val"]["accuracy"])
        assert found["test"] == pytest.approx(results["test"]["accuracy"])
        assert (read(Path("r")).split.value_counts() == 500).all(), "each once"


def test_a_split_has_one_checksum_for_all_seeds(tmp_path: Path) -> None:
    from src.data.splitting import split

    source = read_folder(write_folder(tmp_path / "images", classes=2, count=30))
    first, second = (split(source, 0.2, seed) for seed in (1, 2))
    assert first.test.sha256() == second.test.sha256()
    assert first.valid.sha256() != second.valid.sha256()
    (tmp_path / "images/class0").rename(tmp_path / "images/class00")
    other = split(read_folder(tmp_path / "images"), 0.2, 1)
    assert other.test.sha256() != first.test.sha256()


def test_metrics_have_an_interval_by_a_bootstrap(door: Callable[..., Outcome], in_tmp: Path) -> None:
    options = ["metrics=imbalanced", "trainer.limit_test_batches=10"]
    assert door("train", *SAMPLE, *options).code == 0
    test = results_of(only_run(in_tmp))["test"]
    assert test["metrics"]
    for name, score in test["metrics"].items():
        low, high = test["intervals"][name]
        assert low <= score <= high
    assert test["intervals"]["f1"][0] < test["intervals"]["f1"][1]


def test_of_very_many_answers_a_metric_is_drawn_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Counter[str]()

    def metric(name: str) -> Any:
        def measure(logits: torch.Tensor, labels: torch.Tensor) -> float:
            drawn[name] += 1
            return float((logits.argmax(1) == labels).float().mean())

        return measure

    few = predictions.intervals(made(50), {"few": metric("few")})
    monkeypatch.setattr(predictions, "LARGE", 50)  # of 150 logits
    many = predictions.intervals(made(50), {"many": metric("many")})
    monkeypatch.setattr(predictions, "LARGE", 1)
    predictions.intervals(made(50), {"most": metric("most")})
    assert drawn == {"few": 1000, "many": 333, "most": 200}
    assert few["few"] == pytest.approx(many["many"], abs=0.05)
    assert few["loss"] == many["loss"]
