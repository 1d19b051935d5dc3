"""The page of a run: what it says, that it needs nothing else, and how it lies on a phone and on paper."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from PIL import Image

from src.data.images import ImageSet
from src.data.readers import read_mnist_sample
from src.model.answers import Answers
from src.model.predictor import Predictor
from src.model.saved import load
from src.results import page
from src.results.figures import canvas, scores
from src.results.intervals import percent, shown
from src.results.outcome import Outcome as Results
from tests.browser import opened
from tests.conftest import NARROW, Outcome, only_run, results_of, write_folder, write_results

PICTURES = {"curves", "confusion", "calibration", "mistakes", "seen_right", "seen_wrong", "filters"}
REPORTED = [text for text in NARROW if not text.startswith("report")]


class Page(HTMLParser):
    """The text of a page, the addresses that it would fetch, and the words for its pictures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = ""
        self.addresses: list[str] = []
        self.alts: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.addresses += [values[name] or "" for name in ("src", "href", "srcset", "action") if name in values]
        if tag == "img":
            self.alts.append(values.get("alt") or "")

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, in another place."""
    return shutil.copytree(trained, tmp_path / "moved" / "run")


class TestPage:
    def test_training_leaves_it_with_its_pictures(self, trained: Path) -> None:
        assert {path.stem for path in (trained / "report").iterdir()} == PICTURES
        assert (trained / "summary.png").exists()
        for path in (trained / "report").iterdir():
            with Image.open(path) as picture:
                assert min(picture.size) > 50
                assert len(set(picture.convert("L").resize((64, 64)).getdata())) > 10, f"{path} is nearly empty"

    def test_needs_no_network(self, trained: Path) -> None:
        page = Page(trained / "report.html")
        assert len(page.addresses) == len(PICTURES)
        assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
        assert not re.search(r"@import|url\(|<script|<link", (trained / "report.html").read_text())

    def test_says_the_numbers_and_how_they_came_about(self, trained: Path) -> None:
        page, results = Page(trained / "report.html"), results_of(trained)
        assert percent(results["test"]["accuracy"], 1) in page.text
        assert shown(results["test"]["loss"], results["test"]["intervals"]["loss"]).partition(" (")[0] in page.text
        for words in (results["command"], results["versions"]["torch"], "this is no MNIST score", "optimizer:"):
            assert words in page.text
        assert "500 packaged mnist digits, not the official test set" in page.text
        assert page.text.count("50\n") + len(re.findall(r">50<", (trained / "report.html").read_text())) >= 10

    def test_a_network_at_chance_is_no_success_on_it(
        self, run: Path, door: Callable[..., Outcome], unpainted: None
    ) -> None:
        assert "guessing" not in Page(run / "report.html").text
        results = results_of(run)
        results["test"] |= {"accuracy": 0.11, "chance": 0.1}
        (run / "results.json").write_text(json.dumps(results))
        assert door("report", str(run)).code == 0
        assert "Accuracy is 11.0 % (8.5 to 14.0), no better than guessing (10.00 %). " in Page(run / "report.html").text

    def test_says_what_is_on_in_training_only_and_that_filters_look_like_noise(self, trained: Path) -> None:
        predictor = Predictor.of(load(trained / "checkpoints" / "best.ckpt"))
        used = "Training loss is the epoch's mean, with label smoothing, dropout, augmentation:\n"
        assert page.why_above(predictor).startswith(used)
        predictor.network = torch.nn.Linear(2, 2)
        assert "dropout" not in page.why_above(predictor)
        assert "still look like noise" in Page(trained / "report.html").text

    def test_first_says_what_was_changed(self, trained: Path) -> None:
        words = [word for word in re.split(r"\s*\n\s*", Page(trained / "report.html").text) if word]
        line = words[words.index("alexnet on mnist sample", 1) + 1]
        assert line.startswith(
            "Changed: experiment=quick, trainer.max_epochs=1, optimizer.lr=1e-3, batch_size=32, model.widths="
        )
        assert "data_dir" not in line

    def test_says_each_picture_in_words(self, trained: Path) -> None:
        assert all(len(alt) > 20 for alt in Page(trained / "report.html").alts)

    def test_again_from_the_checkpoint_it_says_the_same(
        self, run: Path, door: Callable[..., Outcome], unpainted: None
    ) -> None:
        before = Page(run / "report.html")
        (run / "report.html").unlink()
        shutil.rmtree(run / "report")
        outcome = door("report", str(run))
        assert outcome.code == 0, outcome.err
        after = Page(run / "report.html")
        assert after.text == before.text
        assert {path.stem for path in (run / "report").iterdir()} == PICTURES

    def test_a_folder_that_was_moved_or_sent_has_its_checkpoint_with_it(
        self, run: Path, door: Callable[..., Outcome], in_tmp: Path, unpainted: None
    ) -> None:
        (run / "results.json").write_text(json.dumps({**results_of(run), "checkpoint": "checkpoints/best.ckpt"}))
        outcome = door("report", str(run))
        assert (outcome.code, outcome.out) == (0, f"{run}/report.html\n"), outcome.err

    def test_names_of_classes_are_text(self, door: Callable[..., Outcome], in_tmp: Path) -> None:
        folder = write_folder(in_tmp / "images", classes=2, count=20)
        (folder / "class0").rename(folder / "<b>bold & x")
        (folder / "class1").rename(folder / "$5_$10")  # no formula
        options = [*REPORTED, "dataset=image_folder", f"data_dir={folder}", "trainer.max_epochs=1"]
        assert door("train", *options).code == 0
        page = only_run(in_tmp) / "report.html"
        assert "<b>bold &" in Page(page).text
        assert "<b>bold" not in page.read_text()

    def test_without_a_test_it_shows_validation(
        self, door: Callable[..., Outcome], in_tmp: Path, unpainted: None
    ) -> None:
        options = [*REPORTED, "experiment=quick", "test=false", "trainer.limit_train_batches=2", "trainer.max_epochs=1"]
        assert door("train", *options).code == 0
        page, results = Page(only_run(in_tmp) / "report.html"), results_of(only_run(in_tmp))
        assert "Scored on the validation split" in page.text
        assert percent(results["val"]["accuracy"], 1) in page.text
        assert "test accuracy" not in page.text

    def test_a_page_that_fails_loses_no_run(
        self, door: Callable[..., Outcome], in_tmp: Path, monkeypatch: pytest.MonkeyPatch, unpainted: None
    ) -> None:
        def fail(*_: object) -> None:
            raise AssertionError("no such layer")

        limits = ["trainer.limit_train_batches=1", "trainer.limit_test_batches=1", "trainer.max_epochs=1"]
        with monkeypatch.context() as patch:
            patch.setattr(scores, "draw_calibration", fail)
            outcome = door("train", *REPORTED, "experiment=quick", *limits)
        assert outcome.code == 0
        assert "warning: the report was not written: no such layer." in outcome.err
        assert results_of(only_run(in_tmp))["test"]["images"] == 8
        assert not list(only_run(in_tmp).rglob("*.part*"))
        assert door("report", "last").out.endswith(f"logs/{only_run(in_tmp).name}/report.html\n")
        assert "test accuracy" in Page(only_run(in_tmp) / "report.html").text

    def test_a_link_in_a_strangers_run_is_not_followed(
        self, run: Path, door: Callable[..., Outcome], unpainted: None
    ) -> None:
        mine = run.parent / "mine"
        mine.mkdir()
        (mine / "holiday.png").write_bytes(b"sun")
        shutil.rmtree(run / "report")
        (run / "report").symlink_to(mine)
        assert door("report", str(run)).code == 0
        assert [path.name for path in mine.iterdir()] == ["holiday.png"]
        assert (run / "report" / "curves.png").exists()

    def test_report_false_leaves_no_picture(self, door: Callable[..., Outcome], in_tmp: Path) -> None:
        limits = ["trainer.limit_train_batches=1", "trainer.limit_test_batches=1", "trainer.max_epochs=1"]
        assert door("train", *NARROW, "experiment=quick", *limits).code == 0
        names = {path.name for path in only_run(in_tmp).iterdir()}
        assert not names & {"report.html", "report", "summary.png"}


class TestBrowser:
    def test_a_phone_shows_all_of_it(self, trained: Path) -> None:
        with opened(f"file://{trained}/report.html", width=360, height=740) as page:
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            widths = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth)")
            assert len(widths) == len(PICTURES)
            assert all(width > 300 for width in widths)
            sizes = page.evaluate(
                "[...document.querySelectorAll('td, p')].map(e => parseFloat(getComputedStyle(e).fontSize))"
            )
            assert min(sizes) >= 12
            assert page.requested == [page.url, *[one for one in page.requested if one.startswith("data:")]]

    def test_paper_has_the_whole_config(self, trained: Path) -> None:
        with opened(f"file://{trained}/report.html", width=740) as page:
            page.emulate_media(media="print")
            hidden = page.evaluate("(e => e.scrollHeight - e.clientHeight)(document.querySelector('pre'))")
            assert hidden <= 0


class TestRefusal:
    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda folder: None, "there is no such folder"),
            (lambda folder: folder.mkdir(), "holds no run and no sweep"),
            (lambda folder: (folder.mkdir(), (folder / "config.yaml").touch()), "this run is unfinished"),
            (lambda folder: (folder.mkdir(), (folder / "results.json").write_text("{")), "no record of a run"),
        ],
    )
    def test_what_is_no_finished_run(
        self, door: Callable[..., Outcome], in_tmp: Path, make: Callable[[Path], object], said: str
    ) -> None:
        make(in_tmp / "it")
        outcome = door("report", "it")
        assert outcome.code == 2
        assert outcome.err.startswith("error: it")
        assert said in outcome.err
        assert len(outcome.err.splitlines()) == 1

    @pytest.mark.parametrize(("words", "said"), [([], "required: folder"), (["it", "--dats"], "arguments: --dats")])
    def test_words_that_it_does_not_know(self, door: Callable[..., Outcome], words: list[str], said: str) -> None:
        outcome = door("report", *words)
        assert (outcome.code, len(outcome.err.splitlines())) == (2, 1)
        assert outcome.err.startswith("error: the following" if not words else "error: unrecognized")
        assert said in outcome.err

    def test_images_that_are_not_those_of_the_run(self, door: Callable[..., Outcome], in_tmp: Path) -> None:
        folder = write_folder(in_tmp / "images", classes=2, count=20)
        options = [*NARROW, "dataset=image_folder", f"data_dir={folder}", "trainer.max_epochs=1"]
        assert door("train", *options).code == 0
        (folder / "class0" / "000.png").unlink()
        outcome = door("report", str(only_run(in_tmp)))
        assert outcome.code == 2
        assert "these are not the images of image_folder" in outcome.err
        assert not (only_run(in_tmp) / "report.html").exists()

    @pytest.mark.parametrize("name", ["results.json", "metrics.csv"])
    def test_damaged_records(self, run: Path, door: Callable[..., Outcome], name: str) -> None:
        damaged = {"results.json": re.sub(r'"seconds": [\d.]+', '"seconds": "x"', (run / "results.json").read_text())}
        (run / name).write_text(damaged.get(name, "epoch,val/acc\n0,x\n"))
        outcome = door("report", str(run))
        assert outcome.code == 2
        assert f"{run / name} is " in outcome.err

    def test_checkpoint_of_another_kind(self, run: Path, door: Callable[..., Outcome]) -> None:
        (run / "checkpoints" / "best.ckpt").write_bytes(b"PK\3\4 no checkpoint")
        outcome = door("report", str(run))
        assert outcome.code == 2
        assert "damaged or no checkpoint" in outcome.err

    def test_a_checkpoint_elsewhere_is_not_read(self, run: Path, door: Callable[..., Outcome]) -> None:
        results = results_of(run)
        (run / "results.json").write_text(json.dumps({**results, "checkpoint": "/etc/hostname"}))
        outcome = door("report", str(run))
        assert outcome.code == 2
        assert f"{run}/results.json is damaged, or no record of a run: checkpoint:" in outcome.err


class TestLetters:
    def test_a_font_that_has_them_is_taken(self) -> None:
        ours = get_font(findfont(FontProperties())).get_charmap()
        entry = next(font for font in fontManager.ttflist if font.name == "STIXGeneral")
        letter = chr(min(get_font(entry.fname).get_charmap().keys() - ours.keys()))
        assert canvas._families(f"a{letter}")[0] == "sans-serif"
        assert "STIXGeneral" in canvas._families(f"a{letter}")
        assert canvas._families("aé") == ("sans-serif",)

    @pytest.mark.filterwarnings("error")
    def test_what_no_font_has_is_said_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        ours = [font for font in fontManager.ttflist if font.name.startswith("DejaVu")]
        monkeypatch.setattr(fontManager, "ttflist", ours)
        for number in range(2):
            figure = canvas.blank(2, 2)
            figure.suptitle(canvas.shorten("鬱 \udce9"))
            canvas.save(figure, tmp_path / f"{number}.png")
        assert (
            capfd.readouterr().err == "warning: no font here has 鬱: pictures show boxes. Install one, such as Noto.\n"
        )


def test_a_page_that_is_written_again_is_of_the_first_images_if_only_those_were_tested(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = results_of(run)
    (run / "results.json").write_text(json.dumps(results | {"test": results["test"] | {"images": 60}}))
    seen: list[Answers] = []
    monkeypatch.setattr(page, "save", lambda folder, predictor, answers, outcome: seen.append(answers))
    page.save_again(run, None)
    sample = read_mnist_sample().test
    assert sample is not None
    assert seen[0].split == "test"
    assert torch.equal(seen[0].images.images, sample.images[:60])


def test_headlines_count_what_was_wrong_and_say_units(tmp_path: Path) -> None:
    images = ImageSet(torch.zeros(8, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 0, 0, 0, 0, 1, 1, 1]))
    answers = Answers(images, torch.tensor([[2.0, 0.0]] * 8), ["a", "b"], "test")
    run = write_results(tmp_path, 0.75, seconds=4000)
    cards = {title: words for title, *words in page.headlines(Results.read(run), answers)}
    assert cards["test accuracy"] == ["62 %", "31 to 86, 3 of 8 wrong"]
    assert cards["validation accuracy"] == ["75 %", "41 to 93, of the best epoch"]
    assert cards["training"] == ["4,000 s", "3 epochs of 80 images"]
    assert cards["network"] == ["2.5 M", "parameters, made"]
    untested = Results.read(run).model_copy(update={"test": None})
    assert "validation accuracy" not in [title for title, *_ in page.headlines(untested, answers)], "the first has it"
    small = Results.read(run).model_copy(update={"parameters": 12868})
    assert ("network", "12,868", "parameters, made") in page.headlines(small, answers)
