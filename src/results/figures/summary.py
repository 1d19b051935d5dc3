"""A run on one picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from src.model.answers import Answers
from src.model.layers import first_filters
from src.results.figures.canvas import blank, save
from src.results.figures.curves import draw_learning, read_curves
from src.results.figures.images import draw_answers, draw_filters

if TYPE_CHECKING:
    from src.model.predictor import Predictor
    from src.results.outcome import Outcome

SHOWN = 24  # test images


def save_summary(folder: Path, predictor: Predictor, answers: Answers, outcome: Outcome) -> None:
    """Write `summary.png`: the curves, images with what was answered, the first layer's filters."""
    figure = blank(11, 6.2)
    score = outcome.test or outcome.val
    right = "" if score.accuracy is None else f": {score.accuracy:.2%} of {score.images:,} {answers.split}"
    right += " images right" if right else ""
    figure.suptitle(f"{outcome.model} on {outcome.dataset.test_set}{right}", fontsize=13, parse_math=False)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.25))  # type: ignore[misc]
    draw_learning(left, read_curves(folder / "metrics.csv"))
    top, bottom = right.subfigures(2, 1, height_ratios=(1.6, 1))
    top.suptitle(f"{answers.split} images and answers", fontsize=10)
    draw_answers(top, answers, torch.linspace(0, len(answers) - 1, SHOWN).round().long().unique())
    if (filters := first_filters(predictor.network)) is not None:
        bottom.suptitle("filters of the first convolution", fontsize=10)
        draw_filters(bottom, filters)
    save(figure, folder / "summary.png")
