"""A finished run as one page that needs no network, and its pictures."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader

from src.config.check import as_yaml
from src.config.errors import UserError
from src.config.files import write_text
from src.data.images import Splits
from src.model.answers import Answers
from src.model.build import images_of
from src.model.predictor import Predictor, first_filters
from src.model.saved import load
from src.results.figures import canvas, curves, images, scores, summary
from src.results.outcome import Outcome
from src.results.screen import describe_origin, in_nats, show_note

NAME = "report.html"
MISTAKES, LOOKED_INTO = 20, 6  # wrong answers; right answers, and as many wrong ones, with Grad-CAM


class Picture(NamedTuple):
    name: str
    title: str
    alt: str  # what is to be seen, in words
    height: float  # inches, where it is 5 wide
    draw: Callable[[canvas.Drawing], None]


def save(folder: Path, predictor: Predictor, answers: Answers, outcome: Outcome) -> None:
    """Write `summary.png`, `report.html` and `report/*.png` into the folder of a run whose test, or validation where
    there was none, was answered so."""
    dataset, pictures = outcome.dataset, folder / "report"
    summary.save_summary(folder, predictor, answers, outcome)
    if pictures.is_symlink():  # a stranger's, to who knows where
        pictures.unlink()
    pictures.mkdir(exist_ok=True)
    for old in pictures.glob("*.png"):  # of a network that had others
        old.unlink()
    shown = list_pictures(folder, predictor, answers)
    for picture in shown:
        figure = canvas.blank(5, picture.height, 150)
        picture.draw(figure)
        canvas.save(figure, pictures / f"{picture.name}.png")
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    environment.filters["percent"] = lambda share: "-" if share is None else f"{share:.1%}"
    page = environment.get_template("page.html").render(
        title=f"{outcome.model} on {dataset.test_set}",
        outcome=outcome,
        scored=f"{len(answers):,} {describe_origin(dataset.name, dataset.source)}",
        headlines=headlines(outcome, answers),
        pictures=[(picture, base64.b64encode((pictures / f"{picture.name}.png").read_bytes())) for picture in shown],
        classes=answers.per_class(),
        split=answers.split,
        config=as_yaml(predictor.config),
        written=date.today().isoformat(),
    )
    write_text(folder / NAME, page)


def try_to_save(folder: Path, predictor: Predictor, answers: Answers | None, splits: Splits, outcome: Outcome) -> None:
    """The same for a run that has just ended, which no picture is to make a failed one."""
    try:
        answers = answers or predictor.answer(splits.valid, "validation", predictor.config.batch_size)
        save(folder, predictor, answers, outcome)
    except Exception as error:  # of any network's layers, of the disk, of matplotlib
        again = f"`python -m src.report {folder}` tries again."
        print(f"warning: the report was not written: {error}. {again}", file=sys.stderr)


def save_again(folder: Path, data_dir: str | None) -> Path:
    """Have a finished run's checkpoint answer the images again that it was scored on, and write its page.

    Raises UserError if its records are damaged, or its images are not to be had.
    """
    outcome = Outcome.read(folder)
    saved = load(folder / "checkpoints" / Path(outcome.checkpoint).name)  # a stranger's can name no other file
    predictor, splits = Predictor.of(saved), images_of(saved, data_dir)
    show_note(predictor.hardware.note)
    scored, split = (splits.test, "test") if outcome.test else (splits.valid, "validation")
    if outcome.test and outcome.test.images < len(scored):  # trainer.limit_test_batches
        scored = scored[list(range(outcome.test.images))]
    answers = predictor.answer(scored, split, saved.config.batch_size)
    try:
        save(folder, predictor, answers, outcome)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / 'metrics.csv'} is damaged ({error}).") from error
    return folder / NAME


def headlines(outcome: Outcome, answers: Answers) -> list[tuple[str, str, str]]:
    """What is measured, its value, and a word on it."""
    train, val, test = outcome.train, outcome.val, outcome.test
    wrong, rate = int((~answers.right).sum()), train.images_per_second
    cards = [
        (f"{answers.split} accuracy", f"{answers.accuracy:.2%}", f"{wrong:,} of {len(answers):,} wrong"),
        ("test loss", in_nats(test.loss), "cross-entropy, nats an image") if test else None,
        None if val.accuracy is None else ("validation accuracy", f"{val.accuracy:.2%}", "of the best epoch"),
        ("calibration error", f"{answers.calibration().error:.1%}", "distance of sure and right"),
        ("training", f"{train.seconds:,.0f} s", f"{train.epochs} epochs of {train.images:,} images"),
        ("speed", f"{rate:,.0f}", f"images/s, {outcome.device}") if rate else None,
        ("network", f"{outcome.parameters / 1e6:.1f} M", f"weights, {outcome.precision}"),
    ]
    return [card for card in cards if card]


def list_pictures(folder: Path, predictor: Predictor, answers: Answers) -> list[Picture]:
    """In the order of the page; what does not exist for this network or run is left out."""
    metrics, filters = curves.read_curves(folder / "metrics.csv"), first_filters(predictor.network)
    wrong, right = answers.mistakes(MISTAKES), answers.successes(LOOKED_INTO)
    pictures = []

    def add(height: float, name: str, title: str, alt: str, draw: Callable[..., None], *args: object) -> None:
        pictures.append(Picture(name, title, alt, height, lambda figure: draw(figure, *args)))

    if metrics:
        alt = "Accuracy and loss in training and validation, over the steps of the run."
        add(4.6, "curves", "Learning curves", alt, curves.draw_learning, metrics)
    alt = "How many images of each true class were given which answer."
    add(5, "confusion", "Confusion matrix", alt, scores.draw_confusion, answers)
    alt = "How often answers of each probability are right, and how many there are."
    add(4.6, "calibration", "Calibration", alt, scores.draw_calibration, answers)
    if len(wrong):
        alt, height = "Wrong answers with their probabilities, the most confident first.", 1.3 * -(-len(wrong) // 5)
        add(height, "mistakes", "The most confident mistakes", alt, images.draw_answers, answers, wrong, 5, True)
    alt = "Images beside the same with the regions that spoke for the answer (Grad-CAM) lit up."
    for word, indices in (("right", right), ("wrong", wrong[:LOOKED_INTO])):
        if len(indices) and filters is not None:
            title, height = f"What spoke for its answer when it was {word}", 1.58 * -(-len(indices) // 2)
            add(height, f"seen_{word}", title, alt, images.draw_saliency, predictor, answers, indices)
    if filters is not None:
        alt, height = "The kernels of the first convolution.", 0.46 * min(-(-len(filters) // 12), 3)
        add(height, "filters", "What the first layer looks for", alt, images.draw_filters, filters, 12)
    return pictures
