"""The rows of the leaderboard, which stand in rows.yaml: what is run, how often, and on what kind of device."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Row:
    """A command that trains and scores once for each of `seeds`, in an environment that begins with its `variables`.
    A `section` is recipes, tutorials, mistakes or repeats; the tables call it by its `title`, the short form has those
    that are `quick`, and a mistake was added to the corrected recipe of the row `base`."""

    name: str
    section: str
    title: str
    command: str
    seeds: int
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
        return "sample" if re.search("experiment=(quick|tiny)", self.command) else "full"


ROWS = [Row(**row) for row in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))]
BY_NAME = {row.name: row for row in ROWS}
