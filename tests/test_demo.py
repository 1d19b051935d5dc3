"""The demo: its page in a real browser, and what it says where there is nothing to show."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from src.config.compose import configure
from src.config.errors import UserError
from src.data.images import ImageSet, Splits
from src.data.splitting import split
from src.model.build import read_images
from src.model.predictor import Predictor, Reading
from src.model.saved import About
from src.results.outcome import best_of_newest
from tests.browser import CHROMIUM, free_port
from tests.conftest import SHORT, Outcome, wait_for, write_folder, write_results
from tests.processes import Command

Door = Callable[..., Outcome]

# the demo, with every address that the server connects to, or asks the name of
WATCHED = """
import os, runpy, sys

def hook(event, details):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = details[1] if event == "socket.connect" else details[:1]
        host = address[0] if isinstance(address, tuple) else address
        with open(os.environ["WATCHED"], "a") as file:
            file.write(f"{host}\\n")

sys.addaudithook(hook)
runpy.run_module("src.demo", run_name="__main__", alter_sys=True)
"""
HOME = {"127.0.0.1", "localhost", "None", ""}


@pytest.fixture(scope="module")
def address(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a demo that runs beside the tests. At the end: it called nobody, and Ctrl-C ends it without a word more."""
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("demo")
    (folder / "watched.py").write_text(WATCHED)
    port = free_port()
    environment: Any = {"WATCHED": str(folder / "watched")}
    environment |= {"ALL_PROXY": "socks5://192.0.2.1:9", "https_proxy": "http://192.0.2.1:9"}  # it must not ask them
    at = trained.parent.parent  # it has logs/ in it
    process = Command(folder / "watched.py", f"port={port}", "device=cpu", folder=at, **environment)
    try:
        wait_for(lambda: "Open http" in process.stdout, process, 200)
        said = process.stdout
        assert "checkpoint: logs/run/checkpoints/best.ckpt\nanother:    python -m src.demo run=logs/NAME\n" in said
        scored = r"^Accuracy \d\d\.\d % \(\d\d\.\d to \d\d\.\d\) on 500 packaged mnist digits, not the official"
        assert re.search(scored, said, re.MULTILINE)
        assert f"Open http://127.0.0.1:{port} in a browser; Ctrl-C ends it.\n" in said
        yield f"http://127.0.0.1:{port}/"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr == "Stopped.\n"
        assert set((folder / "watched").read_text().split("\n")) <= HOME
    finally:
        process.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None or find_spec("playwright") is None:
        pytest.skip("no chromium, or no playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tab(browser: Any, address: str) -> Iterator[Any]:
    """Of a browser that keeps the page's scripts; at the end: it asked this machine only."""
    hosts = set()
    tab = browser.new_page()
    tab.on("request", lambda request: hosts.add(request.url.split("/")[2].split(":")[0]) if ":/" in request.url else 0)
    yield tab
    tab.close()
    assert hosts == {"127.0.0.1"}


@pytest.fixture
def page(tab: Any, address: str) -> Any:
    """The page as it was opened."""
    tab.set_viewport_size({"width": 1280, "height": 900})
    tab.known_answer = ""
    tab.goto(address)
    tab.get_by_text("Draw something large").wait_for()
    return tab


def stroke(page: Any, *points: tuple[float, float]) -> None:
    """With the mouse; the points are parts of the sheet's side."""
    sheet = page.locator("#pad canvas").bounding_box()
    for number, (x, y) in enumerate(points):
        page.mouse.move(sheet["x"] + x * sheet["width"], sheet["y"] + y * sheet["height"], steps=5)
        if not number:
            page.mouse.down()
    page.mouse.up()


def answer(page: Any) -> list[str]:
    """The class answered, then the percentages, once they are others than the page had."""
    known = page.known_answer
    page.wait_for_function("known => ![known, ''].includes(document.querySelector('#seen img')?.src ?? '')", arg=known)
    page.known_answer = page.locator("#seen img").first.get_attribute("src")
    page.locator("#answer h2").wait_for()
    return [page.locator("#answer h2").inner_text().strip(), *page.locator("#answer .confidence").all_inner_texts()]


class TestPage:
    def test_a_drawing_is_answered_when_the_pen_is_lifted(self, page: Any) -> None:
        stroke(page, (0.5, 0.15), (0.5, 0.85))
        one = answer(page)
        assert one[0] == "1", "a vertical stroke"
        assert len(one) == 6
        assert all(text.endswith("%") for text in one[1:])
        assert page.get_by_text("inverted").is_visible()
        assert page.locator("#seen img").count() == 2
        stroke(page, (0.5, 0.15), (0.2, 0.5), (0.5, 0.85), (0.8, 0.5), (0.5, 0.15))
        assert answer(page) != one
        page.click("[name=undo]")
        assert answer(page) == one
        page.click("[name=clear]")
        page.get_by_text("Draw something large").wait_for()
        assert not page.locator("#answer").is_visible()

    def test_an_example_is_shown_and_answered(self, page: Any) -> None:
        assert page.locator("button:has(img)").all_inner_texts() == [str(digit) for digit in range(10)]
        page.click("button:has(img) >> nth=0")
        assert answer(page)[0] == "0"
        assert page.locator("#picture img").is_visible()
        assert not page.get_by_text("inverted").is_visible()
        page.get_by_role("tab", name="Draw").click()
        page.get_by_text("Draw something large").wait_for()

    def test_an_upload_that_is_no_image_is_named(self, page: Any, tmp_path: Path) -> None:
        page.get_by_role("tab", name="Image").click()
        (tmp_path / "notes.png").write_text("no image")
        page.set_input_files("#picture input[type=file]", tmp_path / "notes.png")
        page.get_by_text("notes.png: no image that can be read.").wait_for()

    def test_it_says_whose_network_it_is(self, page: Any) -> None:
        assert page.title() == page.locator("h1").inner_text() == "alexnet on mnist"
        assert "500 packaged mnist digits, not the official test set" in page.locator(".aside").first.inner_text()
        assert ") on 500 packaged" in page.locator(".aside").first.inner_text()
        assert "Checkpoint: logs/run/checkpoints/best.ckpt" in page.locator(".aside").first.inner_text()

    def test_it_fits_a_phone(self, page: Any) -> None:
        page.set_viewport_size({"width": 390, "height": 844})
        stroke(page, (0.5, 0.15), (0.5, 0.85))
        answer(page)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.locator("#pad canvas").bounding_box()["width"] > 340


class TestRequests:
    def test_port_in_use(self, door: Door) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            outcome = door("demo", f"port={port}")
        assert outcome.code == 2
        assert outcome.err.startswith(f"error: port={port} is in use")
        assert "port=80: expected a number between 1024 and 65535." in door("demo", "port=80").err

    def test_no_gradio(self, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "gradio", None)
        outcome = door("demo")
        assert outcome.code == 2
        assert outcome.err.startswith("error: the demo needs gradio, which is not installed: pip install")

    def test_no_finished_run(self, door: Door, in_tmp: Path) -> None:
        (in_tmp / "logs" / "unfinished" / "checkpoints").mkdir(parents=True)
        (in_tmp / "logs" / "unfinished" / "config.yaml").touch()
        (in_tmp / "logs" / "unfinished" / "checkpoints" / "best.ckpt").touch()
        outcome = door("demo", f"port={free_port()}")
        assert outcome.code == 2
        assert outcome.err == (
            "error: there is no finished run below logs/. Train one, or name a run's folder or a .ckpt file.\n"
        )

    @pytest.mark.parametrize(("mode", "best"), [("max", "c"), ("min", "a")])
    def test_the_best_of_the_newest_runs_on_the_same_images_is_taken(self, in_tmp: Path, mode: str, best: str) -> None:
        # the newest first: by what they were chosen by, on which images
        runs = [("a", 0.5, "x"), ("other", 0.99, "y"), ("b", 0.6, "x"), ("c", 0.8, "x"), ("old", 0.9, "x")]
        for age, (name, value, sha256) in enumerate(runs):
            path = write_results(in_tmp / "logs" / name, 0.1) / "results.json"
            (path.parent / "checkpoints").mkdir()
            for file in ("config.yaml", "checkpoints/best.ckpt"):
                (path.parent / file).touch()
            results = json.loads(path.read_text())
            results["dataset"]["sha256"] = sha256
            results["monitor"] |= {"mode": mode, "value": value}
            path.write_text(json.dumps(results))
            os.utime(path, (1e9 - age, 1e9 - age))
        assert best_of_newest(3) == (Path(f"logs/{best}/checkpoints/best.ckpt"), 3)

    def test_a_checkpoint_that_is_none(self, door: Door, in_tmp: Path) -> None:
        (in_tmp / "mine.ckpt").write_text("nothing")
        outcome = door("demo", "checkpoint=mine.ckpt", f"port={free_port()}")
        assert outcome.code == 2
        assert "mine.ckpt" in outcome.err


class TestExamples:
    @pytest.fixture(autouse=True)
    def _page(self) -> None:
        pytest.importorskip("gradio")

    def test_they_are_test_images_of_each_class(self, trained: Path, tmp_path: Path) -> None:
        from src.serving.web import find_examples

        predictor = Predictor.load(trained / "checkpoints" / "best.ckpt", "cpu")
        found = find_examples(predictor, "nowhere", tmp_path)
        assert [label for _, label in found] == predictor.classes
        assert {Image.open(path).size for path, _ in found} == {(28, 28)}

    def test_other_images_are_refused_and_none_downloaded(self, trained: Path, tmp_path: Path) -> None:
        from src.serving.web import find_examples

        predictor = Predictor.load(trained / "checkpoints" / "best.ckpt", "cpu")
        dataset = predictor.config.dataset.model_copy(update={"source": "full"})
        predictor.config = predictor.config.model_copy(update={"dataset": dataset})
        with pytest.raises(UserError, match=r"dataset\.download=false"):
            find_examples(predictor, str(tmp_path), tmp_path)
        predictor.classes = ["other"]
        predictor.config = predictor.config.model_copy(
            update={"dataset": dataset.model_copy(update={"source": "sample"})}
        )
        with pytest.raises(UserError, match="not those that the network was trained on"):
            find_examples(predictor, str(tmp_path), tmp_path)


class Black(Predictor):
    """Is sure of what it was given, and keeps it."""

    def __init__(self) -> None:
        self.classes, self.channels, self.height, self.width = ["no", "yes"], 1, 28, 28
        self.handwritten = self.dark_background = True
        self.given = torch.zeros(0)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.given = images
        return torch.tensor([[0.0, 1.0]])

    def saliency(self, images: torch.Tensor, classes: torch.Tensor) -> None:
        return None


def test_what_the_page_sends_is_answered_as_a_centred_digit() -> None:
    pytest.importorskip("gradio")
    from src.serving.web import answer_drawing

    drawing, file = Image.new("L", (380, 380), 255), io.BytesIO()
    ImageDraw.Draw(drawing).rectangle((10, 20, 59, 219), fill=0)
    drawing.save(file, "png")
    network = Black()
    answer = answer_drawing(network, f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}")
    assert answer[0] == {"no": 0, "yes": 1}
    rows = (network.given[0, 0] > 128).nonzero()[:, 0]
    assert (int(rows.min()), int(rows.max())) == (4, 23), "white on black, 20 of 28 pixels high, in the middle"
    Image.new("RGBA", (380, 380)).save(file := io.BytesIO(), "png")
    for nothing in ("", None, f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"):
        assert answer_drawing(network, nothing)[0] is None


def test_an_answer_of_less_than_half_is_called_unsure() -> None:
    pytest.importorskip("gradio")
    from src.serving.web import answer

    class Torn(Black):
        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.499, 0.4]])

    reading = Reading(torch.zeros(1, 28, 28, dtype=torch.uint8), False, False)
    assert "Unsure: no class has 50 %." in answer(Torn(), reading)[1]
    assert "Unsure" not in answer(Black(), reading)[1]


def test_clothes_have_no_sheet_to_draw_on_though_they_lie_light_on_black() -> None:
    pytest.importorskip("gradio")
    from src.serving import web

    for classes, tabs in ((["0", "1"], ["Draw", "Image"]), (["shirt", "bag"], ["Image"])):
        part = ImageSet(torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
        config = configure([])
        about = About.of(config, Splits(part, part, part, classes, "full"), "32-true", "")
        assert about.dark_background
        predictor: Any = SimpleNamespace(config=config, handwritten=about.handwritten)
        blocks = web.build(predictor, "about", []).blocks.values()
        assert [block.label for block in blocks if isinstance(block, web.gr.Tab)] == tabs


def test_photos_have_no_sheet_to_draw_on(door: Door, in_tmp: Path) -> None:
    pytest.importorskip("gradio")
    from src.serving import web

    images = write_folder(in_tmp / "images", classes=2, count=10)
    options = ["dataset=image_folder", f"data_dir={images}", *SHORT, "hydra.run.dir=run"]
    assert door("train", *options).code == 0
    predictor = Predictor.load("run/checkpoints/best.ckpt", "cpu")
    blocks = web.build(predictor, "about", [])
    assert [block.label for block in blocks.blocks.values() if isinstance(block, web.gr.Tab)] == ["Image"]
    path = next(images.glob("class1/*.png"))
    probabilities, seen = web.answer_file(predictor, str(path))
    assert probabilities is not None
    assert set(probabilities) == {"class0", "class1"}
    assert "inverted" not in seen


def test_examples_are_images_that_the_network_never_learned_from(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    from src.serving.web import find_examples

    folder = write_folder(tmp_path / "images", classes=2, count=30)
    config = configure(["dataset=image_folder", f"data_dir={folder}"])
    source = read_images(config.dataset, config.data_dir)
    splits = split(source, config.dataset.valid_fraction, config.seed)
    predictor: Any = SimpleNamespace(config=config, classes=source.classes, channels=3)
    found = find_examples(predictor, config.data_dir, tmp_path)
    assert [name for _, name in found] == ["class0"] * 3 + ["class1"] * 3
    shown = {np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes() for path, _ in found}
    assert shown == {image.numpy().tobytes() for image in splits.test.images}


def test_a_score_is_said_of_the_checkpoint_that_has_it_and_of_no_other(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    from src.serving.web import describe_score

    checkpoints = write_results(tmp_path / "run", 0.5) / "checkpoints"
    assert describe_score(checkpoints / "best.ckpt") == "Accuracy 50 % (22 to 78) on 8 images of made. "
    assert describe_score(checkpoints / "last.ckpt") == ""
    assert describe_score(tmp_path / "elsewhere/checkpoints/best.ckpt") == ""
