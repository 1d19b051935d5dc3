"""Settings compared in pairs: what counts as one, what is said of each pair, and what can't be compared."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from src.config.check import as_yaml
from src.config.compose import configure
from src.data.readers import read_mnist_sample
from src.results import predictions
from src.results.intervals import percent
from src.results.settings import Setting
from tests.conftest import Once, Outcome, results_of, write_results
from tests.test_report import Page

LABELS = np.arange(500) % 10


@cache
def config_of(*options: str) -> str:
    return as_yaml(configure(["dataset=mnist", "dataset.mean=[0.1]", *options]))


def answered(share: float, seed: int = 0, images: int = 500) -> np.ndarray:
    """The answers of a made network that is right so often: images are hard or easy for all."""
    rng, hard = np.random.default_rng(seed), np.random.default_rng(99).random(images)
    wrong = 0.7 * hard + 0.3 * rng.random(images) > share * 0.9
    labels = np.arange(images) % 10
    return np.where(wrong, (labels + rng.integers(1, 10, images)) % 10, labels)


def write_run(
    folder: Path,
    predicted: np.ndarray,
    options: Sequence[str] = (),
    seed: int = 1,
    test: bool = True,
    sha256: str = "same",
    images: Sequence[int] | None = None,
) -> Path:
    """The folder of a made run that answered images 0, 1, 2 and so on like this; image n has the label n % 10."""
    write_results(folder, 0.5, test=test)
    results = results_of(folder) | {"seed": seed, "command": f"python -m src.train {' '.join(options)} seed={seed}"}
    results["val"]["sha256"] = f"seed {seed}" if sha256 == "same" else sha256
    if test:
        results["test"]["sha256"] = sha256
    (folder / "config.yaml").write_text(config_of(*options, f"seed={seed}"))
    numbers = np.arange(len(predicted)) if images is None else np.array(images)
    labels = numbers % 10
    results["test" if test else "val"] |= {"accuracy": float((predicted == labels).mean()), "images": len(numbers)}
    (folder / "results.json").write_text(json.dumps(results))
    right, rng = predicted == labels, np.random.default_rng(seed)
    probability = rng.uniform(0.5, 1, len(numbers))
    rows = {"image": numbers, "label": labels, "predicted": predicted, "probability": probability}
    answers = pd.DataFrame({"split": "test" if test else "validation"} | rows)
    answers["probability_of_label"] = np.where(right, probability, 1 - probability)
    answers.to_csv(folder / "predictions.csv", index=False)
    return folder


def wrong_at(*places: int, images: int = 500) -> np.ndarray:
    """Answers that are right but for these images."""
    labels = np.arange(images) % 10
    labels[list(places)] += 1
    return labels % 10


@pytest.fixture
def report(door: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """`report("a", "b")` compares them, and draws nothing."""
    monkeypatch.setattr("src.results.comparison.save", lambda *_: None)
    return lambda *words: door("report", *words)


def lines_of(outcome: Outcome) -> list[str]:
    assert outcome.code == 0, outcome.err
    return [re.sub(" {2,}", "  ", line.strip()) for line in outcome.out.splitlines() if line.strip()]


class TestPairs:
    def test_the_better_one_is_named_with_its_points(self, report: Callable[..., Outcome]) -> None:
        write_run(Path("a"), wrong_at(*range(30)))
        write_run(Path("b"), wrong_at(*range(5)), ["model=alexnet_bn"])
        lines = lines_of(report("a", "b"))
        assert lines[0] == "2 settings, 2 runs, compared on 500 test images of made"
        assert lines[2] == "A  94.0 % (91.6 to 95.8)  1  model=alexnet"
        assert lines[4] == "B  99.0 % (97.7 to 99.6)  1  model=alexnet_bn"
        row = "B - A  +5.0 (3.2 to 7.3)  <0.001  95.0 %  B is better by 5.0 points (3.2 to 7.3)"
        assert row in lines
        assert any("one seed each" in line for line in lines)
        assert row.replace("B - A  +", "B - A  -").replace("(3.2 to 7.3)  <", "(-7.3 to -3.2)  <").replace(
            "B is", "A is"
        ) in lines_of(report("b", "a"))

    def test_a_difference_that_is_not_told_says_what_would_tell_it(self, report: Callable[..., Outcome]) -> None:
        write_run(Path("a"), wrong_at(*range(12)))
        write_run(Path("b"), wrong_at(*range(6, 14)), ["model=alexnet_bn"])
        verdict = next(line for line in lines_of(report("a", "b")) if line.startswith("B - A"))
        assert verdict.endswith("can't be told apart with these 500 images; about 2,000 would")

    def test_of_seeds_it_says_how_many_would_tell(self, report: Callable[..., Outcome]) -> None:
        for seed in (1, 2, 3):
            write_run(Path(f"a{seed}"), answered(0.95, seed), seed=seed)
            write_run(Path(f"b{seed}"), answered(0.97, 20 + seed), ["model=alexnet_bn"], seed=seed)
        lines = lines_of(report("a?", "b?"))
        assert re.search(r"can't be told apart with these 500 images; about [\d,]+ or \d+ seeds each would$", lines[7])
        assert lines[0].startswith("2 settings, 6 runs")
        assert "1, 2, 3  model=alexnet_bn" in lines[4]
        assert lines[5] == "b1 and 2 more"
        assert not any("one seed" in line for line in lines)

    def test_what_would_tell_it_is_more_than_there_is(self, report: Callable[..., Outcome]) -> None:
        for seed, wrong in (1, 500), (2, 700):  # two seeds are too few to say how much seeds differ
            write_run(Path(f"a{seed}"), wrong_at(*range(wrong), images=10_000), seed=seed)
            write_run(Path(f"b{seed}"), wrong_at(images=10_000), ["model=alexnet_bn"], seed=seed)
        assert lines_of(report("a?", "b?"))[7].endswith("can't be told apart with these 10,000 images")

    def test_the_same_answers_differ_by_nothing(self, report: Callable[..., Outcome]) -> None:
        write_run(Path("a"), answered(0.9))
        write_run(Path("b"), answered(0.9), ["model=alexnet_bn"])
        verdict = next(line for line in lines_of(report("a", "b")) if line.startswith("B - A"))
        assert verdict == "B - A  0.0 (-0.7 to 0.7)  1.000  100.0 %  can't be told apart with these 500 images"

    def test_of_many_pairs_holm_tells_fewer(self, report: Callable[..., Outcome]) -> None:
        for number, rate in enumerate(["1e-3", "1e-4", "1e-5", "1e-6"]):
            wrong = range(7) if number == 3 else range(0)
            write_run(Path(f"r{number}"), wrong_at(*wrong), [f"optimizer.lr={rate}"])
        alone = next(line for line in lines_of(report("r0", "r3")) if line.startswith("B - A"))
        assert alone.endswith("  0.016  98.6 %  A is better by 1.4 points (0.4 to 2.9)")
        lines = lines_of(report("r0", "r1", "r2", "r3"))
        among = next(line for line in lines if line.startswith("D - A"))
        assert among.endswith("  0.094  98.6 %  can't be told apart with these 500 images; about 860 would")
        assert "corrected for 6 pairs (Holm)" in " ".join(lines)

    def test_only_images_that_all_answered_count(self, report: Callable[..., Outcome]) -> None:
        write_run(Path("a"), wrong_at(*range(50)))
        few = list(range(40, 140))[::-1]
        write_run(Path("b"), np.array(few) % 10, ["model=alexnet_bn"], images=few)
        lines = lines_of(report("a", "b"))
        assert "100 test images" in lines[0]
        assert lines[7].startswith("B - A  +10 (4 to 17)")

    def test_where_a_test_was_left_out_validation_is_compared(self, report: Callable[..., Outcome]) -> None:
        write_run(Path("a"), wrong_at(1), test=False)
        write_run(Path("b"), wrong_at(2), ["model=alexnet_bn"], test=False)
        out = report("a", "b").out
        assert "500 validation images" in out
        assert "a left the test out: validation is compared" in out

    def test_fits_80_columns(self, report: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
        write_run(Path("a"), wrong_at(*range(12)))
        write_run(Path("b"), wrong_at(*range(6, 14)), ["model=alexnet_bn"])
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        monkeypatch.setenv("COLUMNS", "80")
        out = re.sub("\x1b.*?m", "", report("a", "b").out)
        assert 60 < max(map(len, out.splitlines()[:-1])) <= 80, out
        assert "about 2,000 would" in " ".join(out.split())


class TestSettings:
    def test_runs_that_differ_in_seed_and_place_alone_are_one(self, report: Callable[..., Outcome]) -> None:
        write_run(Path("a"), answered(0.9), ["num_workers=0"])
        write_run(Path("b"), answered(0.9, 1), ["num_workers=2", "report=false", "logger=csv"], seed=2)
        write_run(Path("c"), answered(0.9, 2), ["trainer.max_epochs=3"])
        out = report("a", "b", "c").out
        assert "2 settings, 3 runs" in out
        assert "1, 2" in out
        assert "trainer.max_epochs=10" in out, "which may change as a run goes on, but is another setting"

    def test_what_was_measured_in_the_images_of_a_seed_is_none_of_its_own(self, report: Callable[..., Outcome]) -> None:
        for number, mean in enumerate((0.1301, 0.1302, 0.1303), start=1):
            write_run(Path(f"r{number}"), answered(0.9, number), seed=number)
            config = Path(f"r{number}/config.yaml")
            config.write_text(config.read_text().replace("- 0.1\n", f"- {mean}\n"))
        write_run(Path("named"), answered(0.9), ["dataset.mean=[0.5]"])
        out = report("r1", "r2", "r3", "named").out
        assert "2 settings, 4 runs" in out
        assert "dataset.mean=[0.5]" in out

    def test_order_within_a_setting_does_not_matter(self, report: Callable[..., Outcome]) -> None:
        for seed in (1, 2, 3):
            write_run(Path(f"a{seed}"), answered(0.93, seed), seed=seed)
            write_run(Path(f"b{seed}"), answered(0.96, 3 + seed), ["model=alexnet_bn"], seed=seed)
        rows = [
            next(line for line in lines_of(report(*words.split())) if line.startswith("B - A"))
            for words in ("a1 a2 a3 b1 b2 b3", "a3 b2 a1 b3 b1 a2")
        ]
        assert rows[0] == rows[1]

    def test_sweeps_and_patterns_are_their_runs(self, report: Callable[..., Outcome]) -> None:
        for rate in ("1e-3", "1e-4"):
            for seed in (1, 2):
                write_run(Path(f"s/lr-{rate}_{seed}"), answered(0.9, seed), [f"optimizer.lr={rate}"], seed=seed)
        (write_run(Path("s/failed"), answered(0.9)) / "results.json").unlink()
        write_run(Path("logs/one"), answered(0.9, 3), ["model=alexnet_bn"])
        Path("logs/some_file").touch()
        out = report("s", str(Path.cwd() / "logs/*")).out
        assert "3 settings, 5 runs" in out
        assert "left out: runs that are not finished (1)" in out
        assert report("s/lr-*").out.splitlines()[1:] == report("s/lr-1e-3*", "s/lr-1e-4*").out.splitlines()[1:]

    def test_runs_of_one_setting_are_compared_by_seed(self, report: Callable[..., Outcome]) -> None:
        write_run(Path("a"), wrong_at(*range(20)), seed=1)
        write_run(Path("b"), wrong_at(1), seed=2)
        lines = lines_of(report("a", "b"))
        assert lines[2].endswith("1  seed=1")
        assert any("B is better" in line for line in lines)

    def test_the_same_again_of_another_source_is_a_setting_of_its_own(self, report: Callable[..., Outcome]) -> None:
        for folder in ("before", "after"):
            for seed in (1, 2):
                write_run(Path(folder, f"s{seed}"), answered(0.9, seed), seed=seed)
        lines = lines_of(report("before", "after"))
        assert lines[0].startswith("2 settings, 4 runs")
        assert [lines[3], lines[5]] == ["before/s1 and 1 more", "after/s1 and 1 more"]

    def test_one_that_asks_for_nothing_is_named_by_what_the_others_change(self, report: Callable[..., Outcome]) -> None:
        write_run(Path("a"), answered(0.9))
        write_run(Path("b"), answered(0.9), ["model=alexnet_bn", "optimizer.lr=3e-4"])
        lines = lines_of(report("a", "b"))
        assert lines[2].endswith("  model=alexnet"), "both have one rate"
        assert lines[4].endswith("  model=alexnet_bn")

    def test_commands_that_say_nothing_leave_it_to_the_configs(self, report: Callable[..., Outcome]) -> None:
        for name, rate in ("a", "1e-3"), ("b", "1e-4"):
            results = results_of(write_run(Path(name), answered(0.9), [f"optimizer.lr={rate}"]))
            Path(name, "results.json").write_text(json.dumps(results | {"command": ""}))
        assert lines_of(report("a", "b"))[4].endswith("  optimizer.lr=0.0001")


def refused() -> dict[str, tuple[list[str], str]]:
    """What is asked for in a folder that `made` has filled, and the sentence that it ends with."""
    newer = "again=RUN of src.train makes it anew."
    return {
        "older": (["a", "older"], f"older has no predictions.csv, which runs of before did not keep. {newer}"),
        "unfinished": (
            ["a", "unfinished"],
            "unfinished: this run is unfinished, no results.json is there. Finish it with python -m src.train "
            "resume=unfinished",
        ),
        "another test set": (
            ["a", "b", "other"],
            "a and other have other test images: two versions or cuts of made. Compare runs that were",
        ),
        "another data set": (
            ["a", "fashion"],
            "a and fashion have other test images: made and fashion. Compare runs that were scored on the same.",
        ),
        "nothing in common": (
            ["a", "few"],
            "a and the others have no test images in common that each has answered.",
        ),
        "seeds that cut validation": (
            ["a", "untested"],
            "a and untested have other validation images: seeds 1 and 2 cut them, and untested left the test out. "
            "Compare runs with test=true, or of one seed.",
        ),
        "one alone": (
            ["a*"],
            "a is one run, which nothing is there to compare with. Name another one, or see it alone: "
            "python -m src.report a",
        ),
        "two names": (["a", "./a"], "a and ./a both name the run a. Name it once."),
        "a sweep's run": (["s", "s/one"], "s and s/one both name the run s/one. Name it once."),
        "one seed twice": (
            ["s", "twice"],
            "twice/one and twice/two have one config and one seed. Leave one of them out, or name them one by one.",
        ),
        "no run": (
            ["a", "images"],
            "images holds no run and no sweep. Name one, such as logs/NAME or logs/sweep/NAME.",
        ),
        "no folder": (["a", "nowhere"], "nowhere: there is no such folder."),
        "no match": (["a", "x*"], "x*: no run's folder has such a name. Quote the pattern, as 'logs/*mnist*'."),
        "no finished one": (["a", "begun"], "begun: none of its runs (1) is finished."),
        "a filter": (["a", "b", "seed=1"], "seed=1: a comparison takes folders, and output=FOLDER."),
        "a comparison": (["compared", "compared"], "compared holds a comparison, not a run. Name the runs that"),
        "a cut one": (["a", "cut"], "cut was scored on 500 test images with "),
        "a changed one": (["changed", "a"], "changed was scored on 500 test images with "),
        "a place alone": (["output=x"], "output=x: name a folder as well, such as logs."),
        "a damaged one": (["a", "damaged"], "damaged/predictions.csv is damaged, or holds no predictions"),
    }


@pytest.fixture(scope="module")
def made(once: Once) -> Path:
    def make() -> None:
        for name, seed in (("a", 1), ("b", 2), ("s/one", 3), ("twice/one", 4), ("twice/two", 4)):
            write_run(Path(name), answered(0.9, seed), seed=seed)
        (write_run(Path("older"), answered(0.9)) / "predictions.csv").unlink()
        (write_run(Path("unfinished"), answered(0.9)) / "results.json").unlink()
        (write_run(Path("begun/one"), answered(0.9)) / "results.json").unlink()
        (write_run(Path("damaged"), answered(0.9)) / "predictions.csv").write_text("split,image\n")
        cut = write_run(Path("cut"), answered(0.9)) / "predictions.csv"
        cut.write_text("".join(cut.read_text().splitlines(keepends=True)[:100]))
        changed = pd.read_csv(write_run(Path("changed"), answered(0.9)) / "predictions.csv").assign(predicted=42)
        changed.to_csv("changed/predictions.csv", index=False)
        write_run(Path("other"), answered(0.9), sha256="other")
        write_run(Path("few"), np.arange(5), images=range(1000, 1005))
        results = results_of(write_run(Path("fashion"), answered(0.9)))
        results["dataset"] |= {"name": "fashion", "test_set": "fashion"}
        Path("fashion/results.json").write_text(json.dumps(results))
        write_run(Path("untested"), answered(0.9), seed=2, test=False)
        Path("images").mkdir()
        Path("compared").mkdir()
        Path("compared/comparison.html").touch()

    return once("compared_runs", make)


@pytest.mark.parametrize("case", refused())
def test_what_cannot_be_compared_is_told_in_a_sentence(
    case: str, made: Path, door: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, sentence = refused()[case]
    monkeypatch.chdir(made)
    outcome = door("report", *words)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {sentence}")
    assert outcome.err.count("\n") == 1
    assert not Path("logs").exists()


@pytest.fixture
def pair(trained: Path, in_tmp: Path) -> tuple[str, str]:
    """The trained run with its checkpoint, and one without that was right where the first 30 times it was wrong."""
    shutil.copytree(trained, "a")
    Path("b").mkdir()
    for name in ("config.yaml", "results.json"):
        shutil.copy(trained / name, f"b/{name}")
    Path("b/config.yaml").write_text(Path("a/config.yaml").read_text().replace("hidden: 64", "hidden: 65"))
    answers = predictions.read(Path("a"))
    mistaken = answers.index[(answers.split == "test") & (answers.label != answers.predicted)][:30]
    answers.loc[mistaken, "predicted"] = answers.label[mistaken]
    answers.loc[mistaken, "probability_of_label"] = np.linspace(0.99, 0.7, 30)
    answers.to_csv("b/predictions.csv", index=False)
    results, tested = results_of(Path("b")), answers[answers.split == "test"]
    results["test"]["accuracy"] = float((tested.label == tested.predicted).mean())
    Path("b/results.json").write_text(json.dumps(results))
    return "a", "b"


class TestPage:
    def test_is_one_file_with_tables_and_pictures_and_needs_no_network(
        self, pair: tuple[str, str], door: Callable[..., Outcome]
    ) -> None:
        assert door("report", *pair, "output=there").code == 0
        outcome = door("report", *pair, "there", "output=there")  # once more, as of a pattern that the shell reads
        assert outcome.out.endswith("page, tables and pictures: there/comparison.html\n"), outcome.err
        page = Page(Path("there/comparison.html"))
        assert len(page.addresses) == 2
        assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
        assert all(len(alt) > 20 for alt in page.alts)
        verdict = re.search(r"B is better by 6\.0 points \([\d.]+ to [\d.]+\)", outcome.out)
        assert verdict
        for text in (page.text, Path("there/comparison.md").read_text()):
            assert verdict[0] in text
            assert "model.hidden=65" in text
        assert {path.name for path in Path("there").iterdir()} == {
            "comparison.html",
            "comparison.md",
            "differences.png",
            "disagreements.png",
        }
        for path in Path("there").glob("*.png"):
            with Image.open(path) as picture:
                assert len(set(picture.convert("L").resize((64, 64)).getdata())) > 10, f"{path} is nearly empty"

    def test_images_are_those_on_which_they_disagree_most(
        self, pair: tuple[str, str], door: Callable[..., Outcome], unpainted: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown: list[Any] = []
        monkeypatch.setattr("src.results.figures.tiles.draw_tiles", lambda figure, *parts: shown.append(parts))
        assert door("report", *pair).code == 0
        first, second = (predictions.read(Path(name)) for name in pair)
        gaps = second.probability_of_label - first.probability_of_label
        rows = first.loc[gaps[first.predicted != second.predicted].sort_values(ascending=False).index[:20]]
        (images, captions, _), *others = shown
        assert not others
        store = read_mnist_sample().train.store
        assert isinstance(store, torch.Tensor)
        assert images.equal(store[rows.image.astype(int).tolist()])
        assert captions[0][
            0
        ] == f"{rows.label.iloc[0]} by B ({percent(second.probability_of_label[rows.index[0]], 0)})\n" + (
            f"{rows.predicted.iloc[0]} by A ({percent(rows.probability.iloc[0], 0)})"
        )
        table = re.findall(r"^\| (\d+) \| \d \| \d \(", Path("logs/compared/comparison.md").read_text(), re.MULTILINE)
        assert table == rows.image.tolist()

    @pytest.mark.parametrize("gone", [True, False])
    def test_without_images_it_has_their_names(
        self, gone: bool, pair: tuple[str, str], door: Callable[..., Outcome], unpainted: None
    ) -> None:
        Path("logs/compared").mkdir(parents=True)
        Path("logs/compared/disagreements.png").touch()
        if gone:
            shutil.rmtree("a/checkpoints")
        else:
            Path("a/checkpoints/best.ckpt").write_bytes(b"damaged")
        outcome = door("report", *pair)
        assert outcome.code == 0
        assert not Path("logs/compared/disagreements.png").exists(), "of another comparison"
        assert ("no images are shown: checkpoint=a/checkpoints/best.ckpt: it " in outcome.out) is not gone
        assert "Images on which they disagree most" in Page(Path("logs/compared/comparison.html")).text

    def test_of_a_dozen_runs_is_there_in_seconds(self, door: Callable[..., Outcome], in_tmp: Path) -> None:
        for number in range(12):
            config = write_run(Path(f"r{number}"), answered(0.9 + 0.008 * number, number, 2000)) / "config.yaml"
            config.write_text(re.sub("batch_size: .*", f"batch_size: {number + 1}", config.read_text()))
        begun = time.monotonic()
        outcome = door("report", "r*")
        assert outcome.code == 0, outcome.err
        assert time.monotonic() - begun < 20
        assert "the page has all 66 pairs" in outcome.out
        text = Page(Path("logs/compared/comparison.html")).text
        assert "L - K" in text
        assert "12 settings, 12 runs, compared on 2,000 test images" in text


def test_seeds_that_agree_leave_the_doubt_of_the_images() -> None:
    right = np.arange(500) < np.array([[490], [490]])
    made: Any = SimpleNamespace(runs=[1, 2], right=right)
    low, high = Setting.interval.fget(made)  # type: ignore[attr-defined]
    assert 0.96 < low < 0.98 < high < 1.0
