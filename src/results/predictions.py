"""What a run answered to each image of its validation and test: its predictions.csv, by which runs are compared."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.errors import ParserError

from src.config.errors import UserError
from src.config.files import whole
from src.config.schema import PACKAGE
from src.results.intervals import DRAWS, Interval, bootstrap

if TYPE_CHECKING:
    from torchmetrics import Metric

    from src.model.answers import Answers

NAMES = ("predictions.csv", "predictions.csv.gz")  # compressed where there are many; pandas reads both
MANY = 20_000  # rows, which are up to 2 MB
LARGE = 10_000_000  # logits, of which a metric of the five likeliest classes takes half a second on two cores
AGAIN = f"again=RUN of {PACKAGE}.train makes it anew."
COLUMNS = ["split", "image", "label", "predicted", "probability", "probability_of_label"]
AS_TEXT: Any = {  # a class may be called NA
    "dtype": dict.fromkeys(COLUMNS[:4], str),
    "na_values": {name: ["nan"] for name in COLUMNS[4:]},
    "keep_default_na": False,
    "encoding_errors": "surrogateescape",
}


def table(answers: Answers) -> pd.DataFrame:
    """A row for each image: its file in the data set's folder, or its number there, the names of its class and of the
    one answered, and the probabilities of both."""
    names, of_label = pd.Series(answers.classes), answers.probabilities.gather(1, answers.labels[:, None])
    columns = {
        "split": answers.split,
        "image": answers.images.names(),
        "label": names[answers.labels.tolist()].array,
        "predicted": names[answers.predicted.tolist()].array,
        "probability": answers.confidence.tolist(),
        "probability_of_label": of_label.flatten().tolist(),
    }
    return pd.DataFrame(columns, columns=COLUMNS)


def write(folder: Path, parts: Sequence[pd.DataFrame]) -> None:
    """In place of what stands there."""
    rows = pd.concat(parts)
    path, other = (folder / name for name in (NAMES if len(rows) <= MANY else NAMES[::-1]))
    form: Any = {"method": "gzip", "mtime": 1} if path.suffix == ".gz" else None
    with whole(path) as temporary:
        rows.to_csv(
            temporary,
            index=False,
            na_rep="nan",
            mode="x",
            float_format="%.6g",
            compression=form,
            errors="surrogateescape",
        )
    other.unlink(missing_ok=True)


def add(folder: Path, tested: Answers | None) -> None:
    """Write what the test was answered below what the best validation was."""
    parts = [table(tested)] if tested else []
    with suppress(UserError):  # nothing was validated, or by a run of before
        kept = read(folder)
        parts.insert(0, kept[kept.split == "validation"])
    if parts:
        write(folder, parts)


def read(folder: Path) -> pd.DataFrame:
    """Raises UserError if a run has none, as those of before, or a damaged one."""
    for path in (folder / name for name in NAMES):
        try:
            rows = pd.read_csv(path, **AS_TEXT)[COLUMNS]
            return rows.astype(dict.fromkeys(COLUMNS[4:], float))
        except FileNotFoundError:
            continue
        except (OSError, EOFError, ValueError, KeyError, ParserError, zlib.error) as error:
            raise UserError(f"{path} is damaged, or holds no predictions. {AGAIN}") from error
    raise UserError(f"{folder} has no {NAMES[0]}, which runs of before did not keep. {AGAIN}")


def intervals(answers: Answers, metrics: Mapping[str, Metric]) -> dict[str, Interval | None]:
    """Of the loss and of each of the metrics, over the images; of metrics by fewer draws, but 200, where each takes
    seconds."""
    from torch.nn.functional import cross_entropy  # who only reads what was answered need not wait for torch

    losses = cross_entropy(answers.logits.double(), answers.labels, reduction="none").numpy()
    scores: dict[str, Callable[[np.ndarray], float]] = {"loss": lambda drawn: float(losses[drawn].mean())}
    scores |= {name: partial(_measured, metric, answers) for name, metric in metrics.items()}
    draws = max(DRAWS // max(answers.logits.numel() // LARGE, 1), 200)
    return {name: bootstrap(score, len(answers), DRAWS if name == "loss" else draws) for name, score in scores.items()}


def _measured(metric: Metric, answers: Answers, drawn: np.ndarray) -> float:
    return float(metric(answers.logits[drawn], answers.labels[drawn]))
