"""The rows of the leaderboard, which stand in rows.yaml, and what each run came to: every table is made of these."""

import argparse
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchmarks import project

RECORDS = Path(__file__).parent / "results" / "accuracy"
RUNS = Path("logs", "leaderboard")
Record = dict[str, Any]
ALIKE = ("data", "source", "images", "epochs", "precision", "scored_on", "scored_images")  # for every seed of a row


@dataclass(frozen=True)
class Row:
    """A command that trains and scores once for each of `seeds`, in about so many `seconds` on two cores or a `gpu`,
    in an environment that begins with its `variables`. A `section` is recipes, tutorials, mistakes or repeats; the
    tables call it by its `title`, and a mistake was added to the corrected recipe of the row `base`."""

    name: str
    section: str
    title: str
    command: str
    seeds: int
    seconds: float
    gpu: bool = False
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
    def source(self) -> str:
        return "sample" if re.search("experiment=(quick|tiny)", self.command) else "full"


ROWS = [Row(**row) for row in yaml.safe_load(Path(__file__).with_name("rows.yaml").read_text(encoding="utf-8"))]
BY_NAME = {row.name: row for row in ROWS}


def path_of(record: Record) -> Path:
    """Where a record lies: a run again on the same machine takes its place."""
    machine = re.sub(r"[^a-z0-9]+", "-", record["machine"].lower()).strip("-")
    return RECORDS / record["row"] / f"{machine}-seed-{record['seed']}.json"


def here(facts: dict[str, Any], device: str = "cuda") -> Record:
    """Where a record was made, from a run's results or from provenance, by "cuda", if there is one, or the "cpu"."""
    machine, date = facts["machine"], facts.get("date", datetime.now(UTC).date().isoformat())
    gpu, processor = machine["gpu"] if device == "cuda" else None, f"{machine['processor']}, {machine['cores']} cores"
    where = {"machine": gpu or processor, "threads": machine["threads"]}
    return where | {"versions": facts["versions"], "git": facts["git"], "date": date}


def of_run(folder: Path) -> Record:
    """The record of a run of src.train, from what its results.json says."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    dataset, train, val, test = (results[name] for name in ("dataset", "train", "val", "test"))
    record = {name: train[name] for name in ("images", "epochs", "seconds", "interruptions")}
    record |= {"seed": results["seed"], "precision": results["precision"]}
    record |= {"data": dataset["name"], "source": dataset["source"], "scored_on": dataset["test_set"]}
    record |= {"accuracy": test["accuracy"], "scored_images": test["images"]}
    record |= {"val_accuracy": val["accuracy"], "val_images": val["images"]}
    return record | here(results, results["device"])


def arguments(module: str, doc: str | None) -> argparse.ArgumentParser:
    """What every program that makes a record is told."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", description=doc)
    parser.add_argument("--seed", type=int, default=1, help="of the weights, dropout and order")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where the images lie")
    parser.add_argument("--out", type=Path, default=Path(f"{module}.json"), help="the file for what came of it")
    return parser


def save(record: Record) -> None:
    """Write a record, and remove those of other seeds on this machine that were run otherwise: they make no mean."""
    path = path_of(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    project.write_json(path, record)
    for other in load():
        same_row = other["row"] == record["row"] and other["machine"] == record["machine"]
        if same_row and any(other[key] != record[key] for key in ALIKE):
            path_of(other).unlink()


def load(folder: Path | None = None, pattern: str = "*/*.json") -> list[Record]:
    """All records, by row, machine and seed; or what else lies in `folder`."""
    paths = sorted((folder or RECORDS).glob(pattern))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def current() -> pd.DataFrame:
    """The records whose row still has the command that they were made by, a line each."""
    found = [record for record in load() if is_current(record)]
    return pd.DataFrame(found, columns=None if found else ["row", "machine", "seed", "accuracy", "seconds"])


def is_current(record: Record) -> bool:
    row = BY_NAME.get(record["row"])
    return row is not None and row.shown(record["seed"]) == record["command"]
