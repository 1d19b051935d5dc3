"""A folder of images, read whole by python -m src.data.verify."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data import verify
from tests.conftest import ROOT

Verify = Callable[..., tuple[int, str, str]]
CLASSES = ["cat", "golden_retriever", "3"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """240 JPEGs in a train/ and a test/, of which no two are the same."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 20)):
        for name in CLASSES:
            place = tmp_path / "photos" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{name}_{number}.jpg")
    return tmp_path / "photos"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Verify:
    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["verify", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            verify.main()
        return int(ended.value.code or 0), *capfd.readouterr()

    return call


def test_clean_folder_ends_with_0(run: Verify, folder: Path) -> None:
    assert run(folder) == (0, "Nothing found.\n", "")


def test_the_one_truncated_file_among_hundreds_is_named(run: Verify, folder: Path) -> None:
    path = folder / "train/cat/cat_7.jpg"
    path.write_bytes(path.read_bytes()[:-60])
    code, out, err = run(folder)
    assert (code, err) == (1, "")
    words = out.split()
    assert words[:2] == ["broken:", str(path)]
    assert words[-2:] == ["1", "found."]


def test_the_same_bytes_in_two_splits_or_two_classes_are_found(run: Verify, folder: Path) -> None:
    source = folder / "train/cat/cat_1.jpg"
    for copy in ("test/cat/other.jpg", "train/3/also.jpg"):
        (folder / copy).write_bytes(source.read_bytes())
    twice = folder / "train/cat/cat_2.jpg"
    (folder / "train/cat/twice.jpg").write_bytes(twice.read_bytes())
    code, out, _ = run(folder)
    assert code == 1
    assert all(str(path) in out for path in (source, folder / "test/cat/other.jpg", folder / "train/3/also.jpg"))
    assert str(twice) not in out, "within one class of one split it does no harm to a score"
    assert "1 found." in out


@pytest.mark.parametrize(
    "name", ["golden retriever 12.jpg", "a-Golden_Retriever.jpg", "goldenretriever_golden-retriever1.jpg"]
)
def test_a_file_named_as_another_class_is_found(run: Verify, folder: Path, name: str) -> None:
    (folder / "train/cat/cat_1.jpg").rename(folder / "train/cat" / name)
    code, out, _ = run(folder)
    assert code == 1
    assert out.startswith("of class cat, named as golden_retriever:")


@pytest.mark.parametrize("name", ["cat_and_golden_retriever.jpg", "caterpillar.jpg", "IMG_3.jpg", "golden_age.jpg"])
def test_a_name_that_holds_its_own_class_or_no_whole_other_is_not_suspected(
    run: Verify, folder: Path, name: str
) -> None:
    (folder / "train/cat/cat_1.jpg").rename(folder / "train/cat" / name)
    assert run(folder)[0] == 0
    (folder / "train/golden_retriever/golden_retriever_1.jpg").rename(folder / "train/golden_retriever/caterpillar.jpg")
    assert run(folder)[0] == 0


def test_lines_are_at_most_80_wide_where_names_allow(
    run: Verify, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for number in range(4):
        (Path("train/3") / f"{number}.jpg").write_bytes(Path("train/cat/cat_1.jpg").read_bytes())
        (Path("train/3") / f"golden-retriever-{number}.jpg").write_bytes(b"no image")
    code, out, _ = run(".")
    assert code == 1
    assert max(map(len, out.splitlines())) <= 80


def test_a_wrong_request_ends_in_a_sentence_with_2(run: Verify, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words in ([tmp_path / "none"], [], [tmp_path / "empty"], [tmp_path, "more"], [""]):
        code, out, err = run(*words)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1


def test_it_runs_as_a_module(folder: Path) -> None:
    (folder / "test/cat/cat_0.jpg").write_bytes(b"")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "src.data.verify", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    assert (done.returncode, done.stderr) == (1, "")
    assert "cat_0.jpg: no image that can be read" in " ".join(done.stdout.split())
