"""Prediction: any image, prepared as in training; tables, files and refusals."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from src.data.readers import read_mnist_sample
from src.model.predictor import Predictor, Reading
from src.serving.image_files import Row, draw_sheet, find_images, show, write
from tests.conftest import NARROW, Outcome, only_run, read_folder, read_image, write_folder


@pytest.fixture
def checkpoint(trained: Path) -> str:
    return f"checkpoint={trained / 'checkpoints' / 'best.ckpt'}"


@pytest.fixture(scope="module")
def predictor(trained: Path) -> Predictor:
    return Predictor.load(trained / "checkpoints" / "best.ckpt")


@pytest.fixture(scope="module")
def digits(predictor: Predictor) -> list[tuple[Image.Image, str]]:
    """One genuine test digit of each class that the network is sure of and right about, with the class."""
    sample = read_mnist_sample()
    assert sample.test is not None
    answers = predictor.answer(sample.test, "test")
    found = []
    for digit in range(10):
        sure = (answers.right & (answers.labels == digit)) * answers.confidence
        found.append((Image.fromarray(sample.test.images[int(sure.argmax()), 0].numpy()), str(digit)))
    return found


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class TestImages:
    @pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "gif"])
    def test_any_format(
        self,
        door: Callable[..., Outcome],
        in_tmp: Path,
        checkpoint: str,
        digits: list[tuple[Image.Image, str]],
        suffix: str,
    ) -> None:
        for image, digit in digits:
            image.save(in_tmp / f"{digit}.{suffix}", quality=95)
        outcome = door("predict", checkpoint, f"input=*.{suffix}", "output=o.csv", "top_k=1")
        assert outcome.code == 0, outcome.err
        rows = read(in_tmp / "o.csv")
        assert [row["predicted"] for row in rows] == [Path(row["file"]).stem for row in rows] == list("0123456789")

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I"])
    def test_any_mode(
        self, in_tmp: Path, predictor: Predictor, digits: list[tuple[Image.Image, str]], mode: str
    ) -> None:
        image, digit = digits[3]
        if mode in ("I", "I;16"):
            converted = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
            converted = converted.convert("I") if mode == "I" else converted
        else:
            converted = image.convert(mode)
        path = in_tmp / ("a.tif" if mode in ("CMYK", "I", "I;16") else "a.png")
        converted.save(path)
        pixels = read_image(path, 1, (28, 28))
        assert np.abs(pixels[0].astype(int) - np.asarray(image)).mean() < 20
        assert predictor.classes[int(predictor(torch.from_numpy(pixels.copy())[None]).argmax())] == digit

    def test_bytes_of_native_size_reach_the_network_unchanged(
        self, in_tmp: Path, predictor: Predictor, digits: list[tuple[Image.Image, str]]
    ) -> None:
        digits[5][0].save(in_tmp / "a.png")
        assert (read_image(in_tmp / "a.png", 1, (28, 28))[0] == np.asarray(digits[5][0])).all()

    def test_any_size_and_orientation(
        self, door: Callable[..., Outcome], in_tmp: Path, checkpoint: str, digits: list[tuple[Image.Image, str]]
    ) -> None:
        image, digit = digits[4]
        wide = Image.new("L", (900, 500))
        wide.paste(image.resize((500, 500)), (200, 0))  # what lies left and right of the square is cut off
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees to the right
        wide.rotate(90, expand=True).save(in_tmp / "photo.jpg", exif=exif)
        image.resize((7, 7)).resize((28, 28)).save(in_tmp / "tiny.png")
        assert door("predict", checkpoint, "input=photo.jpg", "output=o.json").code == 0
        (row,) = json.loads((in_tmp / "o.json").read_text())["predictions"]
        assert row["predicted"] == digit

    def test_of_another_shape_the_middle_is_taken_undistorted(self, in_tmp: Path) -> None:
        ramp = np.tile(np.linspace(0, 255, 640).astype(np.uint8), (480, 1))
        Image.fromarray(ramp).save(in_tmp / "same.png")
        Image.fromarray(np.pad(ramp, ((100, 100), (0, 0)), constant_values=0)).save(in_tmp / "tall.png")
        for name in ("same.png", "tall.png"):
            row = read_image(in_tmp / name, 1, (64, 48))[0, 24]
            assert abs(row.astype(int) - np.linspace(0, 255, 64)).max() < 5, name

    def test_dark_on_light_is_inverted_and_said(
        self, door: Callable[..., Outcome], in_tmp: Path, checkpoint: str, digits: list[tuple[Image.Image, str]]
    ) -> None:
        for image, digit in digits[:3]:
            ImageOps.invert(image).save(in_tmp / f"{digit}.png")
        digits[3][0].save(in_tmp / "3.png")
        ink = Image.new("RGBA", (28, 28))  # black strokes on nothing
        ink.putalpha(digits[4][0])
        ink.save(in_tmp / "4.png")
        outcome = door("predict", checkpoint, "input=*.png", "output=o.csv")
        assert "4 images were dark on light and inverted" in outcome.out
        rows = read(in_tmp / "o.csv")
        assert [row["predicted"] for row in rows] == list("01234")
        assert [row["inverted"] for row in rows] == ["true", "true", "true", "false", "true"]
        as_they_are = door("predict", checkpoint, "input=*.png", "output=o.csv", "invert=false")
        assert "inverted" not in as_they_are.out
        assert [row["inverted"] for row in read(in_tmp / "o.csv")] == ["false"] * 5

    def test_photos_are_never_inverted(self, door: Callable[..., Outcome], in_tmp: Path, images_folder: Path) -> None:
        options = [*NARROW, "dataset=image_folder", f"data_dir={images_folder}", "trainer.max_epochs=1"]
        assert door("train", *options).code == 0
        best = only_run(in_tmp) / "checkpoints" / "best.ckpt"
        Image.new("RGB", (64, 48), "white").save(in_tmp / "white.png")
        outcome = door("predict", f"checkpoint={best}", "input=white.png", "output=o.csv")
        assert outcome.code == 0, outcome.err
        assert [row["inverted"] for row in read(in_tmp / "o.csv")] == ["false"]

    def test_folder_names_are_the_truth_where_they_are_classes(
        self, door: Callable[..., Outcome], in_tmp: Path, checkpoint: str
    ) -> None:
        sample = read_mnist_sample()
        assert sample.test is not None
        for number in range(0, 500, 5):
            place = in_tmp / "digits" / str(int(sample.test.labels[number]))
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(sample.test.images[number, 0].numpy()).save(place / f"{number}.png")
        outcome = door("predict", checkpoint, "input=digits", "output=o.csv", "sheet=sheet.png", "batch_size=32")
        assert outcome.code == 0, outcome.err
        rows = read(in_tmp / "o.csv")
        assert len(rows) == 100
        right = sum(row["predicted"] == row["true"] for row in rows)
        assert f"{right} of 100 right" in outcome.out
        assert "and 80 more" in outcome.out
        answers = Predictor.load(checkpoint.partition("=")[2]).answer(sample.test[torch.arange(0, 500, 5)], "test")
        assert right == int(answers.right.sum())  # what scoring the same images in memory gives
        with Image.open(in_tmp / "sheet.png") as sheet:
            assert sheet.width == 1080
            assert sheet.height > 1000

    def test_the_folder_at_hand_has_its_name_too(
        self, door: Callable[..., Outcome], in_tmp: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = in_tmp / "4"
        folder.mkdir()
        Image.new("L", (28, 28)).save(folder / "a.png")
        monkeypatch.chdir(folder)
        outcome = door("predict", f"checkpoint={trained / 'checkpoints/best.ckpt'}", "input=.", "output=../o.csv")
        assert outcome.code == 0, outcome.err
        assert [row["true"] for row in read(in_tmp / "o.csv")] == ["4"]

    def test_output_has_the_best_k(
        self, door: Callable[..., Outcome], in_tmp: Path, checkpoint: str, digits: list[tuple[Image.Image, str]]
    ) -> None:
        digits[7][0].save(in_tmp / "a, b.png")
        assert door("predict", checkpoint, "input=a, b.png", "output=o.csv", "top_k=99").code == 0
        (row,) = read(in_tmp / "o.csv")
        assert list(row)[:3] == ["file", "predicted", "probability"]
        assert (row["file"], row["predicted"]) == ("a, b.png", "7")
        shares = [float(value) for name, value in row.items() if name.startswith("probability")]
        assert len(shares) == 10
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1, abs=1e-4)

    def test_the_screen_is_80_columns_wide(
        self, door: Callable[..., Outcome], in_tmp: Path, checkpoint: str, digits: list[tuple[Image.Image, str]]
    ) -> None:
        digits[1][0].save(in_tmp / "one.png")
        outcome = door("predict", checkpoint, "input=one.png")
        assert max(map(len, outcome.out.splitlines())) <= 80


class TestRefusal:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["input=nothing.png"], "input=nothing.png: there is no such file or folder."),
            (["input=*.jpeg"], "input=*.jpeg: no file has a name of that pattern."),
            (["input=empty"], "input=empty: that folder holds no images."),
            (["input=text.png"], "text.png: no image that can be read. Replace or remove it."),
            (["input=good.png", "output=o.xlsx"], "output=o.xlsx: expected a file that ends in .csv or .json."),
            (["input=good.png", "output=no/o.csv"], "output=no/o.csv: there is no folder no. Make it first."),
            (["input=good.png", "sheet=s.jpg"], "sheet=s.jpg: expected a file that ends in .png."),
            (["input=good.png", "top_k=0"], "top_k=0: expected a number greater than 0."),
            (["input=good.png", "topk=2"], "topk: there is no such key. Did you mean top_k?"),
        ],
    )
    def test_wrong_requests(
        self, door: Callable[..., Outcome], in_tmp: Path, checkpoint: str, options: list[str], said: str
    ) -> None:
        (in_tmp / "empty").mkdir()
        (in_tmp / "empty" / "notes.txt").write_text("none")
        (in_tmp / "text.png").write_text("none")
        Image.new("L", (28, 28)).save(in_tmp / "good.png")
        before = sorted(path.name for path in in_tmp.iterdir())
        outcome = door("predict", checkpoint, *options)
        assert (outcome.code, outcome.err) == (2, f"error: {said}\n")
        assert sorted(path.name for path in in_tmp.iterdir()) == before

    def test_a_checkpoint_of_another_kind(self, door: Callable[..., Outcome], in_tmp: Path) -> None:
        torch.save({"state_dict": {}}, in_tmp / "other.ckpt")
        Image.new("L", (28, 28)).save(in_tmp / "good.png")
        outcome = door("predict", "checkpoint=other.ckpt", "input=good.png")
        assert outcome.code == 2
        assert "another program wrote it" in outcome.err

    def test_broken_images_among_good_ones_are_left_out_and_named(
        self, door: Callable[..., Outcome], in_tmp: Path, checkpoint: str
    ) -> None:
        folder = write_folder(in_tmp / "images", classes=1, count=5) / "class0"
        whole = (folder / "002.png").read_bytes()
        (folder / "002.png").write_bytes(whole[: len(whole) // 2])
        (folder / "header.ppm").write_bytes(b"P6 x 3 255 ")
        outcome = door("predict", checkpoint, "input=images", "output=o.csv", "batch_size=2")
        assert outcome.code == 1
        assert "002.png is a broken image" in outcome.err
        assert "2 of 6 left out" in outcome.err
        assert len(read(in_tmp / "o.csv")) == 4


def test_prediction_sees_what_training_reads(in_tmp: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = write_folder(in_tmp / "made", classes=2, count=3)
    (in_tmp / "f").mkdir()
    (in_tmp / "f/a").symlink_to(made / "class0")
    (made / "class1").rename(in_tmp / "f/b")
    (in_tmp / "f/b/000.png").rename(in_tmp / "f/b/photo")  # without an extension
    (in_tmp / "f/b/001.png").rename(in_tmp / "f/b/x.2021")
    (in_tmp / "f/b/gone.png").symlink_to("nothing.png")
    (in_tmp / "f/b/notes.txt").write_text("none")
    found = [str(path) for path in find_images("f")]
    assert found == [
        *(f"f/a/{number:03}.png" for number in range(3)),
        "f/b/002.png",
        "f/b/gone.png",
        "f/b/photo",
        "f/b/x.2021",
    ]
    assert "1 passed over, as no image that can be read: f/b/notes.txt" in capfd.readouterr().out
    (in_tmp / "f/b/gone.png").unlink()
    assert len(read_folder(in_tmp / "f", "auto").train) == len(find_images("f")) == 6


def test_links_that_lead_back_end_no_search(in_tmp: Path) -> None:
    write_folder(in_tmp / "f", classes=2, count=1)
    (in_tmp / "f/class0/up").symlink_to("..")
    (in_tmp / "f/class0/other").symlink_to("../class1")
    (in_tmp / "f/class1/other").symlink_to("../class0")
    (in_tmp / "f/here").symlink_to(".")
    found = find_images("f")
    assert len(found) == 4, "each folder by each way, none twice on its own way"
    assert {path.resolve().parent.name for path in found} == {"class0", "class1"}
    (in_tmp / "f/here").unlink()
    (in_tmp / "f/class1/other").unlink()
    for pattern in ("f/**/*.png", str(in_tmp / "f/../f/**/*.png")):
        assert len(find_images(pattern)) == 3


def test_find_images_takes_what_pillow_can_read(in_tmp: Path) -> None:
    others = ("b/.hidden.png", "b/.thumbs/1.png", "b/notes.txt", "b/scan.pdf", "b/run.fit")
    for name in ("b/2.png", "b/a/1.JPG", *others):
        (in_tmp / name).parent.mkdir(parents=True, exist_ok=True)
        (in_tmp / name).touch()
    (in_tmp / "b/features.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))
    (in_tmp / "b/clip").write_bytes(b"\0\0\1\xb3\x10\x01\x00" + bytes(99))  # MPEG
    (in_tmp / "b/cloud.pcd").write_text("# .PCD v0.7")
    assert [str(path) for path in find_images("b")] == ["b/2.png", "b/a/1.JPG"]
    assert [str(path) for path in find_images("b/**/*.JPG")] == ["b/a/1.JPG"]
    assert [str(path) for path in find_images("b/notes.txt")] == ["b/notes.txt"]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_names_that_the_screen_lacks_are_whole_in_files(
    door: Callable[..., Outcome],
    in_tmp: Path,
    checkpoint: str,
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
    suffix: str,
) -> None:
    names = ["猫.png", *(["caf\udce9.png"] if sys.platform == "linux" else [])]  # a byte of Latin-1
    (in_tmp / "i").mkdir()
    for name in names:
        Image.new("L", (28, 28)).save(in_tmp / "i" / name)
    screen = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr("sys.stdout", screen)
    assert door("predict", checkpoint, "input=i", f"output=a{suffix}").code == 0
    screen.seek(0)
    shown = screen.read()
    assert all(name.encode(encoding, "backslashreplace").decode() in shown for name in names)
    text = (in_tmp / f"a{suffix}").read_text(encoding="utf-8", errors="surrogateescape")
    rows = json.loads(text)["predictions"] if suffix == ".json" else list(csv.DictReader(text.splitlines()))
    assert [row["file"] for row in rows] == [f"i/{name}" for name in sorted(names)]


def row(file: str, predicted: str, true: str | None = None, inverted: bool = False, share: float = 0.6) -> Row:
    top = [(predicted, share), ("y", 0.3), ("z", 0.1)]
    return Row(file, predicted, share, true, share < 0.5, inverted, inverted, top)


def test_the_screen_counts_only_files_whose_folder_is_a_class(capsys: pytest.CaptureFixture[str]) -> None:
    show([row("a/1.png", "a", "a"), row("b/1.png", "a", "b"), row("other/1.png", "a", inverted=True)], ".")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "1 of 2 right (50.00 %), the folders' names taken as true." in lines
    assert "a/1.png a 60.0 % a y 30.0 %, z 10.0 %" in lines, "the answer is not named once more"
    assert "1 image was dark on light and inverted: the network has learned light on dark." in lines
    assert "1 image was cut and centred as MNIST's digits lie; centre=false leaves them." in lines
    assert not any("unsure" in line for line in lines)


def test_an_answer_of_less_than_half_is_unsure(capsys: pytest.CaptureFixture[str]) -> None:
    show([row("1.png", "a", share=0.499), row("2.png", "a", share=0.5)], ".")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "1.png a unsure, 49.9 % y 30.0 %, z 10.0 %" in lines
    assert "2.png a 50.0 % y 30.0 %, z 10.0 %" in lines
    assert "1 image was answered with less than 50 %, which is unsure." in lines


@pytest.mark.parametrize("true", [None, "golden retriever puppy"])
def test_no_number_is_folded_and_no_name_is_cut_in_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, true: str | None
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    top = [("golden_retriever_puppy", 0.451), ("Pembroke Welsh corgi", 0.342), ("square", 0.207)]
    show([Row("a/long/path/to/IMG_20231126_171442.jpg", *top[0], true, True, False, False, top)], ".")
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert all(number in shown for number in ("unsure, 45.1 %", " 34.2 %", " 20.7 %"))
    assert "…" not in shown


@pytest.mark.parametrize(
    ("named", "shown"),
    [
        ("photos", ["4/a.jpg", "b.jpg"]),
        ("photos/4", ["a.jpg"]),
        ("photos/4/a.jpg", ["a.jpg"]),
        ("photos/**/*.jpg", ["4/a.jpg", "b.jpg"]),
        ("photos/../photos/*/a.jpg", ["4/a.jpg"]),
        ("ph[o]tos/4/*.jpg", ["photos/4/a.jpg"]),
    ],
)
def test_the_screen_has_paths_as_seen_from_the_input(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], named: str, shown: list[str]
) -> None:
    for file in ("photos/4/a.jpg", "photos/b.jpg"):
        (in_tmp / file).parent.mkdir(parents=True, exist_ok=True)
        (in_tmp / file).touch()
    for name in (named, str(in_tmp / named)):
        show([row(str(file), "7") for file in find_images(name)], name)
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == shown


def test_the_sheet_has_images_from_all_over_as_they_were_answered(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, drawn = list[tuple[str, bool, bool]](), list[object]()

    class Given:
        def read(self, file: Path, invert: bool, centre: bool) -> Reading:
            read.append((file.name, invert, centre))
            return Reading(torch.zeros(1, 4, 4, dtype=torch.uint8), invert, centre)

    monkeypatch.setattr(
        "src.serving.image_files.tiles.draw_tiles", lambda figure, images, captions, columns: drawn.extend(captions)
    )
    rows = [row(f"{number}.png", "a", "b" if number == 126 else None, number > 63) for number in range(127)]
    draw_sheet(in_tmp / "sheet.png", rows, Given())  # type: ignore[arg-type]
    assert read == [(f"{number}.png", number > 63, number > 63) for number in range(0, 127, 2)], "64 of them"
    assert drawn[0] == ("a", False)
    assert drawn[-1] == ("a, not b", True)


def test_json_has_each_class_with_its_own_probability(in_tmp: Path) -> None:
    write(in_tmp / "o.json", [row("a/1.png", "a", "b", inverted=True)])
    (found,) = json.loads((in_tmp / "o.json").read_text())["predictions"]
    top = [{"class": name, "probability": share} for name, share in (("a", 0.6), ("y", 0.3), ("z", 0.1))]
    assert found.pop("top") == top
    facts = {"unsure": False, "inverted": True, "centred": True}
    assert found == {"file": "a/1.png", "predicted": "a", "probability": 0.6, "true": "b", **facts}
