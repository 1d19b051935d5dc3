"""Tiny images in the genuine on-disk formats, and the front doors called in this process."""

from __future__ import annotations

import gc
import gzip
import hashlib
import json
import os
import pickle
import struct
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

# two test processes share two cores; set before torch is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from filelock import FileLock
from hydra.core.config_store import ConfigStore
from PIL import Image

from tests.processes import Command

ROOT = Path(__file__).parent.parent
KEPT = "callbacks.keep_optimizer=true"  # for those that compare its state
NARROW = [
    "dataset.image_size=67",
    "model.widths=[4,4,4,4,4]",
    "model.hidden=16",
    "batch_size=8",
    "device=cpu",
    "report=false",
    "callbacks=none",
]
SHORT = ["trainer.max_epochs=1", *NARROW]


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def read_folder(root: Path, source: str = "auto", folder: str = ".", channels: Any = 3, **options: Any) -> Any:
    """A folder of images as a run has it, held in memory unless the options of a dataset say otherwise."""
    from src.data import image_folder
    from src.data.memory import settled

    defaults = {"fit": "crop", "stored_size": 256, "in_memory": True, "on_broken": "stop", "checksum": "names"}
    config: Any = SimpleNamespace(**defaults | options)
    return settled(image_folder.read_folder(root, source, folder, channels), config)


def read_image(path: Path, channels: int, size: tuple[int, int] | None, fit: Any = "crop") -> np.ndarray:
    """The pixels of a file, uint8 (C, H, W)."""
    from src.data.decoding import decode

    return decode(path, channels, size, fit).numpy()


def pytest_collection_finish() -> None:
    """What is imported by now stays: each garbage collection would search its million objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs write into logs/ of an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def door(in_tmp: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Outcome]]:
    """`door("train", "seed=3")` does what `python -m src.train seed=3` does."""
    import src.demo
    import src.eval
    import src.export
    import src.predict
    import src.report
    import src.train
    import src.tune

    doors = (src.train, src.eval, src.demo, src.export, src.tune, src.report, src.predict)
    mains = {module.__name__.rpartition(".")[2]: module.main for module in doors}

    def call(name: str, *arguments: str) -> Outcome:
        capfd.readouterr()
        return Outcome(exit_code(mains[name], name, *arguments), *capfd.readouterr())

    before = dict(os.environ)
    yield call
    os.environ.clear()  # of what Lightning leaves there after trainer=ddp
    os.environ.update(before)
    ConfigStore.instance().repo.pop("model", None)


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn as ever, but none is turned into pixels, which takes longest; their files are of one pixel."""
    monkeypatch.setattr("src.results.figures.canvas.save", lambda figure, path: Image.new("L", (1, 1)).save(path))


def train_in(folder: Path, *words: str) -> Path:
    """The folder of a run that this process trains in `folder`: for a fixture that many tests only read, or copy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train(*words, "hydra.run.dir=r") == 0
    return folder / "r"


@pytest.fixture
def images_folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images", classes=2, count=30)


# a small network, one epoch: at a higher rate and in smaller batches than the recipe's it learns most digits
QUICK = ["experiment=quick", "trainer.max_epochs=1", "optimizer.lr=1e-3", "batch_size=32"]
QUICK += ["model.widths=[8,16,24,16,16]", "model.hidden=64", "device=cpu"]


Once = Callable[[str, Callable[[], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """`once("name", make)` is a folder in which `make` was called once for all processes of the tests; not to be
    written to."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, make: Callable[[], object]) -> Path:
        folder, done = root / name, root / f"{name}.made"
        with FileLock(root / f"{name}.lock"), pytest.MonkeyPatch.context() as patch:
            if not done.exists():
                folder.mkdir()
                patch.chdir(folder)
                make()
                done.touch()
        return folder

    return made


def train(*arguments: str) -> int:
    """The exit code of `python -m src.train` with them, in this process; for what a test begins with."""
    from src.train import main

    before = dict(os.environ)
    try:
        return exit_code(main, "train", *arguments)
    finally:
        os.environ.clear()
        os.environ.update(before)


def exit_code(main: Callable[[], object], name: str, *arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [f"src/{name}.py", *arguments])
        try:
            main()
        except SystemExit as exit_:
            return int(exit_.code or 0)
    return 0


@pytest.fixture(scope="session")
def trained(once: Once) -> Path:
    """The folder of a finished run on the packaged digits that got most of them right; not to be written to."""

    def make() -> None:
        assert train(*QUICK, "hydra.run.dir=logs/run", f"data_dir={Path.cwd()}") == 0

    return once("trained", make) / "logs" / "run"


def only_run(folder: Path) -> Path:
    """The one run below logs/."""
    runs = [path for path in (folder / "logs").iterdir() if path.is_dir()]
    assert len(runs) == 1, runs
    return runs[0]


def results_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


def write_folder(root: Path, classes: int, count: int, size: int = 12, mode: str = "RGB") -> Path:
    """A folder of images that a network can tell apart: class k has its own brightness."""
    rng = np.random.default_rng(1)
    for label in range(classes):
        place = root / f"class{label}"
        place.mkdir(parents=True)
        for number in range(count):
            level = 40 + 170 * label // max(classes - 1, 1)
            pixels = rng.integers(level - 30, level + 30, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(place / f"{number:03}.png")
    return root


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(
    folder: Path,
    rng: np.random.Generator,
    train: int = 60,
    test: int = 20,
    gz: bool = False,
    prefixes: tuple[str, str] = ("train", "t10k"),
) -> Path:
    """The four files of MNIST, with `train` and `test` images in them."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, count in zip(prefixes, (train, test), strict=True):
        arrays = {
            "images-idx3": rng.integers(0, 256, (count, 28, 28)),
            "labels-idx1": np.arange(count) % 10,
        }
        for name, array in arrays.items():
            content = idx_bytes(array)
            path = folder / f"{prefix}-{name}-ubyte"
            if gz:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)
    return folder


CIFAR_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def cifar_batch(pixels: np.ndarray, labels: list[int], key: str = "labels") -> bytes:
    """A batch as Python 2 and an old numpy pickled it: byte strings, protocol 2, numpy.core."""
    content = {"batch_label": b"made", key: labels, "data": pixels, "filenames": [b"x.png"] * len(labels)}
    return pickle.dumps(content, protocol=2).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def write_cifar(folder: Path, rng: np.random.Generator, count: int = 20) -> Path:
    """CIFAR-10's seven files, each batch with `count` images; for a folder cifar-100-python, CIFAR-100's three."""
    folder.mkdir(parents=True)
    fine = folder.name == "cifar-100-python"
    batches = ["train", "test"] if fine else [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    classes = 100 if fine else 10
    for name in batches:
        pixels = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        labels = [number % classes for number in range(count)]
        (folder / name).write_bytes(cifar_batch(pixels, labels, "fine_labels" if fine else "labels"))
    names = (
        {"fine_label_names": [f"class{number}" for number in range(100)]} if fine else {"label_names": CIFAR_CLASSES}
    )
    (folder / ("meta" if fine else "batches.meta")).write_bytes(pickle.dumps(names, protocol=2))
    return folder


def pack_cifar(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    return archive


def write_svhn(folder: Path, rng: np.random.Generator, train: int = 60, test: int = 20) -> None:
    """SVHN's two MATLAB files; the digit 0 has label 10."""
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("test", test)):
        pixels = rng.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        labels = (np.arange(count) % 10 + 1).astype(np.uint8)[:, None]
        savemat(folder / f"{name}_32x32.mat", {"X": pixels, "y": labels})


def write_published(data_dir: Path, dataset: str, rng: np.random.Generator, gz: bool = False) -> Path:
    """A data set of torchvision's in its genuine files, with 60 or 100 training images."""
    if dataset == "SVHN":
        write_svhn(data_dir, rng)
    elif dataset.startswith("CIFAR"):
        write_cifar(data_dir / ("cifar-100-python" if dataset == "CIFAR100" else "cifar-10-batches-py"), rng)
    else:
        emnist = dataset == "EMNIST"
        prefixes = ("emnist-balanced-train", "emnist-balanced-test") if emnist else ("train", "t10k")
        write_idx(data_dir / dataset / "raw", rng, gz=gz, prefixes=prefixes)
    return data_dir


def md5_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def trust(monkeypatch: pytest.MonkeyPatch, dataset: str, data_dir: Path) -> None:
    """Have the made files below `data_dir` taken for the published ones: torchvision knows their checksums."""
    from torchvision import datasets

    from src.data import readers

    cls: Any = getattr(datasets, dataset)
    if dataset == "SVHN":
        rows = {
            part: [url, name, md5_of(data_dir / name)]
            for part, (url, name, _) in cls.split_list.items()
            if part != "extra"
        }
        monkeypatch.setattr(cls, "split_list", rows)
    elif dataset.startswith("CIFAR"):
        folder = data_dir / cls.base_folder
        for key in ("train_list", "test_list"):
            monkeypatch.setattr(cls, key, [[name, md5_of(folder / name)] for name, _ in getattr(cls, key)])
        monkeypatch.setattr(cls, "meta", {**cls.meta, "md5": md5_of(folder / cls.meta["filename"])})
    else:
        raw = data_dir / dataset / "raw"
        for name in [name for name in readers.PLAIN_MD5 if name.startswith(f"{dataset}/")]:
            monkeypatch.setitem(readers.PLAIN_MD5, name, md5_of(data_dir / name))
        packed = [(name, md5_of(raw / name) if (raw / name).exists() else md5) for name, md5 in cls.resources]
        monkeypatch.setattr(cls, "resources", packed)


def write_results(
    run: Path,
    value: float,
    seconds: float = 60.0,
    monitor: str = "val/acc",
    mode: str = "max",
    chance: float | None = None,
    test: bool = True,
    seed: int = 1,
    sha256: str | None = None,
    right: np.ndarray | None = None,
) -> Path:
    """The results.json of a made run that came to this value of what it monitors, and to the accuracy 0.5 in test; with
    which validation images it answered `right`, bool (N,), its predictions.csv too."""
    images = 8 if right is None else len(right)
    accuracy = value if monitor == "val/acc" else 0.25
    content: dict[str, Any] = {
        "dataset": {"name": "made", "source": "full", "test_set": "made", "sha256": ""},
        **dict.fromkeys(("model", "optimizer", "precision", "device"), "made"),
        "command": f"command of {run.name}",
        "checkpoint": "checkpoints/best.ckpt",
        "seed": seed,
        "parameters": 2_500_000,
        "train": {"seconds": seconds, "epochs": 3, "images": 10 * images},
        "monitor": {"name": monitor, "mode": mode, "value": value},
        "val": {"accuracy": accuracy, "images": images, "chance": chance, "sha256": sha256},
        "test": {"accuracy": 0.5, "loss": 1.0, "images": 8, "chance": chance} if test else None,
        "machine": {"system": "", "processor": "", "cores": 1, "threads": 1, "gpu": None},
    }
    run.mkdir(parents=True, exist_ok=True)
    (run / "results.json").write_text(json.dumps(content))
    if right is not None:
        rows = (f"validation,{number},a,{'ba'[answer]},1,1" for number, answer in enumerate(right.tolist()))
        head = "split,image,label,predicted,probability,probability_of_label"
        (run / "predictions.csv").write_text("\n".join([head, *rows]))
    return run


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str] | Command, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
