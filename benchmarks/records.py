"""What one run on the leaderboard came to, as a file; every table is made of these."""

from __future__ import annotations

import argparse
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import project

RECORDS = Path(__file__).parent / "results" / "accuracy"
RUNS = Path("logs", "leaderboard")
Record = dict[str, Any]
ALIKE = ("data", "source", "images", "epochs", "precision", "scored_on", "scored_images")  # for every seed of a row


def path_of(record: Record) -> Path:
    """Where a record lies: a run again on the same machine takes its place."""
    machine = re.sub(r"[^a-z0-9]+", "-", record["machine"].lower()).strip("-")
    return RECORDS / record["row"] / f"{machine}-seed-{record['seed']}.json"


def here(facts: dict[str, Any], device: str) -> Record:
    """Where a record was made, from a run's results or from provenance; `device` is "cpu" or "cuda"."""
    machine = facts["machine"]
    return {
        "machine": machine["gpu"] if device == "cuda" else f"{machine['processor']}, {machine['cores']} cores",
        "threads": machine["threads"],
        "versions": facts["versions"],
        "git": facts["git"],
        "date": facts.get("date", datetime.now(UTC).date().isoformat()),
    }


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
