"""What one run on the leaderboard came to, as a file; every table is made of these."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from src.config.cli import end
from src.config.errors import UserError
from src.config.files import write_json
from src.model import provenance

RECORDS = Path(__file__).parent / "results" / "accuracy"
RUNS = Path("logs", "leaderboard")
Record = dict[str, Any]
ALIKE = ("data", "source", "images", "epochs", "precision", "scored_on", "scored_images")  # for every seed of a row


def path_of(record: Record) -> Path:
    """Where a record lies: a run again on the same machine takes its place."""
    return RECORDS / record["row"] / f"{slug(record['machine'])}-seed-{record['seed']}.json"


def slug(machine: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")


def name_of(machine: dict[str, Any], device: str) -> str:
    """What did the work: the GPU, or the processor with its cores."""
    return machine["gpu"] if device == "cuda" else f"{machine['processor']}, {machine['cores']} cores"


def here(device: str, precision: str) -> Record:
    """What a record says of this machine, the versions and the revision; `device` is "cpu" or "cuda"."""
    machine, revision = provenance.machine().model_dump(), provenance.git_revision()
    return {
        "machine": name_of(machine, device),
        "threads": machine["threads"],
        "precision": precision,
        "versions": provenance.versions(),
        "git": revision and revision.model_dump(),
        "date": datetime.now(UTC).date().isoformat(),
    }


@contextmanager
def explained() -> Iterator[None]:
    """Say a wrong request in a sentence, and leave with exit code 2."""
    try:
        yield
    except UserError as error:
        end(error, 2)


def of_run(folder: Path) -> Record:
    """The record of a run of src.train, from what its results.json says."""
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    dataset, machine = found["dataset"], found["machine"]
    return {
        "seed": found["seed"],
        "data": dataset["name"],
        "source": dataset["source"],
        "images": found["train"]["images"],
        "epochs": found["train"]["epochs"],
        "scored_on": dataset["test_set"],
        "scored_images": found["test"]["images"],
        "accuracy": found["test"]["accuracy"],
        "val_accuracy": found["val"]["accuracy"],
        "val_images": found["val"]["images"],
        "seconds": found["train"]["seconds"],
        "interruptions": found["train"]["interruptions"],
        "machine": name_of(machine, found["device"]),
        "threads": machine["threads"],
        "precision": found["precision"],
        "versions": found["versions"],
        "git": found["git"],
        "date": found["date"],
    }


def save(record: Record) -> None:
    """Write a record, and remove those of other seeds on this machine that were run otherwise: they make no mean."""
    path = path_of(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)
    for other in load():
        same_row = other["row"] == record["row"] and other["machine"] == record["machine"]
        if same_row and any(other[key] != record[key] for key in ALIKE):
            path_of(other).unlink()


def load() -> list[Record]:
    """All records, by row, machine and seed."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in RECORDS.glob("*/*.json")]
    return sorted(found, key=lambda record: (record["row"], record["machine"], record["seed"]))
