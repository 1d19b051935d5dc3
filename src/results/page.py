"""A finished run as one page that needs no network, and its pictures."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src.config.check import as_yaml
from src.config.errors import UserError
from src.config.files import write_text
from src.config.groups import command
from src.data.images import Splits
from src.model.answers import Answers
from src.model.build import images_of
from src.model.predictor import Predictor, first_filters
from src.model.saved import load
from src.results.figures import canvas, curves, scores, tiles
from src.results.html import render
from src.results.intervals import percent, proportion
from src.results.outcome import Outcome
from src.results.screen import advice, describe_origin, digits, epochs, show_note

NAME = "report.html"
MISTAKES, LOOKED_INTO = 20, 6  # wrong answers; right answers, and as many wrong ones, with Grad-CAM
SEEN = "Each image beside the same with the regions that counted most for the answer in orange."
NOISE = "After minutes of training they still look like noise."
PICTURES = {  # in the order of the page: title, and what is to be seen, in words
    "curves": ("Learning curves", "Accuracy and loss in training and validation, over the steps of the run."),
    "confusion": ("Confusion matrix", "How many images of each true class were given which answer."),
    "calibration": ("Calibration", "How often answers of each probability are right, and how many there are."),
    "mistakes": ("The most confident mistakes", "Wrong answers with their probabilities, the most confident first."),
    "seen_right": ("Grad-CAM: where the network looked when it was right", SEEN),
    "seen_wrong": ("Grad-CAM: where the network looked when it was wrong", SEEN),
    "filters": ("What the first layer looks for", f"The kernels of the first convolution. {NOISE}"),
}


def save(folder: Path, predictor: Predictor, answers: Answers, outcome: Outcome) -> None:
    """Write `summary.png`, `report.html` and `report/*.png` of a run that answered its test so, or its validation."""
    learned = curves.read_curves(folder / "metrics.csv"), why_above(predictor)
    kernels = first_filters(predictor.network)
    save_summary(folder, learned, kernels, answers, outcome)
    page = render(
        "page.html",
        title=f"{outcome.model} on {outcome.dataset.test_set}",
        outcome=outcome,
        scored=f"{len(answers):,} {describe_origin(outcome.dataset.name, outcome.dataset.source)}",
        advice=advice(outcome, predictor.config),
        headlines=headlines(outcome, answers),
        pictures=save_pictures(folder / "report", learned, kernels, predictor, answers),
        classes=answers.per_class(),
        split=answers.split,
        config=as_yaml(predictor.config),
        written=date.today().isoformat(),
    )
    write_text(folder / NAME, page)


def save_pictures(
    folder: Path, learned: tuple[curves.Curves, str], kernels: Tensor, predictor: Predictor, answers: Answers
) -> list[tuple[str, str, str]]:
    """Write `*.png`, and give title, words and base64 of each; what this network or run lacks is left out."""
    if folder.is_symlink():  # a stranger's, to who knows where
        folder.unlink()
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):  # of a network that had others
        old.unlink()
    wrong, looked_into = answers.mistakes(MISTAKES), LOOKED_INTO * bool(len(kernels))
    drawn: dict[str, tuple[float, Callable[..., None], tuple[Any, ...]]] = {  # inches of height, where it is 5 wide
        "curves": (4.6 * bool(learned[0]), curves.draw_learning, learned),
        "confusion": (5, scores.draw_confusion, (answers,)),
        "calibration": (4.6, scores.draw_calibration, (answers,)),
        "mistakes": (1.3 * -(-len(wrong) // 5), tiles.draw_answers, (answers, wrong, 5, True)),
        "filters": (0.46 * min(-(-len(kernels) // 12), 3), tiles.draw_filters, (kernels, 12)),
    }
    for name, seen in ("seen_right", answers.successes(looked_into)), ("seen_wrong", wrong[:looked_into]):
        drawn[name] = 1.58 * -(-len(seen) // 2), tiles.draw_saliency, (predictor, answers, seen)
    shown = []
    for name, words in PICTURES.items():
        height, draw, subject = drawn[name]
        if height:
            figure, path = canvas.blank(5, height, 150), folder / f"{name}.png"
            draw(figure, *subject)
            canvas.save(figure, path)
            shown.append((*words, base64.b64encode(path.read_bytes()).decode()))
    return shown


def why_above(predictor: Predictor) -> str:
    """Why training loss may lie above validation loss, with what this run uses in training alone."""
    config, layers = predictor.config, predictor.network.modules()
    uses = {
        "label smoothing": config.loss.arguments().get("label_smoothing"),
        "dropout": any(isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p for layer in layers),
        "augmentation": config.dataset.augmentation.components(),
    }
    names = ", ".join(name for name, used in uses.items() if used)
    return f"Training loss is the epoch's mean{names and ', with '}{names}:\nit may lie above validation loss."


def save_summary(
    folder: Path, learned: tuple[curves.Curves, str], kernels: Tensor, answers: Answers, outcome: Outcome
) -> None:
    """Write `summary.png`: the curves, images with what was answered, the first layer's filters."""
    figure = canvas.blank(11, 6.2)
    score, title = outcome.test or outcome.val, f"{outcome.model} on {outcome.dataset.test_set}"
    if score.accuracy is not None:
        title += f", {score.images:,} {answers.split} images: accuracy {score.verdict}"
    figure.suptitle(title, fontsize=13, parse_math=False)
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.25))  # type: ignore[misc]
    curves.draw_learning(left, *learned)
    top, bottom = right.subfigures(2, 1, height_ratios=(1.6, 1))
    top.suptitle(f"{answers.split} images and answers", fontsize=10)
    tiles.draw_answers(top, answers, torch.linspace(0, len(answers) - 1, 24).round().long().unique())
    if len(kernels):
        bottom.suptitle(f"filters of the first convolution\n{NOISE}", fontsize=10)
        tiles.draw_filters(bottom, kernels)
    canvas.save(figure, folder / "summary.png")


def try_to_save(folder: Path, predictor: Predictor, answers: Answers | None, splits: Splits, outcome: Outcome) -> None:
    """The same for a run that has just ended, which no picture is to make a failed one."""
    try:
        save(folder, predictor, answers or _answer(predictor, splits, outcome), outcome)
    except Exception as error:  # of any network's layers, of the disk, of matplotlib
        again = f"`{command('report', str(folder))}` tries again."
        print(f"warning: the report was not written: {error}. {again}", file=sys.stderr)


def save_again(folder: Path, data_dir: str | None) -> Path:
    """Have a finished run's checkpoint answer the images again that it was scored on, and write its page; UserError if
    its records are damaged, or its images are not to be had."""
    outcome = Outcome.read(folder)
    saved = load(folder / outcome.checkpoint)
    predictor, splits = Predictor.of(saved), images_of(saved, data_dir)
    show_note(predictor.hardware.note)
    answers = _answer(predictor, splits, outcome)
    try:
        save(folder, predictor, answers, outcome)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / 'metrics.csv'} is damaged ({error}).") from error
    return folder / NAME


def _answer(predictor: Predictor, splits: Splits, outcome: Outcome) -> Answers:
    """Of the images that were scored: those of the test, or of the validation where that was left out."""
    scored, split = (splits.test, "test") if outcome.test else (splits.valid, "validation")
    count = (outcome.test or outcome.val).images
    if count < len(scored):  # trainer.limit_test_batches
        scored = scored[list(range(count))]
    return predictor.answer(scored, split, predictor.config.batch_size)


def headlines(outcome: Outcome, answers: Answers) -> list[tuple[str, str, str]]:
    """What is measured, its value, and a word on it."""
    train, val, test = outcome.train, outcome.val, outcome.test
    wrong, rate, count = int((~answers.right).sum()), train.images_per_second, outcome.parameters
    accuracy = percent(answers.accuracy, interval=proportion(answers.accuracy * len(answers), len(answers)))
    scores, ends = ({"loss": test.loss} | test.metrics, test.intervals) if test else (val.metrics, {})
    cards = [
        _card(f"{answers.split} accuracy", accuracy, f"{wrong:,} of {len(answers):,} wrong"),
        *(_card(f"{answers.split} {name}", digits(score, ends.get(name))) for name, score in scores.items()),
        _card("validation accuracy", val.verdict, "of the best epoch") if val.accuracy is not None and test else None,
        ("calibration error", percent(answers.calibration().error), "confidence against accuracy"),
        ("training", f"{train.seconds:,.0f} s", f"{epochs(train.epochs)} of {train.images:,} images"),
        ("speed", f"{rate:,.0f}", f"images/s, {outcome.device}") if rate else None,
        ("network", f"{count:,}" if count < 1e6 else f"{count / 1e6:.1f} M", f"parameters, {outcome.precision}"),
    ]
    return [card for card in cards if card]


def _card(title: str, score: str, word: str = "") -> tuple[str, str, str]:
    """With the interval of the score below it, if it has one."""
    value, _, interval = score.partition(" (")
    return title, value, ", ".join(filter(None, [interval.partition(")")[0], word]))
