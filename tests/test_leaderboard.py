"""The leaderboard: the tutorials as published, their mistakes put back, and tables of what was measured."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from torch import Tensor, nn
from torchvision.datasets import CIFAR10

from benchmarks import jpeg, leaderboard, mistakes, project, published, records, tables
from benchmarks.cases import accept_any_checksum
from benchmarks.records import BY_NAME, ROWS, Row
from src.config.errors import RunError
from src.results.screen import MEASURED
from tests.conftest import CIFAR_CLASSES, NARROW, ROOT, read_folder, write_cifar, write_folder, write_idx

ANY = "dataset.verify=false"  # made files have other checksums than the official ones


class Tiny(nn.Module):
    """In AlexNet's place; counts its passes in each mode, and notes what it is trained with and its weights then."""

    def __init__(self, in_channels: int, num_classes: int, **_: Any) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.AvgPool2d(32), nn.Flatten(), nn.Dropout(0.5), nn.Linear(in_channels * 49, num_classes)
        )
        self.passes = {True: 0, False: 0}
        self.seen: list[Tensor] = []
        self.weights: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[-2:] == (227, 227)
        self.passes[self.training] += 1
        if self.training:
            self.seen.append(images.mean((1, 2, 3)))
            self.weights.append(self.get_parameter("layers.3.weight").detach().clone())
        return self.layers(images)


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> list[Tiny]:
    """Those that the tutorials build."""
    built: list[Tiny] = []

    def build(*arguments: Any, **options: Any) -> Tiny:
        built.append(Tiny(*arguments, **options))
        return built[-1]

    monkeypatch.setattr(published, "AlexNet", build)
    return built


@pytest.fixture
def digits(tmp_path: Path, rng: np.random.Generator) -> Path:
    write_idx(tmp_path / "data" / "MNIST" / "raw", rng, train=6 * 128, test=40)
    return tmp_path / "data"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for part, count in (("train", 13), ("test", 4)):
        write_folder(tmp_path / "data" / "cifar10-jpeg" / part, classes=10, count=count, size=32)
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def clean_hydra() -> Iterator[None]:
    yield
    GlobalHydra.instance().clear()
    ConfigStore.instance().repo.pop("model", None)


class TestPublished:
    def test_first_steps_on_every_fourth_batch_and_takes_the_files_order(
        self, networks: list[Tiny], digits: Path
    ) -> None:
        train, test = published.images_of("mnist", digits)
        network = published.mnist(train, 1, torch.device("cpu"))
        assert [len(labels) for labels in networks[0].seen] == [128] * 6
        changed = [not torch.equal(one, two) for one, two in pairwise(networks[0].weights)]
        assert changed == [False, False, False, True, False]
        published.accuracy(network, test, 128, torch.device("cpu"))
        assert networks[0].passes == {True: 6, False: 1}

    def test_second_scores_in_training_mode_with_other_statistics(self, networks: list[Tiny], photos: Path) -> None:
        train, test = published.images_of("cifar10", photos, jpeg=True)
        published.accuracy(published.cifar10(train, 2, torch.device("cpu")), test, 64, torch.device("cpu"))
        assert networks[0].passes == {True: 2 * 3 + 1, False: 0}
        for part, (mean, std) in zip((train, test.dataset), (published.CIFAR, published.IMAGENET), strict=True):
            level = np.asarray(part.loader(part.samples[0][0])).mean((0, 1)) / 255
            found = part[0][0].mean((1, 2)).numpy()
            assert found == pytest.approx((level - mean) / std, abs=0.05)

    def test_folder_is_scored_in_a_mixed_order(self, photos: Path) -> None:
        _, test = published.images_of("cifar10", photos, jpeg=True)
        labels = [test.dataset.targets[place] for place in test.indices]
        assert labels != sorted(labels)
        assert sorted(test.indices) == list(range(40))

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["mnist", "--images", "0"], "0 training images: expected a number from 1 to 768"),
            (["mnist", "--images", "769"], "769 training images: expected a number from 1 to 768"),
            (["cifar10", "--jpeg"], "cifar10 is not there, and nothing is downloaded here: [Errno 2]"),
            (["cifar10"], "cifar10 is not there, and nothing is downloaded here: Dataset not found"),
            (["mnist", "--out", "no/where.json"], "--out=no/where.json"),
        ],
    )
    def test_wrong_requests_are_answered_in_a_sentence(
        self,
        digits: Path,
        in_tmp: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        arguments: list[str],
        words: str,
    ) -> None:
        monkeypatch.setattr("sys.argv", ["published", "--data-dir", str(digits), *arguments])
        with pytest.raises(SystemExit) as ended:
            published.main()
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert words in said
        assert not list(in_tmp.glob("*.json"))

    def test_layers_start_as_torch_makes_them(self) -> None:
        network, _ = published.network_of("mnist", torch.device("cpu"))
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
        assert len(layers) == 5
        for layer in layers:
            bound = layer.weight[0].numel() ** -0.5  # of torch's uniform distribution
            # float32 may round a draw to the number just above the bound
            assert 0.9 * bound < float(layer.weight.detach().abs().max()) <= bound * (1 + 1e-6)

    def test_record_says_what_it_learned_from(
        self, networks: list[Tiny], digits: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        words = ["mnist", "--images", "200", "--seed", "7", "--data-dir", str(digits)]
        monkeypatch.setattr("sys.argv", ["published", *words])
        published.main()
        record = json.loads(Path("published.json").read_text())
        assert (record["images"], record["epochs"], record["seed"], record["scored_images"]) == (200, 5, 7, 40)
        assert 0 <= record["accuracy"] <= 1
        assert record["precision"] == "32-true"
        assert len(networks) == 1


def teach(name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> records.Record:
    """Run one mistake on a tiny network."""
    out = tmp_path / f"{name}.json"
    short = [*NARROW, "logger=csv", "trainer.max_epochs=2", "dataset.limit=60"]
    monkeypatch.setattr("sys.argv", ["mistakes", name, "--data-dir", str(data), "--out", str(out), *short, *more])
    mistakes.main()
    return json.loads(out.read_text())


class TestMistakes:
    @pytest.fixture(autouse=True)
    def _in_tmp(self, in_tmp: Path) -> None:
        """Runs lie in logs/ of an empty folder."""

    def test_no_shuffling_takes_the_files_order_in_each_epoch(
        self, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fetched: list[Tensor] = []
        from src.data.images import ImageSet

        fetch = ImageSet.fetch

        def noted(self: ImageSet, indices: Tensor, cuts: Any = None) -> tuple[Tensor, Tensor]:
            fetched.append(indices)
            return fetch(self, indices, cuts)

        monkeypatch.setattr(ImageSet, "fetch", noted)
        teach("no_shuffling", digits, tmp_path, monkeypatch, ANY)
        training = [batch for batch in fetched if len(batch) == 8][:6]
        assert torch.equal(torch.cat(training), torch.arange(48))

    def test_thrown_away_batches_teach_nothing(
        self, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from torch.optim import AdamW

        steps: list[int] = []
        step = AdamW.step

        def counted(self: AdamW, closure: Any = None) -> Any:
            steps.append(1)
            return step(self, closure)

        monkeypatch.setattr(AdamW, "step", counted)
        record = teach("thrown_away_batches", digits, tmp_path, monkeypatch, ANY)
        assert record["images"] == 54
        assert sum(steps) == 2 * (7 // 4)

    def test_mistakes_of_scoring_take_one_training_and_change_only_the_score(
        self, digits: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert digits == photos
        asked: dict[str, Any] = {}
        orders: list[list[int]] = []
        answer = project.Predictor.answer

        def noted(self: Any, images: Any, *arguments: Any) -> Any:
            name = "trained" if self.network.training else "scored"
            asked[name] = self.preparation.mean.tolist()
            orders.append(images.indices.tolist())
            return answer(self, images, *arguments)

        monkeypatch.setattr(project.Predictor, "answer", noted)
        base = ["model.widths=[4,4,4,4,4]"]
        first = teach("never_eval", photos, tmp_path, monkeypatch, *base)
        trained = Path("logs/leaderboard/cifar10_tutorial/seed-1/checkpoints/best.ckpt").stat().st_mtime
        second = teach("wrong_normalization", photos, tmp_path, monkeypatch, *base)
        third = teach("no_validation", digits, tmp_path, monkeypatch, ANY)
        assert Path("logs/leaderboard/cifar10_tutorial/seed-1/checkpoints/best.ckpt").stat().st_mtime == trained
        assert orders == [published.mixed(40).tolist()] * 3
        assert asked["trained"] == pytest.approx([0.4914, 0.4822, 0.4465])
        assert asked["scored"] == pytest.approx([0.5])
        assert first["seconds"] == second["seconds"]
        assert {first["scored_on"], third["scored_on"]} == {"cifar10_jpeg", "mnist"}

    def test_each_base_is_a_row_of_the_board(self) -> None:
        bases = {row.name: row.base for row in ROWS if row.base}
        assert {*mistakes.TRAINING, *mistakes.SCORING, "averaged_batches"} == set(bases)
        assert {BY_NAME[base].section for base in bases.values()} == {"tutorials"}


def record_of(row: str, seed: int = 1, accuracy: float = 0.9, machine: str = "Abacus, 2 cores") -> records.Record:
    return {
        "row": row,
        "seed": seed,
        "command": BY_NAME[row].shown(seed),
        "data": "mnist",
        "source": BY_NAME[row].source,
        "images": 3600,
        "epochs": 5,
        "scored_on": "mnist",
        "scored_images": 10_000,
        "accuracy": accuracy,
        "val_accuracy": accuracy,
        "val_images": 400,
        "seconds": 100.0 + seed,
        "interruptions": 0,
        "machine": machine,
        "threads": 2,
        "precision": "bf16-mixed",
        "versions": {"torch": "2.14.1", "python": "3.11.7"},
        "git": {"revision": "0123456789abcdef", "modified": seed == 3},
        "date": f"2026-11-2{seed}",
    }


class TestTables:
    def test_pages_are_those_of_the_records(self) -> None:
        for page, content in tables.pages().items():
            assert page.read_text(encoding="utf-8") == content, f"{page.name}: make bench-table"

    def test_every_record_is_rendered(self) -> None:
        found = records.current()
        assert len(found) == len(records.load())
        text = tables.details(found)
        for (name, _), runs in found.groupby(["row", "machine"]):
            lines = [line for line in text.splitlines() if f"`{BY_NAME[name].shown(1)}`" in line]
            scores = tables.accuracy(runs), f"{runs.accuracy.iloc[0]:.6f}"
            assert any(score in line for line in lines for score in scores), name
        for record in records.load(tables.RESULTS / "pace", "*.json"):
            for way in record["ways"].values():
                best = max(accuracy for _, accuracy in way["curve"])
                assert f"| {100 * best:.2f} % | {way['seconds']:,.0f} | {record['seed']} |" in text

    def test_rows_that_were_not_run_say_so_with_their_command(self) -> None:
        text = tables.details(records.current()[:0])
        for row in ROWS:
            line = next(line for line in text.splitlines() if f"`{row.shown(1)}`" in line)
            assert "not measured" in line
        assert tables.overview(records.current()[:0]).count("not measured") == 3 * len(tables.OVERVIEW)

    def test_mean_and_deviation_are_over_the_seeds_of_one_machine(self) -> None:
        found = [record_of("mnist_tutorial", seed, accuracy) for seed, accuracy in ((1, 0.9), (2, 0.92), (3, 0.94))]
        found += [record_of("mnist_tutorial", 1, 0.5, machine="Abacus, 4 cores")]
        lines = tables.standings(pd.DataFrame(found), [BY_NAME["mnist_tutorial"]])
        two, four = (line for _, line in lines.iterrows())
        # 4.303 is Student's t of 2 degrees of freedom: 92 ± 4.303 * 2 / sqrt(3)
        assert (two.accuracy, two.seconds, two.seeds) == ("92.0 ± 2.0 % (87.0 to 97.0)", "102", "1, 2, 3")
        assert (two.date, two.revision) == ("2026-11-21 to 2026-11-23", "0123456, 0123456*")
        assert (four.accuracy, four.seeds, four.machine) == ("50.0 % (49.0 to 51.0)", "1", "Abacus, 4 cores")

    def test_price_is_paired_by_seed_and_machine(self) -> None:
        found = [record_of("mnist_tutorial", seed, 0.9 + seed / 100) for seed in (1, 2, 3)]
        found += [record_of("thrown_away_batches", seed, 0.7 + seed / 100) for seed in (1, 2)]
        found += [record_of("thrown_away_batches", 3, 0.1, machine="Abacus, 4 cores")]
        line, elsewhere = (
            line for line in tables.prices(pd.DataFrame(found)).splitlines() if "step on every fourth" in line
        )
        assert "| 72 ± 1 % (65 to 78) | 20.00 ± 0.00 (20.00 to 20.00) | yes | 1, 2 |" in line
        assert "| 10.0 % (9.4 to 10.6) |  |  | 3 |" in elsewhere

    @pytest.mark.parametrize(
        ("lost", "cells"),
        [
            ([0.16, 0.14, 0.20], ("17 ± 3 (9 to 24)", "yes")),  # 16.67 ± 4.303 * 3.06 / sqrt(3)
            ([-0.16, -0.14, -0.20], ("-17 ± 3 (-24 to -9)", "yes")),
            ([0.05, 0.01, 0.03], ("3.0 ± 2.0 (-2.0 to 8.0)", "no")),
            ([0.0, 0.0], ("0.00 ± 0.00 (0.00 to 0.00)", "no")),
            ([0.05], ("5.00", "one seed")),
        ],
    )
    def test_a_price_is_told_from_nothing_where_its_interval_over_the_seeds_leaves_that_out(
        self, lost: list[float], cells: tuple[str, str]
    ) -> None:
        found = [record_of("mnist_tutorial", seed, 0.75) for seed in range(1, len(lost) + 1)]
        found += [record_of("no_shuffling", seed, 0.75 - points) for seed, points in enumerate(lost, 1)]
        machine = "Abacus, 2 cores"
        assert tables.price(pd.DataFrame(found), machine, "mnist_tutorial", "no_shuffling") == cells
        assert tables.price(pd.DataFrame(found), machine, "mnist_tutorial", "mnist_tutorial") == ("", "")

    def test_no_interval_reaches_beyond_what_an_accuracy_can_be(self) -> None:
        runs = pd.DataFrame([record_of("mnist", seed, accuracy) for seed, accuracy in enumerate((0.64, 0.17, 0.99), 1)])
        assert tables.accuracy(runs) == "60 ± 41 % (0 to 100)"

    def test_readme_has_minutes_on_two_cores_and_on_a_gpu(self) -> None:
        gpu = [record_of("mnist", 2, 0.99, machine="Abacus GPU"), record_of("fashion_mnist", 1, 0.8, "Abacus GPU")]
        found = pd.DataFrame([record_of("mnist"), record_of("quick", machine="Abacus, 4 cores"), *gpu])
        digits, clothes, _, sample = [line for line in tables.overview(found).splitlines() if "experiment=" in line]
        assert digits == "| MNIST, `experiment=mnist` | 90.0 % (89.4 to 90.6) | 1.7 | 1.7 |"
        assert clothes.endswith("| 80.0 % (79.2 to 80.8) | not measured | 1.7 |")
        assert sample.endswith("| not measured | not measured | not measured |")

    def test_every_recipe_is_a_row(self) -> None:
        commands = " ".join(row.command for row in ROWS) + " "
        for path in (ROOT / "configs" / "experiment").glob("*.yaml"):
            assert f"experiment={path.stem} " in commands, path.stem

    def test_commands_of_runs_are_accepted(self) -> None:
        for row in ROWS:
            if row.is_run:
                assert project.configure(row.command.split()[1:]).seed >= 0


class TestLeaderboard:
    @pytest.fixture(autouse=True)
    def _elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(records, "RECORDS", tmp_path / "records")
        monkeypatch.setattr(records, "RUNS", tmp_path / "runs")

    def test_row_is_run_once_and_recorded_from_its_results(self, tmp_path: Path) -> None:
        options = ["experiment=quick", *NARROW, "logger=csv", "trainer.max_epochs=1", "trainer.limit_train_batches=2"]
        row = Row("quick", "recipes", "quick", " ".join(["src.train", *options]), 3, 60)
        leaderboard.run(row, 2, tmp_path / "no-data")
        [record] = records.load()
        results = json.loads((tmp_path / "runs" / "quick" / "seed-2" / "results.json").read_text())
        assert record["accuracy"] == results["test"]["accuracy"]
        assert record["seconds"] == results["train"]["seconds"]
        assert (record["seed"], record["source"], record["scored_images"]) == (2, "sample", 500)
        assert record["command"] == row.shown(2)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"])
        trained = (tmp_path / "runs" / "quick" / "seed-2" / "checkpoints" / "best.ckpt").stat().st_mtime
        leaderboard.run(row, 2, tmp_path / "no-data")
        assert (tmp_path / "runs" / "quick" / "seed-2" / "checkpoints" / "best.ckpt").stat().st_mtime == trained

    def test_row_without_its_data_or_device_says_why_and_leaves_no_record(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        row = Row("cifar10_jpeg", "recipes", "photos", " ".join(["src.train experiment=cifar10_jpeg", *NARROW]), 1, 60)
        with pytest.raises(RunError, match="there is no such folder"):
            leaderboard.run(row, 1, tmp_path / "no-data")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(RunError, match="it needs a GPU"):
            leaderboard.run(BY_NAME["cifar10_gpu"], 1, tmp_path / "no-data")
        assert not (tmp_path / "records").exists()

    def test_seeds_that_were_run_otherwise_make_no_mean(self, tmp_path: Path) -> None:
        for seed in (1, 2):
            records.save(record_of("mnist_tutorial", seed))
        records.save(record_of("mnist_tutorial", 1, machine="Abacus, 4 cores") | {"epochs": 9})
        assert len(records.load()) == 3
        records.save(record_of("mnist_tutorial", 3) | {"epochs": 9})
        assert [(record["machine"], record["seed"]) for record in records.load()] == [
            ("Abacus, 2 cores", 3),
            ("Abacus, 4 cores", 1),
        ]

    def test_record_of_another_command_is_not_shown(self) -> None:
        record = record_of("mnist_tutorial")
        assert records.is_current(record)
        assert not records.is_current(record | {"command": "python -m src.train experiment=mnist_tutorial seed=1"})

    def test_heads_of_recipes_are_written_and_the_rest_is_left(self) -> None:
        path = tables.RECIPES / "mnist_tutorial.yaml"
        content = path.read_text(encoding="utf-8")
        found = [record_of("mnist_tutorial", seed, 0.9 + seed / 100) for seed in (1, 2)]
        head, _, rest = tables.recipe(path, pd.DataFrame(found)).partition("defaults:\n")
        assert rest == content.partition("defaults:\n")[2]
        assert (
            "# 92 ± 1 % (85 to 98) of MNIST test, 10,000; 102 s; seed 1, 2; 2026-11-21 to 2026-11-22; Abacus, 2" in head
        )
        assert [(asked, score) for asked, score, *_ in MEASURED.findall(head)] == [
            ("experiment=mnist_tutorial dataset.limit=4000", "92 ± 1 % (85 to 98) of MNIST test, 10,000")
        ]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--rows", "mnsit"], "argument --rows: invalid choice: 'mnsit' (choose from "),
            (["--data-dir", "no/where"], "--data-dir no/where: there is no such folder."),
        ],
    )
    def test_wrong_requests_are_answered_in_a_sentence(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        arguments: list[str],
        words: str,
    ) -> None:
        monkeypatch.setattr("sys.argv", ["leaderboard", *arguments])
        with pytest.raises(SystemExit) as ended:
            leaderboard.main()
        assert ended.value.code == 2
        assert words in capsys.readouterr().err

    @pytest.fixture
    def here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """This machine has two cores and no GPU."""
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(records, "here", lambda facts: {"machine": "Abacus, 2 cores"})

    @pytest.mark.usefixtures("here")
    def test_what_is_missing_here_is_run_the_cheapest_first(self) -> None:
        wanted = leaderboard.missing()
        assert [seconds for seconds, *_ in wanted] == sorted(row.seconds for _, row, _ in wanted)
        assert not any(row.gpu for _, row, _ in wanted)
        assert [seed for _, row, seed in wanted if row.name == "never_eval"] == [1, 2, 3]
        for seed in (1, 3):
            records.save(record_of("quick", seed) | {"seconds": 7.0, "git": None})
        records.save(record_of("tiny", 1, machine="Abacus, 4 cores") | {"seconds": 5000.0})
        records.save(record_of("mnist", 1) | {"command": "of before", "seconds": 3.0})
        left = leaderboard.missing()
        assert {(row.name, seed) for _, row, seed in wanted} - {(row.name, seed) for _, row, seed in left} == {
            ("quick", 1),
            ("quick", 3),
        }
        costs = {row.name: seconds for seconds, row, _ in left}
        assert left[0] == (7.0, BY_NAME["quick"], 2), "as its other seeds here"
        assert costs["tiny"] == 5000.0, "as on another machine"
        assert costs["mnist"] == BY_NAME["mnist"].seconds, "as rows.yaml says, and not as an older command"
        assert len(leaderboard.missing(fresh=True)) == len(wanted)
        assert [(row.name, seed) for _, row, seed in leaderboard.missing(["quick"])] == [("quick", 2)]

    @pytest.mark.usefixtures("here")
    def test_order_is_said_with_its_cost_and_a_row_that_fails_stops_no_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        done, written = [], []

        def run(row: Row, seed: int, data_dir: Path) -> None:
            done.append((row.name, seed))
            if row.name == "tiny":
                raise RunError("nothing to read")

        monkeypatch.setattr(leaderboard, "run", run)
        monkeypatch.setattr(tables, "write", lambda: written.append(True))
        monkeypatch.setattr("sys.argv", ["leaderboard", "--rows", "mnist", "tiny", "--data-dir", str(tmp_path)])
        with pytest.raises(SystemExit) as ended:
            leaderboard.main()
        assert ended.value.code == 1
        assert done == [(name, seed) for name in ("tiny", "mnist") for seed in (1, 2, 3)]
        assert written == [True]
        said = capsys.readouterr()
        first, *lines = said.out.splitlines()
        assert first == "6 runs are missing here, 62 min in all, the cheapest first:"
        assert [line.split() for line in (lines[0], lines[5])] == [
            ["tiny,", "seed", "1", "10", "s"],
            ["mnist,", "seed", "3", "21", "min"],
        ]
        assert said.err.count("error: tiny, seed ") == 3


def test_jpegs_are_cifar10_by_class_and_train_as_a_folder(
    in_tmp: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train_list", "test_list", "meta"):
        monkeypatch.setattr(CIFAR10, name, getattr(CIFAR10, name))  # so that they come back
    accept_any_checksum()
    write_cifar(in_tmp / "cifar-10-batches-py", rng, count=20)
    folder = jpeg.write(in_tmp / "cifar10-jpeg")
    assert len(list((folder / "train" / "frog").glob("*.jpg"))) == 10
    assert len(list((folder / "test").glob("*/*.jpg"))) == 20
    source = read_folder(in_tmp, "auto", "cifar10-jpeg")
    assert source.classes == CIFAR_CLASSES
    genuine = CIFAR10(str(in_tmp))
    airplanes = torch.from_numpy(genuine.data[np.asarray(genuine.targets) == 0]).permute(0, 3, 1, 2).float()
    difference = (source.train.images[source.train.labels == 0].float() - airplanes).abs().mean()
    assert 0 < float(difference) < 60  # noise is what JPEG keeps worst; another image of noise is 85 away
    monkeypatch.setattr("sys.argv", ["jpeg", "--data-dir", str(in_tmp)])
    with pytest.raises(SystemExit) as ended:
        jpeg.main()
    assert ended.value.code == 2
    assert "is there already" in capsys.readouterr().err
