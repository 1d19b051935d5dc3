"""The rows of the leaderboard: what is run, how often, and on what kind of device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """A command that trains and scores once for each of `seeds`.

    Args:
        section: recipes, tutorials, mistakes or repeats.
        title: what the tables call it.
        quick: whether the short form has it.
        base: the corrected recipe's row that a mistake was added to.
        variables: the environment that the command begins with.
    """

    name: str
    section: str
    title: str
    command: str
    seeds: int = 3
    quick: bool = False
    base: str = ""
    variables: str = ""

    def shown(self, seed: int) -> str:
        """The command as a user types it."""
        seed_option = f"seed={seed}" if self.is_run else f"--seed {seed}"
        return f"{self.variables} python -m {self.command} {seed_option}".lstrip()

    def overrides(self, seed: int, data_dir: Path, folder: Path) -> list[str]:
        """Of a run of src.train: what it is told, with where its images and its results lie."""
        where = [f"dataset.source={self.source}", f"data_dir={data_dir}", f"hydra.run.dir={folder}"]
        return [*self.command.split()[1:], f"seed={seed}", *where]

    @property
    def is_run(self) -> bool:
        """Whether it is a run of src.train itself."""
        return self.command.startswith("src.train ")

    @property
    def on_gpu(self) -> bool:
        return "device=gpu" in self.command or self.name in ("published_mnist", "published_cifar10")

    @property
    def source(self) -> str:
        return "sample" if "experiment=quick" in self.command else "full"


def mistake(name: str, title: str, base: str, quick: bool = False) -> Row:
    return Row(name, "mistakes", title, f"benchmarks.mistakes {name}", quick=quick, base=base)


MNIST = "src.train experiment=mnist"
FASHION = "src.train experiment=fashion_mnist"
QUICK = "src.train experiment=quick"
JPEG = "src.train experiment=cifar10_jpeg"
FEW_DIGITS = "src.train experiment=mnist_tutorial dataset.limit=4000"
FEW_PHOTOS = "src.train experiment=cifar10_tutorial dataset=cifar10_jpeg dataset.limit=800"
PUBLISHED = "tutorial as published, but on fewer images"
SAME_IMAGES = "`mnist` on the same images, a tenth for validation"
AVERAGED = "no mistake: a step on the mean of every four batches"

ROWS = [
    Row("quick", "recipes", "`quick`", QUICK, quick=True),
    Row("mnist", "recipes", "`mnist`", MNIST, 1),
    Row("fashion_mnist", "recipes", "`fashion_mnist`", FASHION, 1),
    Row("cifar10_jpeg", "recipes", "`cifar10_jpeg`", JPEG, 1),
    Row("mnist_gpu", "recipes", "`mnist`", f"{MNIST} trainer.max_epochs=20 device=gpu", 5),
    Row("fashion_mnist_gpu", "recipes", "`fashion_mnist`", f"{FASHION} trainer.max_epochs=20 device=gpu", 5),
    Row("cifar10_jpeg_gpu", "recipes", "`cifar10_jpeg`", f"{JPEG} device=gpu", 5),
    Row("cifar10_gpu", "recipes", "`cifar10`", "src.train experiment=cifar10 device=gpu", 5),
    Row("published_mnist_4000", "tutorials", f"first {PUBLISHED}", "benchmarks.published mnist --images 4000"),
    Row("mnist_4000", "tutorials", SAME_IMAGES, f"{MNIST} dataset.limit=4000 trainer.max_epochs=3"),
    Row("mnist_tutorial", "tutorials", "`mnist_tutorial`", FEW_DIGITS, quick=True),
    Row(
        "published_cifar10_800",
        "tutorials",
        f"second {PUBLISHED}",
        "benchmarks.published cifar10 --jpeg --images 800",
        1,
    ),
    Row("cifar10_tutorial", "tutorials", "`cifar10_tutorial`", FEW_PHOTOS),
    Row("published_mnist", "tutorials", "first tutorial as published", "benchmarks.published mnist"),
    Row("published_cifar10", "tutorials", "second tutorial as published", "benchmarks.published cifar10"),
    mistake("no_shuffling", "no shuffling", "mnist_tutorial"),
    mistake(
        "thrown_away_batches", "gradients zeroed at each batch, a step on every fourth", "mnist_tutorial", quick=True
    ),
    Row(
        "averaged_batches",
        "mistakes",
        AVERAGED,
        f"{FEW_DIGITS} trainer.accumulate_grad_batches=4",
        base="mnist_tutorial",
    ),
    mistake("no_validation", "no validation: the last epoch's weights", "mnist_tutorial"),
    mistake("never_eval", "scored without evaluation mode", "cifar10_tutorial"),
    mistake("wrong_normalization", "test images normalized with ImageNet's statistics", "cifar10_tutorial"),
    Row("quick_again", "repeats", "the same again", QUICK, 1),
    Row("quick_one_thread", "repeats", "one thread", QUICK, 1, variables="OMP_NUM_THREADS=1"),
    Row("quick_float32", "repeats", "float32", f"{QUICK} precision=32-true", 1),
    Row("quick_gpu", "repeats", "a GPU", f"{QUICK} device=gpu", 1),
]
BY_NAME = {row.name: row for row in ROWS}
