"""What is measured: two networks on images in the genuine formats of their data sets."""

import os
import pickle
import struct
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """A network with its data set, batch size and optimizer."""

    name: str
    model: str
    dataset: str
    batch_size: int
    optimizer: str
    channels: int
    loader_workers: int  # of the tutorial's loader

    def overrides(self, data: str, device: str) -> list[str]:
        """The command line of src.train, for files of any checksum: of CIFAR-10 by accept_any_checksum."""
        parts = f"dataset={self.dataset} model={self.model} optimizer={self.optimizer} batch_size={self.batch_size}"
        more = f"{parts} device={device} trainer.max_epochs=100000 dataset.source=full"
        own = {"mnist": "dataset.verify=false", "image_folder": f"{CUT}{self.loader_workers}"}.get(self.dataset, "")
        narrow = [f"model.{key}={value}" for key, value in NARROW.items()]
        return [*more.split(), *own.split(), *narrow, f"data_dir={data}"]


DRY = "BENCHMARK_DRY_RUN" in os.environ  # everything runs and nothing is measured: processes below it know, too
NARROW: dict[str, Any] = {"widths": [4] * 5, "hidden": 16} if DRY else {}
PHASES = ["training", "inference"]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
CASES = [
    Case("alexnet-128", "alexnet", "mnist", 2 if DRY else 128, "adamw", 1, 2),
    Case("alexnet_bn-64", "alexnet_bn", "cifar10", 64, "sgd", 3, 0),
    Case("alexnet_bn-128", "alexnet_bn", "cifar10", 128, "sgd", 3, 0),
]
PHOTOS = [Case(f"photos-{size}", "alexnet", "image_folder", size, "adamw", 3, CORES) for size in (128, 4)]
CUT = "dataset.in_memory=false dataset/augmentation=[random_resized_crop,flip] trainer.profiler=simple num_workers="


def accept_any_checksum() -> None:
    """Let torchvision's CIFAR10 read files of random pixels."""
    from torchvision.datasets import CIFAR10

    CIFAR10.train_list = [[f"data_batch_{number}", None] for number in range(1, 6)]
    CIFAR10.test_list = [["test_batch", None]]
    CIFAR10.meta = CIFAR10.meta | {"md5": None}


def write_mnist(folder: Path, count: int = 200 if DRY else 60_000, test: int = 20 if DRY else 10_000) -> None:
    """MNIST's four files, of random pixels: how fast they are does not depend on what they show."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, images in (("train", count), ("t10k", test)):
        for kind, shape, values in (("images-idx3", (images, 28, 28), 256), ("labels-idx1", (images,), 10)):
            header = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
            pixels = rng.integers(0, values, shape, dtype=np.uint8)
            (raw / f"{prefix}-{kind}-ubyte").write_bytes(header + pixels.tobytes())


def write_photos(folder: Path, sizes: list[int], distinct: int = 300) -> None:
    """For each size a folder of train/CLASS/ and test/CLASS/: links to a few parts of scikit-learn's photographs."""
    from PIL import Image
    from sklearn.datasets import load_sample_images  # type: ignore[import-untyped]

    folder.mkdir()
    files, rng = [folder / f"{number}.jpg" for number in range(distinct)], np.random.default_rng(0)
    for file, photo in zip(files, cycle(load_sample_images().images), strict=False):
        top, left = rng.integers([427 - 375 + 1, 640 - 500 + 1])
        Image.fromarray(photo[top : top + 375, left : left + 500]).save(file, quality=90)
    for size in sizes:
        for number in range(size + min(size // 2, 10_000)):
            path = folder / str(size) / ("train" if number < size else "test") / f"class{number % 10}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(files[number % distinct])


def write_cifar(folder: Path, count: int = 20 if DRY else 10_000) -> None:
    """CIFAR-10's seven files, of random pixels."""
    root = folder / "cifar-10-batches-py"
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        pixels = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        labels = [number % 10 for number in range(count)]
        (root / name).write_bytes(pickle.dumps({"data": pixels, "labels": labels}, protocol=2))
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (root / "batches.meta").write_bytes(pickle.dumps({"label_names": classes}, protocol=2))
