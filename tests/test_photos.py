"""Photos that are decoded when they are fetched: the same run as in memory, for more than memory holds."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from src.config.compose import configure
from src.config.errors import UserError
from src.config.schema import Fit
from src.data import batches, datamodule, decoding, memory, statistics
from src.data.augmentation import random_resized_crop
from src.data.batches import Batches, BatchOrder, RandomCut, make_loader
from src.data.decoding import BrokenImage, decode
from src.data.images import ImageSet
from src.data.photos import Paths, Photos
from src.data.splitting import split
from src.model.build import build_datamodule
from src.model.classifier import Classifier
from tests.conftest import KEPT, SHORT, Outcome, read_folder, results_of
from tests.test_resume import assert_same, broken

Door = Callable[..., Outcome]
CROP = "dataset/augmentation=[random_resized_crop,flip]"
# of what Pillow writes without loss, or as JPEG, JPEG 2000, AVIF and WebP do
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO", "JPEG2000", "PCX", "SGI", "DDS", "AVIF"]
FORMATS += ["MPO", "IM", "DIB", "QOI"]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with an edge, which a photo has too."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """60 JPEGs of several sizes, of two classes that differ in their brightness."""
    root = tmp_path / "photos"
    for number in range(60):
        width, height = (90, 60) if number % 3 else (60, 80)
        level = 60 + 120 * (number % 2)
        image = Image.blend(picture(width, height, number), Image.new("RGB", (width, height), (level,) * 3), 0.7)
        path = root / f"class{number % 2}" / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=90)
    return root


def run(door: Door, photos: Path, folder: str, *options: str) -> Outcome:
    common = ["dataset=image_folder", f"data_dir={photos}", *SHORT, KEPT, "seed=3", "dataset.in_memory=false"]
    keys = {text.partition("=")[0] for text in options}
    return door(
        "train", *(text for text in common if text.partition("=")[0] not in keys), *options, f"hydra.run.dir={folder}"
    )


def cut_file(path: Path) -> Path:
    """As a copy that was broken off."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


class TestOneFunctionForAll:
    @pytest.mark.parametrize("format", FORMATS)
    @pytest.mark.parametrize("channels", [1, 3])
    def test_pixels_are_those_of_pillow_within_two_levels(self, tmp_path: Path, format: str, channels: int) -> None:
        made = picture(200, 150).convert("L").convert("RGB") if channels == 1 else picture(200, 150)
        path = tmp_path / "image"
        made.save(path, format)
        with Image.open(path) as image:
            plain = image.convert("RGB" if channels == 3 else "L")
        side = min(plain.size)
        left, top = (plain.width - side) // 2, (plain.height - side) // 2
        expected = plain.crop((left, top, left + side, top + side)).resize((100, 100), Image.Resampling.BILINEAR)
        found = decode(path, channels, (100, 100)).permute(1, 2, 0).numpy().astype(int).squeeze()
        assert np.abs(found - np.asarray(expected)).max() <= 2

    @pytest.mark.parametrize(("width", "steps"), [(500, 1), (2100, 8), (1100, 4), (600, 2)])
    def test_large_jpegs_are_decoded_at_a_part_of_their_size(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, steps: int
    ) -> None:
        picture(width, width).save(tmp_path / "a.jpg", quality=95)
        seen, as_pixels = list[int](), decoding.as_pixels

        def noted(image: Image.Image, *rest: Any) -> torch.Tensor:
            seen.append(image.width)
            return as_pixels(image, *rest)

        monkeypatch.setattr(decoding, "as_pixels", noted)
        found = decode(tmp_path / "a.jpg", 3, (256, 256))
        assert [math.ceil(width / steps)] * (steps > 1) == seen
        with Image.open(tmp_path / "a.jpg") as image:
            expected = np.asarray(image.resize((256, 256), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.abs(found.numpy().astype(int) - expected).max() <= 6

    def test_a_turned_photo_is_turned_whichever_way_it_is_decoded(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        for width, height in ((300, 200), (1800, 1200)):
            made = Image.new("RGB", (width, height), "white")
            made.paste("red", (0, 0, width // 2, height))  # left, which is above once it is shown
            made.save(tmp_path / "a.jpg", exif=exif)
            found = decode(tmp_path / "a.jpg", 3, (100, 100))
            assert found[1, :40].max() < 30 < 200 < found[1, 60:].min(), (width, height)

    def test_a_file_its_bytes_pillows_image_and_torchs_are_the_same(self, tmp_path: Path) -> None:
        picture(90, 60).save(tmp_path / "a.png")
        path = tmp_path / "a.png"
        with Image.open(path) as image:
            kinds: list[Any] = [path.read_bytes(), image.copy(), decode(path, 3, None)]
        for kind in kinds:
            assert torch.equal(decode(kind, 3, (50, 50)), decode(path, 3, (50, 50)))

    @pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
    def test_training_and_prediction_read_the_same_pixels(self, photos: Path, fit: Fit) -> None:
        few = read_folder(photos, in_memory=False, fit=fit)
        images, _ = few.train.fetch(torch.tensor([7]))
        path = few.train.store.items[int(few.train.store.rows[7]) if few.train.store.rows is not None else 7]
        assert torch.equal(images[0], decode(path, 3, few.train.store.size, fit))


class TestHeldOrDecoded:
    def test_a_run_is_the_same_in_memory_and_decoded_by_any_number_of_processes(
        self, door: Door, photos: Path, in_tmp: Path
    ) -> None:
        ways = {"held": ["dataset.in_memory=true"], "here": ["num_workers=0"], "two": ["num_workers=2"], "auto": []}
        for name, options in ways.items():
            outcome = run(door, photos, name, *options)
            assert outcome.code == 0, outcome.err
        for name in ("here", "two", "auto"):
            assert_same(in_tmp / "held", in_tmp / name)
            assert results_of(in_tmp / name)["dataset"] == results_of(in_tmp / "held")["dataset"], "one checksum"

    @pytest.mark.parametrize(
        ("free", "held", "words"),
        [
            (8.1, True, "held in memory: "),
            (7.9, False, "decoded when needed, for all would take "),
        ],  # a quarter of it is what counts
    )
    def test_a_quarter_of_what_is_free_is_held(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch, free: float, held: bool, words: str
    ) -> None:
        half = read_folder(photos, in_memory=False)
        needed = half.train.nbytes
        monkeypatch.setattr(memory, "free_memory", lambda: int(free * needed / 2))
        found = read_folder(photos, in_memory="auto")
        assert isinstance(found.train.store, torch.Tensor) == held
        assert found.held.startswith(words)

    def test_the_screen_says_where_photos_are_and_the_config_keeps_it(
        self, door: Door, photos: Path, in_tmp: Path
    ) -> None:
        outcome = run(door, photos, "r", "dataset.in_memory=auto")
        assert " photos  held in memory: 0.001 GiB of the " in outcome.out
        assert "in_memory: true" in (in_tmp / "r/config.yaml").read_text()

    def test_what_memory_can_t_hold_is_refused(self, door: Door, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(memory, "free_memory", lambda: 1000)
        outcome = run(door, photos, "r", "dataset.in_memory=true")
        assert outcome.code == 2
        assert outcome.err.startswith("error: dataset.in_memory=true: the images take 0.001 GiB of the 0.000 GiB")

    def test_reading_that_takes_all_memory_is_a_sentence(
        self, door: Door, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def none_left(*arguments: Any) -> None:
            raise MemoryError

        monkeypatch.setattr(Photos, "read", none_left)
        outcome = run(door, photos, "r", "dataset.in_memory=true")
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert "reading the images took all memory. Take dataset.in_memory=false." in outcome.err

    def test_a_limit_cuts_before_anything_is_opened(self, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from src.data import image_folder
        from src.data.splitting import limited

        opened, plain = list[Path](), Path.open

        def noted(self: Path, *rest: Any, **options: Any) -> Any:
            opened.append(self)
            return plain(self, *rest, **options)

        monkeypatch.setattr(Path, "open", noted)
        source = limited(image_folder.read_folder(photos, "auto"), 10)
        assert (opened, len(source.train)) == ([], 10)
        found = read_folder(photos, in_memory=False)
        assert sum(path.suffix == ".jpg" for path in opened) == len(found.train), "once, for its size"

    def test_of_many_photos_a_sample_is_looked_at_and_that_is_said(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(statistics, "SAMPLE", 20)
        seen, shown = list[int](), Photos.shown

        def noted(self: Photos, index: int) -> tuple[int, int]:
            seen.append(index)
            return shown(self, index)

        monkeypatch.setattr(Photos, "shown", noted)
        first = read_folder(photos)
        assert first.held.endswith("; sizes, mean and std are those of 20")
        assert len(set(seen)) == 20
        assert read_folder(photos).sha256 == first.sha256, "always the same"
        assert {*seen[:20]} == {*seen[20:]}

    def test_what_is_free_is_known_in_a_container_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        limits = {
            "memory.max": "5000000",
            "memory.current": "3000000",
            "memory.stat": "anon 7\ninactive_file 1000000\n",
        }
        monkeypatch.setattr(memory, "GROUP", tmp_path)
        whole = memory.free_memory()
        for name, text in limits.items():
            (tmp_path / name).write_text(text)
        assert memory.free_memory() == 3_000_000 < whole
        (tmp_path / "memory.max").write_text("max\n")
        assert memory.free_memory() > 3_000_000


class TestImagesThatAreTheSame:
    @pytest.mark.parametrize("kind", ["names", "content"])
    def test_a_photo_that_was_changed_is_noticed_by_its_size_or_its_content(self, photos: Path, kind: str) -> None:
        before = read_folder(photos, checksum=kind)
        path = photos / "class0/00.jpg"
        path.write_bytes(path.read_bytes()[:-3] + b"\1" + path.read_bytes()[-2:])  # of the same size
        assert (read_folder(photos, checksum=kind).sha256 != before.sha256) == (kind == "content")
        path.write_bytes(path.read_bytes() + b"\0")
        assert read_folder(photos, checksum=kind).sha256 != before.sha256

    def test_another_name_or_another_fit_is_another_set(self, photos: Path) -> None:
        sums = [read_folder(photos).sha256, read_folder(photos, fit="stretch").sha256]
        (photos / "class0/00.jpg").rename(photos / "class0/000.jpg")
        assert len({*sums, read_folder(photos).sha256}) == 3

    def test_a_run_goes_on_only_with_its_photos(
        self, door: Door, photos: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        options = ["dataset=image_folder", f"data_dir={photos}", *SHORT, "trainer.max_epochs=2"]
        broken(door, monkeypatch, 9, *options, "callbacks.checkpoint_steps=2", "hydra.run.dir=r")
        picture(90, 60, 99).save(photos / "class0/00.jpg", quality=50)
        outcome = door("train", "resume=r")
        assert outcome.code == 2
        assert "the images of image_folder have changed since this run began" in outcome.err


class TestCuts:
    def test_a_cut_is_a_function_of_seed_epoch_and_index(self, photos: Path) -> None:
        images = read_folder(photos, in_memory=False).train
        cut = RandomCut(
            lambda width, height, generator: random_resized_crop(width, height, generator, [0.1, 1], [0.75, 1.33]), 1
        )

        def fetched(epoch: int, *indices: int) -> torch.Tensor:
            batch = Batches(images, cut)[epoch, torch.tensor(indices)]
            assert not isinstance(batch, UserError)
            return batch[0]

        assert torch.equal(fetched(0, 3, 5, 7)[2], fetched(0, 7, 1)[0]), "whatever else is in the batch"
        assert not torch.equal(fetched(0, 7), fetched(1, 7))

    def test_a_cut_is_taken_at_the_photos_own_resolution(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        fine = Image.fromarray(np.kron(rng.integers(0, 2, (400, 400)) * 255, np.ones((2, 2))).astype(np.uint8))
        fine.save(tmp_path / "a.png")
        whole = decode(tmp_path / "a.png", 1, (64, 64))
        part = decode(tmp_path / "a.png", 1, (64, 64), cut=lambda width, height: (100, 100, 64, 64))
        assert float(part.float().std()) > 110 > 40 > float(whole.float().std())
        assert np.array_equal(part[0].numpy(), np.asarray(fine)[100:164, 100:164])

    def test_windows_have_the_shares_and_shapes_that_are_asked_for(self) -> None:
        generator = torch.Generator().manual_seed(0)
        boxes = [random_resized_crop(500, 375, generator, [0.08, 1.0], [0.75, 1.3333]) for _ in range(2000)]
        for left, top, width, height in boxes:
            assert 0 <= left <= 500 - width
            assert 0 <= top <= 375 - height
            assert 0.07 < width * height / (500 * 375) <= 1
            assert 0.73 < width / height < 1.36
        shares = np.array([width * height for _, _, width, height in boxes]) / (500 * 375)
        assert 0.4 < shares.mean() < 0.6
        assert random_resized_crop(1000, 2, generator, [1.0, 1.0], [0.75, 1.3333]) == (498, 0, 3, 2)

    def test_images_in_memory_are_cut_too(self) -> None:
        images = torch.arange(4 * 3 * 8 * 8, dtype=torch.uint8).reshape(4, 3, 8, 8)
        part = ImageSet(images, torch.arange(4))
        found, labels = part.fetch(torch.tensor([2, 1]), lambda index: lambda width, height: (0, 0, 4, 4))
        assert found.shape == (2, 3, 8, 8)
        assert labels.tolist() == [2, 1]
        assert int(found[0].max()) <= int(images[2, :, :4, :4].max())

    @pytest.mark.parametrize("options", [["num_workers=0"], ["num_workers=2"]])
    def test_a_run_that_was_killed_goes_on_with_the_same_cuts(
        self, door: Door, photos: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
    ) -> None:
        more = [CROP, "trainer.max_epochs=2", "callbacks.checkpoint_steps=2", *options]
        assert run(door, photos, "whole", *more).code == 0
        with monkeypatch.context():
            common = ["dataset=image_folder", f"data_dir={photos}", *SHORT, KEPT, "seed=3", "dataset.in_memory=false"]
            broken(door, monkeypatch, 10, *common, *more, "hydra.run.dir=r")
        outcome = door("train", "resume=r")
        assert outcome.code == 0, outcome.err
        assert "goes on at  epoch 2 of 2, batch" in outcome.out
        assert_same(in_tmp / "whole", in_tmp / "r")

    @pytest.mark.parametrize(
        "values", ["scale=[1.0]", "scale=[5.0,9.0]", "scale=[0.0,1.0]", "ratio=[0.0,1.0]", "ratio=2"]
    )
    def test_a_window_that_can_t_be_is_refused(self, door: Door, photos: Path, values: str) -> None:
        key = "dataset.augmentation.random_resized_crop"
        outcome = run(door, photos, "r", CROP, f"{key}.{values}")
        assert outcome.code == 2
        assert "Traceback" not in outcome.err
        assert outcome.err.startswith(f"error: {key}.{values.partition('=')[0]}")

    def test_two_cuts_are_one_too_many(self, door: Door, photos: Path) -> None:
        target = "_target_: src.data.augmentation.random_resized_crop, scale: [1.0, 1.0], ratio: [1.0, 1.0]"
        outcome = run(door, photos, "r", CROP, f"+dataset.augmentation.again={{{target}}}")
        assert outcome.code == 2
        assert "dataset.augmentation.again: another one cuts the images already. Leave one out." in outcome.err


class TestBrokenPhotos:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_one_that_is_met_on_the_way_ends_the_run_with_its_name_and_leaves_the_checkpoint(
        self, door: Door, photos: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, workers: int
    ) -> None:
        monkeypatch.setattr(statistics, "SAMPLE", 2)
        step, gone, sizes = Classifier.on_train_epoch_start, list[Path](), list[int]()

        def break_one(self: Classifier) -> None:
            if self.trainer.current_epoch == 1 and not gone:
                images = self.trainer.datamodule.splits.train  # type: ignore[attr-defined]
                gone.append(images.store.item(int(images.indices[4])))
                sizes.append(gone[0].stat().st_size)
                cut_file(gone[0])
            step(self)

        monkeypatch.setattr(Classifier, "on_train_epoch_start", break_one)
        outcome = run(door, photos, "r", "trainer.max_epochs=3", f"num_workers={workers}")
        assert outcome.code == 1
        assert "Traceback" not in outcome.err
        assert outcome.err.startswith(f"error: {gone[0]} is a broken image: ")
        assert "dataset.on_broken=skip takes another of its class; python -m src.data.verify FOLDER" in outcome.err
        assert "lists all broken. The last whole checkpoint is" in outcome.err
        assert (in_tmp / "r/checkpoints/last.ckpt").exists()
        gone[0].write_bytes(bytes(sizes[0]))  # of its old size, which is what the run knows it by
        outcome = door("train", f"resume={in_tmp}/r", "dataset.on_broken=skip")
        assert outcome.code == 0, outcome.err
        assert results_of(in_tmp / "r")["broken"]["train"] == 1

    def test_one_that_vanishes_is_told_as_that(self, door: Door, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        start, gone = Classifier.on_train_epoch_start, list[Path]()

        def remove_one(self: Classifier) -> None:
            images = self.trainer.datamodule.splits.train  # type: ignore[attr-defined]
            gone.append(images.store.item(int(images.indices[4])))
            gone[0].unlink()
            start(self)

        monkeypatch.setattr(Classifier, "on_train_epoch_start", remove_one)
        outcome = run(door, photos, "r", "num_workers=0")
        assert outcome.code == 1
        assert f"error: {gone[0]} can't be opened: No such file or directory." in outcome.err

    def test_one_truncated_file_among_ten_thousand_is_named(self, door: Door, tmp_path: Path, in_tmp: Path) -> None:
        for part, count in (("train", 9_800), ("val", 200)):
            for name in ("a", "b"):
                place = tmp_path / "many" / part / name
                place.mkdir(parents=True)
                picture(16, 16).save(place / "00000.jpg")
                for number in range(1, count // 2):
                    os.link(place / "00000.jpg", place / f"{number:05}.jpg")
        (tmp_path / "many/val/b/00080.jpg").unlink()
        picture(16, 16).save(tmp_path / "many/val/b/00080.jpg")
        bad = cut_file(tmp_path / "many/val/b/00080.jpg")
        outcome = run(door, tmp_path / "many", "r", "batch_size=64", "trainer.limit_train_batches=2")
        assert outcome.code == 1, outcome.err
        assert outcome.err.startswith(f"error: {bad} is a broken image: ")
        assert "128 of 8,820 to train, 200" in outcome.out

    def test_skipped_ones_are_replaced_by_the_same_others_and_counted(
        self, door: Door, photos: Path, in_tmp: Path
    ) -> None:
        for number in (3, 8, 20, 21, 22, 40):
            cut_file(photos / f"class{number % 2}/{number:02}.jpg")
        ways = {"held": ["dataset.in_memory=true"], "here": ["num_workers=0"], "two": ["num_workers=2"]}
        for name, options in ways.items():
            outcome = run(door, photos, name, "dataset.on_broken=skip", "trainer.max_epochs=2", *options)
            assert outcome.code == 0, outcome.err
            assert sum(results_of(in_tmp / name)["broken"].values()) == 6
            assert "Broken images, for which others of their class were taken: " in outcome.out
            assert_same(in_tmp / "held", in_tmp / name)

    def test_another_of_the_class_is_taken_by_its_number(self, photos: Path) -> None:
        for number in (2, 4):
            cut_file(photos / f"class0/{number:02}.jpg")
        held, decoded = (read_folder(photos, in_memory=held, on_broken="skip").train for held in (True, False))
        everyone = torch.arange(60)
        images, labels = decoded.fetch(everyone)
        assert torch.equal(images, held.fetch(everyone)[0])
        assert torch.equal(labels, held.labels)
        sound = [index for index in range(30) if index not in (1, 2)]
        assert any(torch.equal(images[1], images[index]) for index in sound)
        assert decoded.replaced == held.replaced == 2
        assert read_folder(photos, in_memory=False, on_broken="skip").train.replaced == 0, "until they are met"

    def test_where_a_class_has_none_that_is_whole_it_is_told(self, photos: Path) -> None:
        for path in (photos / "class0").iterdir():
            cut_file(path)
        images = read_folder(photos, in_memory=False, on_broken="skip").train
        with pytest.raises(BrokenImage, match="is a broken image"):
            images.fetch(torch.tensor([0]))

    def test_an_evaluation_names_it_too(self, door: Door, photos: Path, in_tmp: Path) -> None:
        assert run(door, photos, "r").code == 0
        other = in_tmp / "other"
        for number in range(8):
            path = other / f"class{number % 2}/{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(90, 60).save(path)
        bad = cut_file(other / "class1/7.jpg")
        options = ["dataset=image_folder", f"data_dir={other}", "split=train", "dataset.in_memory=false"]
        outcome = door("eval", "run=r", *options)
        assert outcome.code == 2
        assert f"error: {bad} is a broken image" in outcome.err


class TestLoaders:
    @pytest.mark.parametrize(("cores", "processes", "workers"), [(8, 1, 7), (2, 1, 1), (1, 1, 1), (16, 4, 3)])
    def test_auto_takes_a_process_for_each_core_but_one(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, workers: int
    ) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
        images = read_folder(photos, in_memory=False).train
        loader = make_loader(images, BatchOrder(len(images), 8, None), "auto", processes)
        assert loader.num_workers == workers
        held = read_folder(photos).train
        assert make_loader(held, BatchOrder(len(held), 8, None), "auto").num_workers == 0

    def test_a_batch_of_slow_photos_is_waited_for_and_one_in_memory_for_less_than_a_minute(self, photos: Path) -> None:
        waits = []
        for part in (read_folder(photos, in_memory=False).train, read_folder(photos).train):
            waits.append(make_loader(part, BatchOrder(len(part), 128, None), 1).timeout)
        assert waits[0] >= 128 * 2
        assert 0 < waits[1] < 60

    @pytest.mark.parametrize(("cut", "there"), [(False, "meta"), (True, "cpu")])
    def test_images_that_are_cut_at_random_stay_with_the_processes_that_cut_them(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch, cut: bool, there: str
    ) -> None:
        monkeypatch.setattr(datamodule, "fits", lambda *_: True)
        splits = split(read_folder(photos), 0.2, 1)
        options = [*SHORT, CROP if cut else "dataset/augmentation=flip", "dataset.mean=[0.5,0.5,0.5]"]
        config = configure([*options, "dataset=image_folder", "dataset.std=[0.2,0.2,0.2]", "dataset.image_size=227"])
        data = build_datamodule(config, splits)
        trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")))
        data.trainer = trainer
        data.setup("fit")
        assert data._placed.train.store.device.type == there

    def test_too_little_memory_to_share_is_a_sentence(
        self, door: Door, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = batches.shutil.disk_usage("/")
        monkeypatch.setattr(batches.shutil, "disk_usage", lambda _: usage._replace(free=2**16))
        outcome = run(door, photos, "r", "num_workers=auto")
        assert outcome.code == 2
        assert "Take num_workers=0, or a smaller batch_size." in outcome.err

    def test_paths_are_shared_by_processes_as_plain_bytes(self, tmp_path: Path) -> None:
        names = ["a/ü.jpg", "a/\udce9.jpg", "b/2026 (1), 'x'.png"]
        paths = Paths(tmp_path, names)
        assert [paths[index] for index in range(len(paths))] == [tmp_path / name for name in names]
        assert paths.names.dtype.kind == "S"

    def test_of_one_image_in_a_class_it_is_said_that_nothing_is_measured(self, door: Door, photos: Path) -> None:
        lonely = photos / "class2/one.jpg"
        lonely.parent.mkdir()
        picture(90, 60).save(lonely)
        outcome = run(door, photos, "r")
        assert outcome.code == 0, outcome.err
        assert "of these classes, no image is left to validate or to test: class2" in outcome.out


def test_a_loader_gives_what_went_wrong_in_place_of_a_batch(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    photos = Photos(Paths(tmp_path, ["a.jpg"]), 3, "", "here", (8, 8))
    order = BatchOrder(1, 1, None)
    loader: DataLoader = make_loader(ImageSet(photos, torch.tensor([0])), order, 1)
    (found,) = loader
    assert isinstance(found, BrokenImage)
    assert str(found) == f"{tmp_path}/a.jpg: no image that can be read. Replace or remove it."


def test_an_item_that_a_library_can_t_give_is_named_by_its_number() -> None:
    class Failing(list):
        def __getitem__(self, index: Any) -> Any:
            raise KeyError("no such row")

    photos = Photos(Failing([0, 1]), 3, "", "things.parquet, train", (8, 8))
    with pytest.raises(BrokenImage, match=r"things.parquet, train: image 1 can't be read: 'no such row'. Replace"):
        photos.read(1)
    content = io.BytesIO()
    picture(8, 8).save(content, "PNG")
    cut = Photos([content.getvalue()[:60]], 3, "", "things", (8, 8))
    with pytest.raises(BrokenImage, match="things: image 0 is a broken image"):
        cut.read(0)
