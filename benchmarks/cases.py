"""What is measured: two networks on images in the genuine formats of their data sets."""

from __future__ import annotations

import gzip
import pickle
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TEST_IMAGES = 10_000


@dataclass(frozen=True)
class Case:
    """A network with its data set, batch size and optimizer; `memory_passes` a parameter and optimizer step.

    AdamW reads weight, gradient and two moments and writes all but the gradient; SGD with momentum has one moment.
    """

    name: str
    model: str
    dataset: str
    batch_size: int
    optimizer: str
    channels: int
    loader_workers: int  # of the tutorial's loader
    memory_passes: int

    def overrides(self, data: str, device: str) -> list[str]:
        """The command line of src.train."""
        return [
            f"dataset={self.dataset}",
            f"model={self.model}",
            f"optimizer={self.optimizer}",
            f"batch_size={self.batch_size}",
            f"data_dir={data}",
            "dataset.md5=null",
            "dataset.source=full",
            f"device={device}",
            "trainer.max_epochs=100000",
        ]


CASES = [
    Case("alexnet-128", "alexnet", "mnist", 128, "adamw", 1, 2, 7),
    Case("alexnet_bn-64", "alexnet_bn", "cifar10", 64, "sgd", 3, 0, 5),
    Case("alexnet_bn-128", "alexnet_bn", "cifar10", 128, "sgd", 3, 0, 5),
]


def find(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def write_mnist(folder: Path, digits: Path | None, count: int = 60_000) -> None:
    """MNIST's four files: copied from `digits` where given, else made of as many random pixels."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, images in (("train", count), ("t10k", TEST_IMAGES)):
        for kind, shape in (("images-idx3", (images, 28, 28)), ("labels-idx1", (images,))):
            name = f"{prefix}-{kind}-ubyte"
            if digits is not None:
                _copy(digits / "MNIST" / "raw", name, raw)
                continue
            pixels = rng.integers(0, 10 if kind[0] == "l" else 256, shape, dtype=np.uint8)
            header = struct.pack(">BBBB", 0, 0, 8, len(shape)) + struct.pack(f">{len(shape)}I", *shape)
            (raw / name).write_bytes(header + pixels.tobytes())


def write_cifar(folder: Path) -> None:
    """CIFAR-10's seven files, of random pixels: how fast they are does not depend on what they show."""
    root = folder / "cifar-10-batches-py"
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for name in names:
        pixels = rng.integers(0, 256, (10_000, 3072), dtype=np.uint8)
        labels = [number % 10 for number in range(10_000)]
        (root / name).write_bytes(pickle.dumps({"data": pixels, "labels": labels}, protocol=2))
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (root / "batches.meta").write_bytes(pickle.dumps({"label_names": classes}, protocol=2))


def _copy(source: Path, name: str, target: Path) -> None:
    if (source / name).exists():
        shutil.copy(source / name, target / name)
    else:
        (target / name).write_bytes(gzip.decompress((source / f"{name}.gz").read_bytes()))
