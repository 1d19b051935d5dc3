"""Files that a stranger made: checkpoints, archives, images, configs. None runs code, escapes, hangs or eats memory."""

from __future__ import annotations

import io
import os
import pickle
import re
import shutil
import struct
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from src.config.check import check
from src.config.compose import compose, configure, declared, grid
from src.config.errors import UserError
from src.config.paths import quoted
from src.config.schema import TrainConfig
from src.data.decoding import size_of
from src.data.readers import read_torchvision
from src.model import saved as checkpoint
from tests.conftest import (
    SHORT,
    Outcome,
    cifar_batch,
    idx_bytes,
    read_folder,
    read_image,
    train_in,
    trust,
    write_cifar,
    write_folder,
    write_idx,
)

Door = Callable[..., Outcome]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run; not to be written to."""
    folder = tmp_path_factory.mktemp("finished")
    images = write_folder(folder / "images", classes=2, count=30)
    return train_in(folder, "dataset=image_folder", f"data_dir={images}", *SHORT)


@pytest.fixture
def trained(finished: Path, in_tmp: Path) -> Path:
    return shutil.copytree(finished, in_tmp / "r") / "checkpoints/best.ckpt"


def crafted(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The checkpoint after `change`, in a file of its own."""
    content = torch.load(path, weights_only=True)
    change(content)
    made = path.with_name("crafted.ckpt")
    torch.save(content, made)
    return made


def made_of(call: Callable[[], Any]) -> Any:
    """What the call gives, or the sentence that it is refused with."""
    try:
        return call()
    except UserError as error:
        return f"refused: {error}"


class TestCheckpoints:
    @pytest.mark.parametrize(
        ("group", "target"),
        [
            ("model", "os.system"),
            ("model", "subprocess.Popen"),
            ("model", "torch.hub.load"),
            ("model", "torch.nn.Linear"),
            ("model", "src.config.cli.launch"),
            ("model", "src.model.classifier.Classifier"),
            ("dataset", "src.data.fetching.fetch"),
            ("dataset", "src.data.readers._idx"),
            ("dataset", "src.model.provenance._git"),
            ("dataset", "src.data.readers.gzip.open"),
            ("optimizer", "torch.optim.lr_scheduler.StepLR"),
            ("optimizer", "torch.optim.optimizer.warnings.warn"),
            ("optimizer", "torch.optim.swa_utils.AveragedModel"),
            ("optimizer", "src.training.saving.write"),
            ("scheduler", "torch.optim.SGD"),
            ("scheduler", "src.train.main"),
            ("scheduler", "builtins.exec"),
            ("scheduler", "src.model.schedules.math.floor"),
            ("loss", "torch.nn.modules.module.torch.hub.load"),
            ("loss", "os.system"),
        ],
    )
    def test_no_target_outside_the_registry_is_called(self, trained: Path, group: str, target: str) -> None:
        made = crafted(trained, lambda content: self.name(content, group, target))
        with pytest.raises(UserError, match=rf"{re.escape(f'{group}._target_={target}')}: "):
            checkpoint.load(made)

    def name(self, content: dict[str, Any], group: str, target: str) -> None:
        content["about"]["config"][group] = {"name": "x", "_target_": target, "command": "touch trap", "params": 1}

    def test_one_that_names_such_a_target_is_refused_in_a_sentence(
        self, door: Door, trained: Path, finished: Path, in_tmp: Path
    ) -> None:
        made = crafted(trained, lambda content: self.name(content, "model", "os.system"))
        for words in (["eval"], ["predict", f"input={finished.parent / 'images/class0'}"], ["export", "output=x.onnx"]):
            outcome = door(*words, f"checkpoint={made}")
            assert outcome.code == 2
            assert outcome.err.startswith(f"error: checkpoint={made}: ")
            assert "model._target_=os.system: " in outcome.err
            assert "Traceback" not in outcome.err
        assert not (in_tmp / "trap").exists()

    @pytest.mark.parametrize("value", ["/etc", "../../etc", "a/../../b", "~/x", "C:\\x", "..\\x"])
    def test_no_path_leads_out_of_the_data_folder(self, trained: Path, value: str) -> None:
        made = crafted(trained, lambda content: content["about"]["config"]["dataset"].update(folder=value))
        sentence = re.escape(f"dataset.folder={value}: expected a path below data_dir")
        for refuse in (
            lambda: checkpoint.load(made),
            lambda: configure(["dataset=cifar10_jpeg", f"dataset.folder='{value}'"]),
        ):
            with pytest.raises(UserError, match=sentence):
                refuse()

    @pytest.mark.parametrize("name", ["about", "state_dict", "position", "callbacks"])
    def test_no_pickle_runs(self, door: Door, trained: Path, in_tmp: Path, name: str) -> None:
        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(in_tmp / "trap"),)

        for path in (trained, trained.with_name("last.ckpt")):
            made = crafted(path, lambda content: content.update({name: Evil()}))
            outcome = door("eval", f"checkpoint={made}")
            assert outcome.code == 2
            made.replace(path)
            (in_tmp / "r/results.json").unlink(missing_ok=True)
        outcome = door("train", "resume=r")
        assert outcome.code == 2
        assert "which could run code" in outcome.err
        assert not (in_tmp / "trap").exists()

    def test_a_pickle_with_no_archive_around_it_does_not_run_either(self, door: Door, in_tmp: Path) -> None:
        made = in_tmp / "evil.ckpt"
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            made.write_bytes(pickle.dumps({"about": eval}, protocol))
            with pytest.raises(UserError, match="which could run code, or is no checkpoint at all"):
                checkpoint.load(made)
        assert door("eval", f"checkpoint={made}").code == 2

    @pytest.mark.parametrize("part", ["position", "logs", "callbacks", "epoch_so_far", "optimizer_states"])
    def test_state_that_is_none_is_refused_in_words(self, door: Door, trained: Path, in_tmp: Path, part: str) -> None:
        last = trained.with_name("last.ckpt")
        crafted(last, lambda content: content.update({part: {"epoch": [], "x": "y"}})).replace(last)
        outcome = door("train", "resume=r", "trainer.max_epochs=2")
        assert outcome.code == 2
        assert (in_tmp / "r/results.json").exists(), "a request that is refused takes nothing away"
        assert "a part of what a run goes on from is missing or wrong" in outcome.err

    @pytest.mark.parametrize("link", ["tensorboard/events.out.tfevents.1", ".metrics.csv.part", ".config.yaml.part"])
    def test_no_link_in_a_run_leads_out_of_it(self, door: Door, trained: Path, in_tmp: Path, link: str) -> None:
        victim = in_tmp / "victim"
        victim.write_text("mine")
        (in_tmp / "r" / link).symlink_to(victim)
        name = (in_tmp / "r" / link).name
        last = trained.with_name("last.ckpt")
        crafted(last, lambda content: content["logs"].update({name: 0})).replace(last)
        assert door("train", "resume=r", "trainer.max_epochs=2").code == 0
        assert victim.read_text() == "mine"

    def test_nothing_is_interpolated(
        self, door: Door, trained: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SECRET", "told")
        bomb = {f"x{number + 1}": f"${{x{number}}}${{x{number}}}" for number in range(40)}
        for change in {"model": {"name": "${oc.env:SECRET}"}}, bomb:
            made = crafted(trained, lambda content, change=change: content["about"]["config"].update(change))  # type: ignore[misc]
            outcome = door("eval", f"checkpoint={made}")
            assert outcome.code == 2
            assert "expected a value, not an interpolation" in outcome.err
            assert "told" not in outcome.err
        config = in_tmp / "r/config.yaml"
        whole = config.read_text()
        for more in "x: ${oc.env:SECRET}\n", "x: &a [1]\ny: [*a, *a]\n":
            config.write_text(whole + more)
            outcome = door("train", "resume=r", "trainer.max_epochs=2")
            assert outcome.code == 2
            assert "config.yaml" in outcome.err

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def test_whatever_it_says_of_itself_is_refused_in_words(self, trained: Path, data: st.DataObject) -> None:
        values = st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=5,
        )
        content = torch.load(trained, weights_only=True)
        place: Any = content if data.draw(st.booleans()) else content["about"]
        if data.draw(st.booleans()):
            place = content["about"]["config"]
        key = data.draw(st.sampled_from(sorted(place)))
        place[key] = data.draw(values)
        made = trained.with_name("crafted.ckpt")
        torch.save(content, made)
        found = made_of(lambda: checkpoint.load(made))
        assert isinstance(found, checkpoint.Checkpoint) or found.startswith("refused: checkpoint=")


class TestPublishedFiles:
    def test_no_archive_but_the_published_one_is_unpacked(self, tmp_path: Path, rng: np.random.Generator) -> None:
        batches = write_cifar(tmp_path / "b", rng)
        outside = tmp_path / "outside"
        outside.write_text("mine")
        data = tmp_path / "data"
        data.mkdir()
        with tarfile.open(data / "cifar-10-python.tar.gz", "w:gz") as tar:
            for path in batches.iterdir():
                tar.add(path, arcname=f"../../{path.name}")
            for name, kind in (("data_batch_1", tarfile.SYMTYPE), ("test_batch", tarfile.LNKTYPE)):
                link = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                link.type, link.linkname = kind, str(outside)
                tar.addfile(link)
            tar.addfile(tarfile.TarInfo("/tmp/evil"), io.BytesIO())
        with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz has the wrong checksum"):
            read_torchvision(data, "auto", "CIFAR10", download=False)
        assert [path.name for path in data.iterdir()] == ["cifar-10-python.tar.gz"]
        assert outside.read_text() == "mine"
        assert {path.name for path in tmp_path.iterdir()} == {"b", "outside", "data"}

    def test_pickles_are_not_read_before_their_checksum_fits(
        self, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_cifar(tmp_path / "cifar-10-batches-py", rng)

        def read(*arguments: Any, **options: Any) -> None:
            raise AssertionError("a pickle was read")

        monkeypatch.setattr(pickle, "load", read)
        with pytest.raises(UserError, match=r"data_batch_1 has the wrong checksum"):
            read_torchvision(tmp_path, "auto", "CIFAR10", download=False)
        trust(monkeypatch, "CIFAR10", tmp_path)
        with pytest.raises(UserError, match="a pickle was read"):
            read_torchvision(tmp_path, "auto", "CIFAR10", download=False)

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=200), st.integers(0, 400), st.booleans())
    def test_batches_of_any_bytes_are_refused_in_words(
        self, tmp_path: Path, noise: bytes, place: int, appended: bool
    ) -> None:
        folder = tmp_path / "cifar-10-batches-py"
        if not folder.exists():
            write_cifar(folder, np.random.default_rng(0))
        whole = cifar_batch(np.zeros((2, 3072), np.uint8), [0, 1])
        (folder / "data_batch_1").write_bytes(whole)
        with pytest.MonkeyPatch.context() as patch:
            trust(patch, "CIFAR10", tmp_path)
            made = noise if appended else whole[:place] + noise + whole[place + len(noise) :]
            (folder / "data_batch_1").write_bytes(made)
            found = made_of(lambda: len(read_torchvision(tmp_path, "auto", "CIFAR10", download=False).train))
        assert found == 82 if made == whole else "data_batch_1 has the wrong checksum" in found


def png(width: int, height: int) -> bytes:
    """A PNG that announces a size and has hardly any pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


class TestImages:
    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (png(60_000, 60_000), "decompression bomb"),
            (png(12, 12), "is a broken image"),
            (png(0, 12), "no image|broken image"),
            (b"", "no image that can be read"),
            (b"GIF89a", "no image that can be read"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no image that can be read"),
            (b"%PDF-1.4", "no image that can be read"),
            (b"MZ" + b"\0" * 100, "no image that can be read"),
        ],
    )
    def test_files_that_are_no_whole_image_are_named(self, tmp_path: Path, content: bytes, sentence: str) -> None:
        root = write_folder(tmp_path / "f", classes=2, count=2)
        (root / "class1/strange.png").write_bytes(content)
        tracemalloc.start()
        with pytest.raises(UserError, match=rf"class1/strange.png.*({sentence})"):
            read_folder(root, "auto")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 50 << 20

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "I;16", "I"])
    def test_every_mode_gives_the_colours_that_a_viewer_shows(self, tmp_path: Path, mode: str) -> None:
        root = write_folder(tmp_path / "f", classes=2, count=1)
        grey = 204  # a palette has it
        if mode.startswith("I"):
            picture = Image.fromarray(np.full((12, 12), grey << 8, np.uint16 if mode == "I;16" else np.int32))
        else:
            level = 255 if mode == "1" else grey
            picture = Image.new("RGB", (12, 12), (level,) * 3).convert("LA" if mode == "PA" else mode)
            picture = picture.convert("PA") if mode == "PA" else picture
        path = root / "class0" / ("z.jpg" if mode in ("CMYK", "YCbCr") else "z.tiff")
        picture.save(path)
        found = read_folder(root, "auto").train.images[1]
        expected = 255 if mode == "1" else grey
        assert int((found.int() - expected).abs().max()) <= 3

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(8, 300), st.binary(min_size=1, max_size=20))
    def test_damage_anywhere_is_named_or_harmless(self, tmp_path: Path, place: int, noise: bytes) -> None:
        root = tmp_path / "f"
        if not root.exists():
            write_folder(root, classes=2, count=2)
        whole = (root / "class0/000.png").read_bytes()
        (root / "class1/000.png").write_bytes(whole[:place] + noise + whole[place + len(noise) :])
        found = made_of(lambda: len(read_folder(root, "auto").train))
        assert found == 4 or "class1/000.png" in found


FORMATS = "AVIF BLP BMP DDS DIB EPS GIF ICNS ICO IM JPEG JPEG2000 MPO MSP PCX PNG PPM QOI SGI SPIDER TGA TIFF WEBP XBM"


class TestMutation:
    @pytest.mark.parametrize("format", FORMATS.split())
    def test_damaged_image_is_read_or_named(self, tmp_path: Path, format: str) -> None:
        self.mutate(tmp_path, format, 25)

    @pytest.mark.slow
    @pytest.mark.parametrize("format", FORMATS.split())
    def test_damaged_image_is_read_or_named_however_many_there_are(self, tmp_path: Path, format: str) -> None:
        self.mutate(tmp_path, format, 400 if format == "ICNS" else 2000)

    def mutate(self, folder: Path, format: str, count: int) -> None:
        """Bytes changed, cut out, put in or cut off, nearer to the beginning than to the end."""
        random, exif, image = Random(format), Image.Exif(), Image.radial_gradient("L").resize((20, 16))
        exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = 6, "maker"
        file, path = io.BytesIO(), folder / "damaged"
        mode = {"XBM": "1", "MSP": "1", "BLP": "P", "GIF": "P", "SPIDER": "F"}.get(format, "RGB")
        image.convert("RGB").convert(mode).save(file, format, exif=exif)
        for _ in range(count):
            made = bytearray(file.getvalue())
            for _ in range(random.choice([1, 1, 2, 5])):
                start = random.choice([random.randrange(len(made)), random.randrange(min(len(made), 120))])
                extreme = random.choice([bytes(4), b"\xff" * 4, b"\x01", b"", random.randbytes(3)])
                made[start : start + random.choice([0, len(extreme), 16])] = extreme
            path.write_bytes(made[: random.choice([len(made)] * 4 + [len(made) // 2])])
            for read in (lambda: size_of(path), lambda: read_image(path, 3, (12, 9))):
                found = made_of(read)
                assert isinstance(found, tuple | np.ndarray) or str(path) in found


class TestFuzz:
    @pytest.fixture(scope="class")
    def digits(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A folder whose training images are replaced by what is tried."""
        folder = tmp_path_factory.mktemp("digits")
        write_idx(folder / "MNIST/raw", np.random.default_rng(0), train=3)
        return folder

    @settings(max_examples=500, deadline=None)
    @given(st.binary(max_size=300))
    def test_any_bytes_are_an_idx_file_or_are_refused(self, digits: Path, content: bytes) -> None:
        self.parse(digits, content)

    @settings(max_examples=500, deadline=None)
    @given(st.sampled_from([1, 3]), st.lists(st.integers(0, 2**32 - 1), max_size=4), st.binary(max_size=60))
    def test_any_announced_size_is_held_against_the_file(
        self, digits: Path, rank: int, shape: list[int], pixels: bytes
    ) -> None:
        self.parse(digits, b"\x00\x00\x08" + bytes([rank]) + struct.pack(f">{len(shape)}I", *shape) + pixels)

    @settings(max_examples=200, deadline=None)
    @given(st.integers(0, 3000), st.binary(max_size=8), st.integers(0, 3000))
    def test_a_damaged_file_is_refused_or_has_its_size(self, digits: Path, place: int, noise: bytes, end: int) -> None:
        whole = idx_bytes(np.zeros((3, 28, 28)))
        self.parse(digits, (whole[:place] + noise + whole[place + len(noise) :])[: end or None])

    def test_sizes_whose_product_overflows_are_refused(self, digits: Path) -> None:
        shape = (2**16, 2**24, 2**24)  # 2 ** 64 bytes, which as a 64-bit number are none
        self.parse(digits, idx_bytes(np.zeros((0, 0, 0)))[:4] + struct.pack(">3I", *shape) + bytes(16))

    def parse(self, digits: Path, content: bytes) -> None:
        (digits / "MNIST/raw/train-images-idx3-ubyte").write_bytes(content)
        peaks = []
        for _ in range(2):  # Python's table of interned strings may grow meanwhile by megabytes: pathlib fills it
            tracemalloc.start()
            found = made_of(lambda: read_torchvision(digits, "full", "MNIST", verify=False, download=False))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            if peaks[-1] < 2 * len(content) + 100_000:
                break
        assert min(peaks) < 2 * len(content) + 100_000
        if isinstance(found, str):
            assert found.startswith(f"refused: {digits}/MNIST/raw")
            assert "Delete it" in found or "Delete its files" in found
        else:
            assert found.train.images.shape == (3, 1, 28, 28)
            assert len(content) == 16 + 3 * 28 * 28

    @pytest.fixture(scope="class")
    def plain(self) -> dict[str, Any]:
        return compose("train", []).values

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def test_any_value_of_any_key_is_taken_or_refused(self, plain: dict[str, Any], data: st.DataObject) -> None:
        config: Any = deepcopy(plain)
        place = config
        while True:
            key = data.draw(st.sampled_from(sorted(place)))
            if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
                break
            place = place[key]
        text = st.text(max_size=8)
        values = st.none() | st.booleans() | st.integers() | st.floats() | text | st.lists(st.integers(), max_size=3)
        place[data.draw(st.sampled_from([key, "made_up"]))] = data.draw(
            values | st.dictionaries(text, text, max_size=2)
        )
        found = made_of(lambda: check(config, TrainConfig))
        assert isinstance(found, TrainConfig) or len(found) > 20

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(
            st.text(max_size=12)
            | st.builds(
                "{}{}={}".format,
                st.sampled_from(["", "+", "++", "~"]),
                st.sampled_from(["seed", "model", "dataset.std", "optimizer.lr", "trainer", "hydra.run.dir", "resume"]),
                st.text(max_size=10),
            ),
            max_size=3,
        )
    )
    def test_any_words_on_the_command_line_end_in_a_config_or_a_sentence(self, words: list[str]) -> None:
        words = [word for word in words if not word.startswith("-")]

        def composed() -> list[TrainConfig]:
            asked = declared(quoted(words, False, TrainConfig))
            return [check(compose("train", job).values, TrainConfig) for job in grid(asked, several=False)]

        assert made_of(composed)
