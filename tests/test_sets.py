"""Data sets in files of their own layout, by torch's map-style classes: torchvision's, and anyone's."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.datasets import utils

from src.config.check import check
from src.config.compose import compose, configure, declared
from src.config.errors import UserError
from src.config.groups import look_into
from src.config.schema import TrainConfig
from src.data.images import Source
from src.data.map_style import unique
from src.data.photos import Paths, Photos
from src.model.build import read_images
from tests.conftest import SHORT, Outcome, md5_of, only_run, results_of

Door = Callable[..., Outcome]
WNIDS = sorted(datasets.Imagenette._WNID_TO_CLASS)


def photo(path: Path, label: int, size: int = 40) -> Path:
    """A JPEG that is as bright as its class says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (20 + 20 * label,) * 3).save(path, quality=95)
    return path


def write_flowers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    home = root / "flowers-102"
    labels = np.array([1, 2, 3] * 4)
    for number, label in enumerate(labels, 1):
        photo(home / "jpg" / f"image_{number:05}.jpg", label - 1)
    savemat(home / "imagelabels.mat", {"labels": labels[None]})
    savemat(home / "setid.mat", {"trnid": [[1, 2, 3, 4, 5, 6]], "valid": [[7, 8]], "tstid": [[12, 11, 10, 9]]})
    files = {key: (name, md5_of(home / name)) for key, name in (("label", "imagelabels.mat"), ("setid", "setid.mat"))}
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", datasets.Flowers102._file_dict | files)


def write_pet(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = root / "oxford-iiit-pet"
    (home / "annotations").mkdir(parents=True)
    for part, numbers in (("trainval", range(1, 5)), ("test", range(5, 7))):
        rows = [
            (f"{name}_{number}", label)
            for label, name in enumerate(["Abyssinian", "basset_hound"])
            for number in numbers
        ]
        (home / "annotations" / f"{part}.txt").write_text("".join(f"{name} {label + 1} 1 1\n" for name, label in rows))
        for name, label in rows:
            photo(home / "images" / f"{name}.jpg", label)


def write_food(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = root / "food-101"
    (home / "meta").mkdir(parents=True)
    for part, numbers in (("train", range(4)), ("test", range(4, 6))):
        lists = {name: [f"{name}/{number}" for number in numbers] for name in ("apple_pie", "waffles")}
        (home / "meta" / f"{part}.json").write_text(json.dumps(lists))
        for label, files in enumerate(lists.values()):
            for file in files:
                photo(home / "images" / f"{file}.jpg", label)


def write_eurosat(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for label, name in enumerate(["AnnualCrop", "Forest"]):
        for number in range(10):
            photo(root / "eurosat" / "2750" / name / f"{name}_{number}.jpg", label, 64)


def write_stl10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = root / "stl10_binary"
    home.mkdir(parents=True)
    (home / "class_names.txt").write_text("airplane\nbird\ncar\n")
    (home / "unlabeled_X.bin").write_bytes(b"")
    for part, count in (("train", 6), ("test", 3)):
        labels = np.arange(count, dtype=np.uint8) % 3
        np.repeat(20 + 20 * labels, 3 * 96 * 96).astype(np.uint8).tofile(home / f"{part}_X.bin")
        (labels + 1).tofile(home / f"{part}_y.bin")
    for key in ("train_list", "test_list"):
        rows = [[name, md5_of(home / name)] for name, _ in getattr(datasets.STL10, key)]
        monkeypatch.setattr(datasets.STL10, key, rows)


def write_wnids(root: Path, wnids: list[str], suffix: str = "JPEG") -> None:
    for label, wnid in enumerate(wnids):
        for part, count in (("train", 4), ("val", 2)):
            for number in range(count):
                photo(root / part / wnid / f"{wnid}_{number}.{suffix}", label)


def write_imagenet(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"n01440764": ("tench", "Tinca tinca"), "n02012849": ("crane",), "n03126707": ("crane",)}
    write_wnids(root / "imagenet", list(names))
    torch.save((names, ["n01440764"]), root / "imagenet" / "meta.bin")


def write_imagenette(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wnids(root / "imagenette2", WNIDS)


def write_tiny(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = root / "tiny-imagenet-200"
    wnids = ["n01443537", "n02124075"]
    notes = ""
    for label, wnid in enumerate(wnids):
        for number in range(4):
            photo(home / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", label, 64)
        (home / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t10\t63\t58\n")
    for number, label in enumerate([1, 0, 1]):
        photo(home / "val" / "images" / f"val_{number}.JPEG", label, 64)
        notes += f"val_{number}.JPEG\t{wnids[label]}\t0\t32\t44\t62\n"
    photo(home / "test" / "images" / "test_0.JPEG", 0, 64)
    (home / "val" / "val_annotations.txt").write_text(notes)
    (home / "wnids.txt").write_text("n02124075\nn01443537\n")
    (home / "words.txt").write_text(
        "n00001740\tentity\nn01443537\tgoldfish, Carassius auratus\nn02124075\tEgyptian cat\n"
    )


SETS: dict[str, tuple[Any, tuple[int, int, int], list[str]]] = {
    "flowers102": (write_flowers, (6, 2, 4), datasets.Flowers102.classes),
    "oxford_iiit_pet": (write_pet, (8, 0, 4), ["Abyssinian", "Basset Hound"]),
    "food101": (write_food, (8, 0, 4), ["apple_pie", "waffles"]),
    "eurosat": (write_eurosat, (20, 0, 0), ["AnnualCrop", "Forest"]),
    "stl10": (write_stl10, (6, 0, 3), ["airplane", "bird", "car"]),
    "imagenet": (write_imagenet, (12, 0, 6), ["tench, Tinca tinca", "crane (1)", "crane (2)"]),
    "imagenette": (write_imagenette, (40, 0, 20), [", ".join(datasets.Imagenette._WNID_TO_CLASS[w]) for w in WNIDS]),
    "tiny_imagenet": (write_tiny, (8, 0, 3), ["goldfish, Carassius auratus", "Egyptian cat"]),
}


def read(root: Path, *words: str) -> Source:
    return read_images(configure([*words, "dataset.in_memory=false"]).dataset, str(root))


@pytest.mark.parametrize("name", SETS)
def test_each_set_is_read_in_its_own_layout_with_its_official_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write, counts, classes = SETS[name]
    write(tmp_path, monkeypatch)
    source = read(tmp_path, f"dataset={name}")
    parts = [source.train, source.valid, source.test]
    assert tuple(len(part) if part else 0 for part in parts) == counts
    assert source.classes == classes
    for part in filter(None, parts):
        bright = part.images.double().mean((1, 2, 3))
        assert torch.equal(((bright - 20) / 20).round().long(), part.labels), "each image has its own label"
        assert isinstance(part.store, Photos)
        assert isinstance(part.store.items, Paths) == (name not in ("oxford_iiit_pet", "stl10")), "paths, where it can"


def test_the_published_validation_set_of_imagenet_is_the_test_set_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_imagenet(tmp_path, monkeypatch)
    test = read(tmp_path, "dataset=imagenet").test
    assert test
    assert isinstance(test.store, Photos)
    paths = [Path(str(test.store.item(index))) for index in range(len(test))]
    assert sorted(paths) == sorted((tmp_path / "imagenet" / "val").rglob("*.JPEG"))


def test_no_image_is_opened_to_list_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from src.data.map_style import read_map_style

    write_food(tmp_path, monkeypatch)
    for path in tmp_path.rglob("*.jpg"):
        path.write_bytes(b"no image")
    config = configure(["dataset=food101"]).dataset
    source = read_map_style(tmp_path, "full", **config.arguments())
    assert len(source.train) == 8
    assert isinstance(source.train.store, Photos)
    digest = source.train.store.sha256
    next(tmp_path.rglob("0.jpg")).write_bytes(b"another size")
    again = read_map_style(tmp_path, "full", **config.arguments()).train.store
    assert isinstance(again, Photos)
    assert again.sha256 != digest


def test_a_run_on_imagenette_trains_scores_and_is_read_again(
    door: Door, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_imagenette(in_tmp / "data", monkeypatch)
    words = ["dataset=imagenette", *SHORT, "num_workers=0"]
    outcome = door("train", *words, "dataset.valid_fraction=0.25")
    assert outcome.code == 0, outcome.err
    results = results_of(only_run(in_tmp))
    assert results["dataset"]["name"] == "imagenette"
    assert (results["train"]["images"], results["val"]["images"], results["test"]["images"]) == (30, 10, 20)
    outcome = door("eval", "run=last")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("name", [name for name in SETS if name != "tiny_imagenet"])
def test_missing_files_are_named_with_where_they_belong(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"dataset.train, torchvision.*Put .*, unpacked, where it looks: {tmp_path}"):
        read(tmp_path, f"dataset={name}", "dataset.download=false")
    assert not list(tmp_path.iterdir())


def test_missing_parts_of_tiny_imagenet_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path, monkeypatch)
    (tmp_path / "tiny-imagenet-200/val/val_annotations.txt").unlink()
    with pytest.raises(
        UserError, match=r"there is no \S*val_annotations.txt. Put tiny-imagenet-200.zip, unpacked, into"
    ):
        read(tmp_path, "dataset=tiny_imagenet")


def test_archives_of_imagenet_are_not_unpacked_where_a_kill_leaves_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_imagenet(tmp_path, monkeypatch)
    shutil.rmtree(tmp_path / "imagenet/val")
    with tarfile.open(tmp_path / "imagenet/ILSVRC2012_img_val.tar", "w") as tar:
        tar.add(tmp_path / "imagenet/meta.bin", "x")
    md5 = md5_of(tmp_path / "imagenet/ILSVRC2012_img_val.tar")
    monkeypatch.setitem(datasets.imagenet.ARCHIVE_META, "val", ("ILSVRC2012_img_val.tar", md5))
    with pytest.raises(UserError, match=r"dataset.test.*Put ILSVRC2012_devkit_t12.tar.gz"):
        read(tmp_path, "dataset=imagenet")
    assert not (tmp_path / "imagenet/val").exists()


class TestDownload:
    """torchvision's own, of an archive that stands in for the published one."""

    @pytest.fixture
    def archive(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        write_food(tmp_path / "made", monkeypatch)
        path = tmp_path / "food-101.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            tar.add(tmp_path / "made/food-101", "food-101")
        monkeypatch.setattr(datasets.Food101, "_MD5", md5_of(path))
        monkeypatch.setattr(utils, "_get_redirect_url", lambda url, **_: url)
        monkeypatch.setattr(utils, "_urlretrieve", lambda url, filename: shutil.copy(path, filename))
        return path

    def test_files_are_downloaded_once_and_whole(self, archive: Path, tmp_path: Path) -> None:
        source = read(tmp_path / "data", "dataset=food101")
        assert (len(source.train), len(source.test or ())) == (8, 4)
        assert not list((tmp_path / "data").glob(".*")), "no lock and nothing half-written is left"
        archive.unlink()
        assert len(read(tmp_path / "data", "dataset=food101").train) == 8

    def test_what_is_cut_off_is_not_taken_for_whole(
        self, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def cut_off(url: str, filename: str) -> None:
            Path(filename).write_bytes(archive.read_bytes()[:500])

        monkeypatch.setattr(utils, "_urlretrieve", cut_off)
        for _ in range(2):
            with pytest.raises(
                UserError, match=r"nothing could be downloaded; .*corrupted.*Put food-101.tar.gz, unpacked"
            ):
                read(tmp_path / "data", "dataset=food101")
            assert not list((tmp_path / "data").rglob("*"))

    def test_what_a_download_of_another_program_left_is_completed(self, archive: Path, tmp_path: Path) -> None:
        shutil.copytree(tmp_path / "made/food-101/images/waffles", tmp_path / "data/food-101/images/waffles")
        (tmp_path / "data/food-101/images/waffles/0.jpg").unlink()
        source = read(tmp_path / "data", "dataset=food101")
        assert len(source.train) == 8

    def test_a_wrong_option_is_told_and_nothing_downloaded(self, archive: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"dataset.train, .*Unknown value 'dev' for argument split"):
            read(tmp_path / "data", "dataset=food101", "dataset.train.split=dev")
        assert not (tmp_path / "data").exists()


OWN = """
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset


class Squares(Dataset):
    classes = [("dark", "black"), ("light",)]

    def __init__(self, root, part: str, kind: str = "pillow", count: int = 20):
        self.kind, self.count, self.root, self.reads = kind, count, root, 0
        self.shift = part == "test"
        if kind == "attribute":
            self.targets = [index % 2 for index in range(count)]
        if kind == "other":
            self.targets = [0] * count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index >= self.count:
            raise IndexError(index)
        self.reads += 1
        pixels = np.full((16, 16, 3), 50 + 150 * (index % 2) + self.shift, np.uint8)
        if self.kind == "float":
            return torch.zeros(3, 16, 16), 0
        if self.kind == "word":
            return Image.fromarray(pixels), "dark"
        if self.kind == "single":
            return Image.fromarray(pixels)
        if self.kind == "broken":
            raise ValueError("a riddle")
        if self.kind == "tensor":
            return torch.from_numpy(pixels).permute(2, 0, 1), torch.tensor(index % 2)
        return Image.fromarray(pixels), np.int64(index % 2)


class Stream(Dataset):
    def __init__(self, root):
        pass


class Rootless(Dataset):
    def __init__(self, count: int = 2):
        pass


def made(root):
    return Squares(root, "train")
"""


@pytest.fixture
def own(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (in_tmp / "own_squares.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(in_tmp))
    (in_tmp / "data").mkdir()
    return ["dataset=map_style", "dataset.train._target_=own_squares.Squares", "dataset.train.part=train"]


class TestOwnClass:
    @pytest.mark.parametrize("kind", ["pillow", "tensor", "attribute", "other"])
    def test_its_items_and_labels_are_read(self, own: list[str], in_tmp: Path, kind: str) -> None:
        source = read(in_tmp / "data", *own, f"dataset.train.kind={kind}")
        assert source.classes == ["dark, black", "light"]
        assert source.train.labels.tolist() == [0, 1] * 10
        assert source.train.images[:2, 0, 0, 0].tolist() == [50, 200]

    def test_other_pixels_have_another_checksum(self, own: list[str], in_tmp: Path) -> None:
        stores = [read(in_tmp / "data", *own, f"dataset.train.part={part}") for part in ("train", "train", "test")]
        assert stores[0].sha256 == stores[1].sha256 != stores[2].sha256

    def test_labels_of_an_attribute_cost_no_reading(self, own: list[str], in_tmp: Path) -> None:
        source = read(in_tmp / "data", *own, "dataset.train.kind=attribute", "dataset.train.count=5000")
        assert isinstance(source.train.store, Photos)
        made: Any = source.train.store.items
        assert made.reads < 3000, "three for the labels, and a sample"

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["train.kind=float"], "dataset.train, own_squares.Squares: its images are torch.float32; expected Pillow"),
            (["train.kind=word"], "dataset.train, own_squares.Squares: a label is 'dark'; expected a class number."),
            (["train.kind=single"], "dataset.train, own_squares.Squares: "),
            (["train.kind=broken"], "dataset.train, own_squares.Squares: a riddle."),
            (["train.count=0"], "dataset.train, own_squares.Squares: there are no images below data."),
            (
                ["test._target_=own_squares.Stream"],
                "dataset.test, own_squares.Stream: object of type 'Stream' has no len()",
            ),
            (["train._target_=own_squares.Rootless"], "expected a map_style that takes root."),
            (["train._target_=own_squares.made"], "dataset.train._target_=own_squares.made: that is a function"),
            (["train._target_=own_squares.Nothing"], "has no class or function Nothing"),
            (["train.kindd=x"], "dataset.train.kindd: there is no such key. Did you mean dataset.train.kind?"),
            (["train.root=../x"], "dataset.train.root=../x: expected a path below data_dir"),
            (["test=own_squares.Squares"], "dataset.test=own_squares.Squares: expected its keys one by one"),
            (["source=sample"], "dataset.source=sample: this data set has no packaged sample"),
        ],
    )
    def test_what_it_lacks_is_said_in_a_sentence(
        self, door: Door, own: list[str], words: list[str], message: str
    ) -> None:
        outcome = door("train", *own, *SHORT, *(f"dataset.{word}" for word in words))
        assert outcome.code == 2
        assert message in outcome.err
        assert "Traceback" not in outcome.err

    def test_it_trains_by_a_yaml_of_its_own_and_in_processes(self, door: Door, own: list[str], in_tmp: Path) -> None:
        (in_tmp / "mine/dataset").mkdir(parents=True)
        (in_tmp / "mine/dataset/squares.yaml").write_text(
            "defaults:\n  - map_style\nname: squares\n"
            "train: {_target_: own_squares.Squares, part: train}\n"
            "test: {_target_: own_squares.Squares, part: test}\n"
        )
        words = ["--config-dir", "mine", "dataset=squares", *SHORT, "dataset.in_memory=false"]
        outcome = door("train", *words, "num_workers=1")
        assert outcome.code == 0, outcome.err
        results = results_of(only_run(in_tmp))
        assert results["test"]["images"] == 20
        assert (results["train"]["images"], results["val"]["images"]) == (18, 2)
        outcome = door("eval", "--config-dir", "mine", "run=last")
        assert outcome.code == 0, outcome.err
        outcome = door("eval", f"checkpoint={only_run(in_tmp)}")
        assert outcome.code == 2
        look_into()
        assert "own_squares.Squares: no YAML file here names it" in outcome.err

    def test_parts_with_other_classes_are_refused(self, in_tmp: Path) -> None:
        for part, names in (("train", "ab"), ("test", "b")):
            for name in names:
                photo(in_tmp / "data" / part / name / "0.jpg", 0)
        target = "torchvision.datasets.ImageFolder"
        words = ["dataset=map_style", "dataset.train.root=train", f"dataset.test._target_={target}"]
        with pytest.raises(UserError, match=r"dataset.test: its classes are \['b'\], and those of train \['a', 'b'\]"):
            read(in_tmp / "data", *words, "dataset.test.root=test")


@cache
def composed_food() -> dict[str, Any]:
    return compose("train", declared(["dataset=food101"])).values


class TestStrangers:
    """A checkpoint names a class below the reader's own name."""

    def values(self, **part: Any) -> dict[str, Any]:
        values = deepcopy(composed_food())
        values["dataset"]["train"] = part
        return values

    @pytest.mark.parametrize(
        "target",
        [
            "os.system",
            "subprocess.Popen",
            "torch.utils.data.Subset",
            "torchvision.datasets.utils.download_url",
            "torchvision.datasets.folder.default_loader",
            "torchvision.datasets.vision.torch.hub.load",
            "torchvision.datasets.flowers102.Path",
            "torchvision.datasets.LSUN",
            "torchvision.datasets.FakeData",
            "torchvision.io.VideoReader",
            "src.data.readers.read_torchvision",
            "own_squares.Squares",
        ],
    )
    @pytest.mark.parametrize("key", ["train", "valid", "test"])
    def test_no_other_class_is_called(self, own: list[str], target: str, key: str) -> None:
        values = self.values(_target_="torchvision.datasets.Food101")
        values["dataset"][key] = {"_target_": target, "root": "."}
        with pytest.raises(UserError, match=rf"^dataset\.{key}\._target_={re.escape(target)}: "):
            check(values, TrainConfig, frozenset())

    @pytest.mark.parametrize(
        "part",
        [
            {"_target_": "torchvision.datasets.Food101", "root": "/etc"},
            {"_target_": "torchvision.datasets.Food101", "root": "a/../../b"},
            {"_target_": "torchvision.datasets.Food101", "loader": "os.system"},
            {"_target_": "torchvision.datasets.Food101", "transform": {"_target_": "os.system"}},
            {"_target_": "torchvision.datasets.Food101", "split": {"_target_": "os.system"}},
            {"_target_": "torchvision.datasets.Food101", "split": "https://example.org/x"},
            {"_target_": "torchvision.datasets.Food101", "download": True},
            {"_target_": {"_target_": "os.system"}},
            {"split": "train"},
            {"x": {"_target_": "os.system"}},
        ],
    )
    def test_no_option_leads_elsewhere(self, part: dict[str, Any]) -> None:
        with pytest.raises(UserError, match=r"^dataset"):
            check(self.values(**part), TrainConfig, frozenset())

    def test_classes_of_torchvision_and_those_that_a_yaml_here_names_are_taken(
        self, own: list[str], in_tmp: Path
    ) -> None:
        values = self.values(_target_="torchvision.datasets.DTD", split="train")
        assert check(values, TrainConfig, frozenset()).dataset.name == "food101"
        values = self.values(_target_="own_squares.Squares", part="train")
        assert check(values, TrainConfig).dataset.name == "food101", "a command line may name any"
        (in_tmp / "mine/dataset").mkdir(parents=True)
        (in_tmp / "mine/dataset/squares.yaml").write_text("train: {_target_: own_squares.Squares}\n")
        look_into(str(in_tmp / "mine"))
        try:
            assert check(values, TrainConfig, frozenset()).dataset.name == "food101"
        finally:
            look_into()


def test_names_that_several_classes_have_become_unique() -> None:
    assert unique(["crane", "tench", "crane"]) == ["crane (0)", "tench", "crane (2)"]
