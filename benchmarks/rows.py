"""The rows of the leaderboard: what is run, how often, and on what kind of device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Section = Literal["recipes", "tutorials", "mistakes", "repeats"]


@dataclass(frozen=True)
class Row:
    """A command that trains and scores once for each of `seeds`; `quick` says whether the short form has it.

    `title` is what the tables call it, `variables` the environment that the command begins with.
    """

    name: str
    section: Section
    title: str
    command: str
    seeds: int = 3
    quick: bool = False
    device: Literal["cpu", "gpu"] = "cpu"
    source: Literal["full", "sample"] = "full"
    variables: tuple[str, ...] = ()

    def shown(self, seed: int) -> str:
        """The command as a user types it."""
        return " ".join(
            [*self.variables, "python -m", self.command, f"seed={seed}" if self.is_run else f"--seed {seed}"]
        )

    def overrides(self, seed: int, data_dir: Path, folder: Path) -> list[str]:
        """Of a run of src.train: what it is told, with where its images and its results lie."""
        where = [f"dataset.source={self.source}", f"data_dir={data_dir}", f"hydra.run.dir={folder}"]
        return [*self.command.split()[1:], f"seed={seed}", *where]

    @property
    def is_run(self) -> bool:
        """Whether it is a run of src.train itself."""
        return self.command.startswith("src.train ")


LONG = "trainer.max_epochs=20 device=gpu"
FEW_DIGITS = "experiment=mnist_tutorial dataset.limit=4000"
FEW_PHOTOS = "experiment=cifar10_tutorial dataset=cifar10_jpeg dataset.limit=800"

ROWS = [
    Row("quick", "recipes", "`quick`", "src.train experiment=quick", quick=True, source="sample"),
    Row("mnist", "recipes", "`mnist`", "src.train experiment=mnist", seeds=1),
    Row("fashion_mnist", "recipes", "`fashion_mnist`", "src.train experiment=fashion_mnist", seeds=1),
    Row("cifar10_jpeg", "recipes", "`cifar10_jpeg`", "src.train experiment=cifar10_jpeg", seeds=1),
    Row("mnist_gpu", "recipes", "`mnist`", f"src.train experiment=mnist {LONG}", 5, device="gpu"),
    Row(
        "fashion_mnist_gpu", "recipes", "`fashion_mnist`", f"src.train experiment=fashion_mnist {LONG}", 5, device="gpu"
    ),
    Row("cifar10_gpu", "recipes", "`cifar10`", "src.train experiment=cifar10 device=gpu", 5, device="gpu"),
    Row(
        "published_mnist_4000",
        "tutorials",
        "first tutorial as published, but on fewer images",
        "benchmarks.published mnist --images 4000",
    ),
    Row(
        "mnist_4000",
        "tutorials",
        "`mnist` on the same images, a tenth for validation",
        "src.train experiment=mnist dataset.limit=4000 trainer.max_epochs=3",
    ),
    Row("mnist_tutorial", "tutorials", "`mnist_tutorial`", f"src.train {FEW_DIGITS}", quick=True),
    Row(
        "published_cifar10_800",
        "tutorials",
        "second tutorial as published, but on fewer images",
        "benchmarks.published cifar10 --jpeg --images 800",
        seeds=1,
    ),
    Row("cifar10_tutorial", "tutorials", "`cifar10_tutorial`", f"src.train {FEW_PHOTOS}"),
    Row("published_mnist", "tutorials", "first tutorial as published", "benchmarks.published mnist", device="gpu"),
    Row("published_cifar10", "tutorials", "second tutorial as published", "benchmarks.published cifar10", device="gpu"),
    Row("no_shuffling", "mistakes", "no shuffling", "benchmarks.mistakes no_shuffling"),
    Row(
        "thrown_away_batches",
        "mistakes",
        "gradients zeroed at each batch, a step on every fourth",
        "benchmarks.mistakes thrown_away_batches",
        quick=True,
    ),
    Row(
        "averaged_batches",
        "mistakes",
        "no mistake: a step on the mean of every four batches",
        f"src.train {FEW_DIGITS} trainer.accumulate_grad_batches=4",
    ),
    Row("no_validation", "mistakes", "no validation: the last epoch's weights", "benchmarks.mistakes no_validation"),
    Row("never_eval", "mistakes", "scored without evaluation mode", "benchmarks.mistakes never_eval"),
    Row(
        "wrong_normalization",
        "mistakes",
        "test images normalized with ImageNet's statistics",
        "benchmarks.mistakes wrong_normalization",
    ),
    Row("quick_again", "repeats", "the same again", "src.train experiment=quick", 1, source="sample"),
    Row(
        "quick_one_thread",
        "repeats",
        "one thread",
        "src.train experiment=quick",
        1,
        source="sample",
        variables=("OMP_NUM_THREADS=1",),
    ),
    Row("quick_float32", "repeats", "float32", "src.train experiment=quick precision=32-true", 1, source="sample"),
    Row("quick_gpu", "repeats", "a GPU", "src.train experiment=quick device=gpu", 1, device="gpu", source="sample"),
]

# the corrected recipe that each change was made to
BASES = {
    "averaged_batches": "mnist_tutorial",
    "no_shuffling": "mnist_tutorial",
    "thrown_away_batches": "mnist_tutorial",
    "no_validation": "mnist_tutorial",
    "never_eval": "cifar10_tutorial",
    "wrong_normalization": "cifar10_tutorial",
}


def find(name: str) -> Row:
    return next(row for row in ROWS if row.name == name)
