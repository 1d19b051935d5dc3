"""What a run came to: its results.json."""

from __future__ import annotations

import math
import shlex
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError, computed_field

from src.config.errors import UserError
from src.config.files import write_json
from src.config.folder import RESULTS, finished_runs
from src.config.naming import changed
from src.config.schema import Section, Values
from src.model.provenance import Machine, Revision, machine
from src.results.intervals import Interval, percent, proportion

if TYPE_CHECKING:
    from src.model.saved import About


class Dataset(Section, extra="ignore"):  # as in all parts: keys of a later version are passed over
    name: str
    source: str
    test_set: str
    sha256: str


class Training(Section, extra="ignore"):
    """Of all sessions, but for `checkpoint_seconds`, the last one's wait."""

    seconds: float
    epochs: int
    interruptions: int = 0
    checkpoint_seconds: float = 0.0
    images: int
    images_per_second: float | None = None
    accuracy: float | None = None  # of the last epoch


class Monitor(Section, extra="ignore"):
    """What the best checkpoint is the best of, and what that came to; null where nothing was validated."""

    name: str
    mode: Literal["max", "min"]
    value: float | None


class Validation(Section, extra="ignore"):
    """Of the best checkpoint; `metrics` are those that the config asks for besides, and `chance` is the accuracy of
    the one answer that is right most often."""

    accuracy: float | None  # null where nothing was validated
    images: int
    sha256: str | None = None  # of the images and labels of the split; null in records of before
    metrics: dict[str, float | None] = Field({})
    chance: float | None = None  # null in records of before

    @computed_field  # type: ignore[prop-decorator]
    @property
    def accuracy_interval(self) -> Interval | None:
        """95 %, for as many other images of the same kind."""
        return None if self.accuracy is None else proportion(self.accuracy * self.images, self.images)

    @property
    def is_guessing(self) -> bool:
        """Not above the 95 % interval of what guessing comes to on so many images."""
        if self.accuracy is None or self.chance is None:
            return False
        return self.accuracy <= self.chance + 1.96 * math.sqrt(self.chance * (1 - self.chance) / self.images)

    @property
    def verdict(self) -> str:
        """The accuracy, and what it is worth."""
        guessing = f", no better than guessing ({percent(self.chance or 0)})" if self.is_guessing else ""
        return "none" if self.accuracy is None else percent(self.accuracy, interval=self.accuracy_interval) + guessing


class Score(Validation):
    """`intervals` are of the loss and of the metrics, as accuracy_interval is; null where one was no number."""

    accuracy: float
    loss: float | None  # null where it was no number
    intervals: dict[str, Interval | None] = Field({})


def described(monitor: str) -> str:
    """What was monitored, in words."""
    name = monitor.removeprefix("val/")
    return f"validation {'accuracy' if name == 'acc' else name}"


def in_words(monitor: str, value: float | None) -> str:
    """What a validation came to."""
    if value is None:
        return "nothing was validated"
    return f"{described(monitor)} {percent(value) if monitor == 'val/acc' else f'{value:.4f}'}"


def duration(seconds: float) -> str:
    """In the unit of which there are two or more."""
    if math.isnan(seconds):
        return "-"
    unit, size = ("h", 3600) if seconds >= 7200 else ("min", 60) if seconds >= 120 else ("s", 1)
    return f"{seconds / size:.0f} {unit}"


class Outcome(Section, extra="ignore"):
    """`checkpoint` is the one that was scored, relative to the run's folder; `command` runs the run again; `broken` is
    how many images of each split couldn't be read, if others were to be taken for them."""

    dataset: Dataset
    model: str
    optimizer: str
    seed: int
    precision: str
    device: str
    parameters: int
    train: Training
    monitor: Monitor
    val: Validation
    test: Score | None
    broken: dict[str, int] = Field({})
    checkpoint: str = Field(pattern=r"^checkpoints/\w[\w.]*$")  # a folder may be a stranger's
    command: str = ""
    date: str = ""
    versions: dict[str, str] = Field({})
    machine: Machine
    git: Revision | None = None
    init_sha256: str | None = None  # of the file of init.weights

    @classmethod
    def of(cls, about: About, **measured: Any) -> Outcome:
        """From what the checkpoints say of themselves, and the fields that only the finished run knows."""
        sha256 = about.images.sha256
        return cls(
            dataset=Dataset(name=about.dataset, source=about.source, test_set=about.test_set, sha256=sha256),
            model=about.config["model"]["name"],
            optimizer=about.config["optimizer"]["name"],
            seed=about.config["seed"],
            precision=about.precision,
            command=about.command,
            date=datetime.now(UTC).date().isoformat(),
            versions=about.versions,
            machine=machine(),
            git=about.git,
            init_sha256=about.init_sha256,
            **measured,
        )

    @classmethod
    def read(cls, folder: Path) -> Outcome:
        """Raises UserError if this folder of a run has no results.json, or a damaged one."""
        path = folder / RESULTS
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UserError(f"{path} can't be read: {error.strerror}.") from error
        except ValidationError as error:
            detail = error.errors()[0]
            reason = ": ".join(map(str, (*detail["loc"][-1:], detail["msg"])))
            raise UserError(f"{path} is damaged, or no record of a run: {reason}.") from error

    @classmethod
    def of_checkpoint(cls, path: Path) -> Outcome | None:
        """That of the run which was scored with this checkpoint, if it lies in one."""
        with suppress(UserError):
            outcome = cls.read(path.absolute().parent.parent)
            return outcome if Path(outcome.checkpoint).name == path.name else None
        return None

    @property
    def options(self) -> Values:
        """What its command changes of the defaults."""
        return changed(shlex.split(self.command)) if self.command else {}

    @property
    def changed(self) -> str:
        """Likewise, of those of its data set, in words."""
        return ", ".join(f"{key}={value}" for key, value in self.options.items() if key != "dataset") or "nothing"

    def write(self, folder: Path) -> None:
        write_json(folder / RESULTS, self.model_dump())


def best_of_newest(most: int = 10) -> tuple[Path, int]:
    """The checkpoint of the best by validation of the newest finished runs on the same images, cut alike, and how many
    were compared; UserError if there is none."""
    outcomes = {folder: Outcome.read(folder) for folder in finished_runs()}
    alike = {folder: (outcome.dataset, outcome.monitor.name) for folder, outcome in outcomes.items()}
    newest = next(iter(outcomes))
    compared = [folder for folder in outcomes if alike[folder] == alike[newest]][:most]
    sign = -1 if outcomes[newest].monitor.mode == "min" else 1
    values = [outcomes[folder].monitor.value for folder in compared]
    ranks = [-math.inf if value is None else sign * value for value in values]
    best = compared[ranks.index(max(ranks))]
    return best / outcomes[best].checkpoint, len(compared)
