"""A finished run as one page that needs no network, and its pictures."""

from __future__ import annotations

import base64
import sys
from datetime import date
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader
from matplotlib.figure import Figure

from src.config.check import as_yaml
from src.config.files import write_text
from src.data.images import Splits
from src.model.answers import Answers
from src.model.layers import first_filters
from src.model.predictor import Predictor
from src.results.figures import canvas, curves, images, scores, summary
from src.results.outcome import Outcome
from src.results.screen import describe_origin

NAME, PICTURES = "report.html", "report"
DPI = 150
MISTAKES = 20
LOOKED_INTO = 6  # right answers, and as many wrong ones


class Picture(NamedTuple):
    """`alt` says in words what is to be seen."""

    name: str
    title: str
    alt: str
    figure: Figure


def save(folder: Path, predictor: Predictor, answers: Answers, outcome: Outcome) -> None:
    """Write `summary.png`, `report.html` and `report/*.png` into the folder of a run.

    Args:
        answers: to the test images, or to the validation images where there was no test.
        outcome: the content of results.json.
    """
    dataset = outcome.dataset
    summary.save_summary(folder, predictor, answers, outcome)
    pictures = draw(folder, predictor, answers)
    place = folder / PICTURES
    if place.is_symlink():  # a stranger's, to who knows where
        place.unlink()
    place.mkdir(exist_ok=True)
    for old in place.glob("*.png"):  # of a network that had others
        old.unlink()
    for picture in pictures:
        canvas.save(picture.figure, place / f"{picture.name}.png")
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    environment.filters["percent"] = lambda part: "-" if part is None else f"{part:.1%}"
    page = environment.get_template("page.html").render(
        title=f"{outcome.model} on {dataset.test_set}",
        outcome=outcome,
        scored=f"{len(answers):,} {describe_origin(dataset.name, dataset.source)}",
        headlines=headlines(outcome, answers),
        pictures=[(picture, embedded(place / f"{picture.name}.png")) for picture in pictures],
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
        print(
            f"warning: the report was not written: {error}. `python -m src.report {folder}` tries again.",
            file=sys.stderr,
        )


def headlines(outcome: Outcome, answers: Answers) -> list[tuple[str, str, str]]:
    """What is measured, its value, and a word on it."""
    train, val = outcome.train, outcome.val
    wrong = int((~answers.right).sum())
    found = [(f"{answers.split} accuracy", f"{answers.accuracy:.2%}", f"{wrong:,} of {len(answers):,} wrong")]
    if outcome.test:
        found.append(("test loss", _loss(outcome.test.loss), "cross-entropy, nats an image"))
    if val.accuracy is not None:
        found.append(("validation accuracy", f"{val.accuracy:.2%}", "of the best epoch"))
    found.append(("calibration error", f"{answers.calibration().error:.1%}", "distance of sure and right"))
    found.append(("training", f"{train.seconds:,.0f} s", f"{train.epochs} epochs of {train.images:,} images"))
    if train.images_per_second:
        found.append(("speed", f"{train.images_per_second:,.0f}", f"images/s, {outcome.device}"))
    found.append(("network", f"{outcome.parameters / 1e6:.1f} M", f"weights, {outcome.precision}"))
    return found


def draw(folder: Path, predictor: Predictor, answers: Answers) -> list[Picture]:
    """In the order of the page; what does not exist for this network or run is left out."""
    metrics = curves.read_curves(folder / "metrics.csv")
    wrong, right = answers.mistakes(MISTAKES), answers.successes(LOOKED_INTO)
    filters = first_filters(predictor.network)
    drawn = []
    if metrics:
        alt = "Accuracy and loss in training and validation, over the steps of the run."
        drawn.append(Picture("curves", "Learning curves", alt, canvas.blank(5, 4.6, DPI)))
        curves.draw_learning(drawn[-1].figure, metrics)
    alt = "How many images of each true class were given which answer."
    drawn.append(Picture("confusion", "Confusion matrix", alt, canvas.blank(5, 5, DPI)))
    scores.draw_confusion(drawn[-1].figure, answers)
    alt = "How often answers of each probability are right, and how many there are."
    drawn.append(Picture("calibration", "Calibration", alt, canvas.blank(5, 4.6, DPI)))
    scores.draw_calibration(drawn[-1].figure, answers)
    if len(wrong):
        alt = "Wrong answers with their probabilities, the most confident first."
        rows = -(-len(wrong) // 5)
        drawn.append(Picture("mistakes", "The most confident mistakes", alt, canvas.blank(5, 1.3 * rows, DPI)))
        images.draw_answers(drawn[-1].figure, answers, wrong, columns=5, sure=True)
    for name, title, places in (
        ("seen_right", "What spoke for its answer when it was right", right),
        ("seen_wrong", "What spoke for its answer when it was wrong", wrong[:LOOKED_INTO]),
    ):
        if len(places) and filters is not None:
            alt = "Images beside the same with the places that spoke for the answer (Grad-CAM) lit up."
            drawn.append(Picture(name, title, alt, canvas.blank(5, 1.58 * -(-len(places) // 2), DPI)))
            images.draw_saliency(drawn[-1].figure, predictor, answers, places)
    if filters is not None:
        alt = "The kernels of the first convolution."
        height = 0.46 * min(-(-len(filters) // 12), 3)
        drawn.append(Picture("filters", "What the first layer looks for", alt, canvas.blank(5, height, DPI)))
        images.draw_filters(drawn[-1].figure, filters, columns=12)
    return drawn


def embedded(path: Path) -> str:
    """A PNG as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _loss(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"  # results.json has no NaN
