"""Data sets as Hugging Face's library has them, in files that are written here: nothing asks the network."""

from __future__ import annotations

import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src.config.errors import UserError
from src.data.hub import read_hub
from src.data.image_folder import read_folder
from src.model import saved
from src.model.build import images_of
from tests.conftest import KEPT, SHORT, Outcome, results_of, write_folder
from tests.test_resume import assert_same, broken

datasets: Any = pytest.importorskip("datasets", reason="needs the extra huggingface")
hub: Any = pytest.importorskip("huggingface_hub", reason="needs the extra huggingface")

Door = Callable[..., Outcome]
Splits = dict[str, dict[str, list[Any]]]
HUB = "dataset=huggingface"


@pytest.fixture(autouse=True)
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was asked of the hub, which is one here that knows no data set; the library's cache is empty."""
    requests: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(401)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_POST = do_GET

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    set_hub(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "home/datasets")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "home/hub"))
    yield requests
    server.shutdown()
    server.server_close()


def set_hub(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    for module, name in (
        (datasets.config, "HF_ENDPOINT"),
        (hub.constants, "ENDPOINT"),
        (hub.hf_api.constants, "ENDPOINT"),
    ):
        monkeypatch.setattr(module, name, address)


def encoded(label: int, number: int, size: int = 12) -> bytes:
    """A PNG whose brightness tells its class."""
    rng = np.random.default_rng([label, number])
    file = BytesIO()
    Image.fromarray(rng.integers(20 + 150 * label, 90 + 150 * label, (size, size, 3), dtype=np.uint8)).save(file, "png")
    return file.getvalue()


def made(labels: list[Any], kind: Any = None, **columns: list[Any]) -> Any:
    """A table with an image of each label."""
    order = sorted({label for label in labels if label is not None}, key=str)
    images = [
        {"bytes": encoded(order.index(label) % 2 if label in order else 0, n), "path": None}
        for n, label in enumerate(labels)
    ]
    features = {"image": datasets.Image(), "label": kind or datasets.ClassLabel(names=["cat", "dog"])}
    extra = {name: datasets.Dataset.from_dict({name: values}).features[name] for name, values in columns.items()}
    table = {"image": images, "label": labels, **columns}
    return datasets.Dataset.from_dict(table, features=datasets.Features(features | extra))


def parquet(folder: Path, **splits: Any) -> Path:
    """A folder as the hub has it: data/train-00000-of-00001.parquet."""
    (folder / "data").mkdir(parents=True)
    for name, table in splits.items():
        table.to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
    return folder


def read(path: Path | str, **options: Any) -> Any:
    return read_hub(Path("unused"), "auto", str(path), **options)


STRING = datasets.Value("string")
INTEGER = datasets.Value("int64")


class TestDoors:
    def test_a_parquet_file_trains_and_is_scored(self, door: Door, in_tmp: Path, asked: list[str]) -> None:
        made([0, 1] * 40).to_parquet(in_tmp / "pets.parquet")
        metrics = {}
        for held in ("true", "false"):
            run = f"hydra.run.dir={held}"
            options = [*SHORT, "trainer.max_epochs=2", run, f"dataset.in_memory={held}", "num_workers=2"]
            outcome = door("train", HUB, "dataset.path=pets.parquet", *options)
            assert outcome.code == 0, outcome.err
            assert "examples" not in outcome.out + outcome.err, "no bar of the library"
            metrics[held] = (in_tmp / held / "metrics.csv").read_text()
        assert metrics["true"] == metrics["false"]
        outcome = door("eval", "run=false", "num_workers=2")
        assert outcome.code == 0, outcome.err
        assert f"accuracy {results_of(in_tmp / 'false')['test']['accuracy']}" in outcome.out
        assert not asked, "files that lie here need no network"

    def test_a_run_that_was_broken_off_goes_on_exactly(
        self, door: Door, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made([0, 1] * 40).to_parquet(in_tmp / "pets.parquet")
        options = [HUB, "dataset.path=pets.parquet", *SHORT, "dataset.in_memory=false", "num_workers=0"]
        options += ["trainer.max_epochs=2", "callbacks.checkpoint_steps=2", KEPT]
        assert door("train", *options, "hydra.run.dir=whole").code == 0
        broken(door, monkeypatch, 12, *options, "hydra.run.dir=parts")
        (in_tmp / "pets.parquet").touch()  # the library knows a file by its date
        outcome = door("train", "resume=parts")
        assert outcome.code == 0, outcome.err
        assert_same(in_tmp / "parts", in_tmp / "whole")

    def test_other_images_are_noticed(self, door: Door, in_tmp: Path) -> None:
        made([0, 1] * 40).to_parquet(in_tmp / "pets.parquet")
        assert door("train", HUB, "dataset.path=pets.parquet", *SHORT, "hydra.run.dir=r").code == 0
        made([1, 0] * 40).to_parquet(in_tmp / "pets.parquet")
        outcome = door("eval", "run=r")
        assert outcome.code == 2
        assert "have changed" in outcome.err

    def test_a_checkpoint_asks_no_hub(self, door: Door, in_tmp: Path, asked: list[str]) -> None:
        made([0, 1] * 40).to_parquet(in_tmp / "pets.parquet")
        assert door("train", HUB, "dataset.path=pets.parquet", *SHORT, "hydra.run.dir=r").code == 0
        best = in_tmp / "r/checkpoints/best.ckpt"
        content = torch.load(best, weights_only=True)
        content["about"]["config"]["dataset"] |= {"path": "stranger/trap", "download": True}
        torch.save(content, in_tmp / "crafted.ckpt")
        outcome = door("eval", "checkpoint=crafted.ckpt")
        assert outcome.code == 2
        assert "dataset.path=stranger/trap: no such file or folder, dataset.download=false" in outcome.err
        with pytest.raises(UserError, match="stranger/trap"):
            images_of(saved.load(in_tmp / "crafted.ckpt"))
        assert not asked

    def test_without_the_library_a_sentence_names_the_extra(self, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("src.config.errors.find_spec", lambda _: None)
        outcome = door("train", HUB, "dataset.path=x/y")
        assert outcome.code == 2
        assert "dataset=huggingface needs datasets" in outcome.err
        assert "[huggingface]" in outcome.err


class TestFiles:
    def test_pixels_are_those_of_the_same_files_in_a_folder(self, tmp_path: Path) -> None:
        folder = read_folder(write_folder(tmp_path / "images", classes=3, count=4), "auto")
        files = sorted((tmp_path / "images").rglob("*.png"))
        images = [{"bytes": file.read_bytes(), "path": None} for file in files]
        table = {"image": images, "label": [file.parent.name for file in files]}
        features = datasets.Features({"image": datasets.Image(), "label": STRING})
        datasets.Dataset.from_dict(table, features=features).to_parquet(tmp_path / "same.parquet")
        for source in (read(tmp_path / "same.parquet"), read(tmp_path / "images")):
            assert source.classes == folder.classes
            assert source.train.labels.tolist() == folder.train.labels.tolist()
            for index in range(12):
                assert torch.equal(photo(source, index), photo(folder, index))

    def test_a_folder_of_save_to_disk_is_read(self, tmp_path: Path) -> None:
        made([0, 1, 1]).save_to_disk(tmp_path / "one")
        assert read(tmp_path / "one").train.labels.tolist() == [0, 1, 1]
        datasets.DatasetDict(train=made([0, 1]), test=made([1, 1])).save_to_disk(tmp_path / "two")
        assert read(tmp_path / "two").test.labels.tolist() == [1, 1]

    def test_own_splits_are_kept(self, tmp_path: Path) -> None:
        splits = {"train": made([0, 1, 1]), "validation": made([1, 0]), "test": made([1])}
        source = read(parquet(tmp_path / "d", **splits))
        assert [part.labels.tolist() for part in (source.train, source.valid, source.test)] == [[0, 1, 1], [1, 0], [1]]
        assert source.classes == ["cat", "dog"]
        assert not source.note

    def test_other_splits_are_told(self, tmp_path: Path) -> None:
        datasets.DatasetDict(train=made([0, 1]), extra=made([1])).save_to_disk(tmp_path / "d")
        assert "extra" in read(tmp_path / "d").note
        datasets.DatasetDict(extra=made([0, 1])).save_to_disk(tmp_path / "only")
        assert read(tmp_path / "only").train.labels.tolist() == [0, 1]
        datasets.DatasetDict(a=made([0, 1]), b=made([0, 1])).save_to_disk(tmp_path / "none")
        with pytest.raises(UserError, match="it has a, b, and no images in a split train"):
            read(tmp_path / "none")

    def test_a_split_whose_labels_are_hidden_is_left_out(self, tmp_path: Path) -> None:
        source = read(parquet(tmp_path / "d", train=made([0, 1, 1]), test=made([-1, -1])))
        assert source.test is None
        assert "test, whose labels are not told" in source.note

    def test_the_checksum_is_that_of_the_images_wherever_they_lie(self, tmp_path: Path) -> None:
        found = set()
        for name in ("a", "b"):
            parquet(tmp_path / name, train=made([0, 1, 1]))
            found.add(read(tmp_path / name).train.store.sha256)
        made([0, 1, 1]).save_to_disk(tmp_path / "disk")
        assert found == {read(tmp_path / "disk").train.store.sha256}
        parquet(tmp_path / "c", train=made([0, 1, 1, 1]))
        assert read(tmp_path / "c").train.store.sha256 not in found

    def test_a_process_is_sent_a_name_and_no_images(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        images = [{"bytes": rng.bytes(100_000), "path": None} for _ in range(100)]
        features = made([0]).features
        table = datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 50}, features=features)
        table.to_parquet(tmp_path / "large.parquet")
        rows = read(tmp_path / "large.parquet").train.store.items
        sent = pickle.dumps(rows)
        assert len(sent) < 20_000
        assert pickle.loads(sent)[99] == images[99]["bytes"]


class TestColumns:
    def test_strings_become_classes(self, tmp_path: Path) -> None:
        made(["emu", "ant", "emu", "bee"], STRING).to_parquet(tmp_path / "x.parquet")
        source = read(tmp_path / "x.parquet")
        assert source.classes == ["ant", "bee", "emu"]
        assert source.train.labels.tolist() == [2, 0, 2, 1]

    def test_numbers_become_classes(self, tmp_path: Path) -> None:
        made([3, 0, 1], INTEGER).to_parquet(tmp_path / "x.parquet")
        source = read(tmp_path / "x.parquet")
        assert source.classes == ["0", "1", "2", "3"]
        assert source.train.labels.tolist() == [3, 0, 1]

    def test_columns_can_be_named(self, tmp_path: Path) -> None:
        table = made([3, 0, 1], INTEGER, other=["x", "y", "x"])
        table.add_column("raw", [encoded(0, 7)] * 3).to_parquet(tmp_path / "x.parquet")
        with pytest.raises(UserError, match="label_column to one of image, label, other, raw"):
            read(tmp_path / "x.parquet")
        source = read(tmp_path / "x.parquet", label_column="other", image_column="raw")
        assert source.classes == ["x", "y"]
        assert source.train.store.items[2] == encoded(0, 7)
        with pytest.raises(UserError, match=r"no column pixels.*one of image, label, other, raw"):
            read(tmp_path / "x.parquet", label_column="other", image_column="pixels")
        with pytest.raises(UserError, match=r"dataset.path="):
            read(tmp_path / "x.parquet", label_column="other", image_column="label")

    def test_no_image_column_is_a_sentence(self, tmp_path: Path) -> None:
        datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}).to_parquet(tmp_path / "x.parquet")
        with pytest.raises(UserError, match=r"which column holds the images is not clear.*one of text, label"):
            read(tmp_path / "x.parquet")

    @pytest.mark.parametrize(
        ("kind", "train", "test", "value"),
        [(None, [0, 1, -1], [0], "-1"), (None, [0, 1], [0, -1], "-1"), (STRING, ["a", "b"], ["a", "c"], "c")],
    )
    def test_a_label_that_is_no_class_is_told(
        self, tmp_path: Path, kind: Any, train: list[Any], test: list[Any], value: str
    ) -> None:
        path = parquet(tmp_path / "d", train=made(train, kind), test=made(test, kind))
        split, row = ("train", 2) if value in map(str, train) else ("test", 1)
        with pytest.raises(UserError, match=f"row {row} of {split} has the label {value}, which is none"):
            read(path)

    def test_classes_in_another_order_are_refused(self, tmp_path: Path) -> None:
        other = made([0, 1], datasets.ClassLabel(names=["dog", "cat"]))
        datasets.DatasetDict(train=made([0, 1]), test=other).save_to_disk(tmp_path / "d")
        with pytest.raises(UserError, match="not of the same kind in test as in train"):
            read(tmp_path / "d")

    @pytest.mark.parametrize("labels", [[0, 0], [10**9, 1], [None, None]])
    def test_numbers_that_are_no_classes_are_refused(self, tmp_path: Path, labels: list[Any]) -> None:
        made(labels, INTEGER).to_parquet(tmp_path / "x.parquet")
        with pytest.raises(UserError, match="expected from 2 to 65,536"):
            read(tmp_path / "x.parquet")


class TestHub:
    def test_a_misspelt_name_is_a_sentence(self, door: Door, asked: list[str]) -> None:
        outcome = door("train", HUB, "dataset.path=nobody/nothing", *SHORT)
        assert outcome.code == 2
        assert outcome.err.count("\n") == 1
        assert "dataset.path=nobody/nothing: no such file or folder, the hub shows none of this name" in outcome.err
        assert "/api/datasets/nobody/nothing" in asked

    def test_no_network_is_a_sentence_and_soon(self, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        set_hub(monkeypatch, "http://127.0.0.1:9")
        outcome = door("train", HUB, "dataset.path=nobody/nothing", *SHORT)
        assert outcome.code == 2
        assert outcome.err.count("\n") == 1
        assert "the hub can't be reached (" in outcome.err

    def test_a_network_that_says_nothing_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            set_hub(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
            monkeypatch.setattr("src.data.hub.PATIENCE", 1.0)
            begun = time.monotonic()
            with pytest.raises(UserError, match="the hub can't be reached"):
                read("nobody/nothing")
            assert time.monotonic() - begun < 10

    def test_what_is_cached_needs_no_network(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        parquet(tmp_path / "pets", train=made([0, 1, 1]))
        read("pets")
        (tmp_path / "pets").rename(tmp_path / "gone")
        cache = tmp_path / "home/datasets"
        (cache / "pets").rename(cache / "somebody___pets")  # as a data set of the hub lies there
        assert read("somebody/pets", download=False).train.labels.tolist() == [0, 1, 1]
        assert not asked
        assert read("somebody/pets").train.labels.tolist() == [0, 1, 1]

    @pytest.mark.parametrize("name", ["/nowhere", "./nowhere", "a/b/c", "nowhere.parquet", "s3://bucket/x", "parquet"])
    def test_what_is_no_name_is_a_sentence(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UserError, match="no such file or folder"):
            read(name)

    def test_another_file_is_a_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "x.png").write_bytes(encoded(0, 0))
        with pytest.raises(UserError, match=r"expected a folder, a .parquet or .arrow file"):
            read(tmp_path / "x.png")


def photo(source: Any, index: int) -> torch.Tensor:
    from src.data.decoding import decode

    return decode(source.train.store.item(index), 3, None)
