"""What a run shows before and after training; 80 columns are enough, and a pipe gets plain text."""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from textwrap import fill
from typing import Any

from lightning.pytorch.utilities.model_summary.model_summary import ModelSummary
from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from src.config.folder import RUNS
from src.config.groups import FOLDERS, command
from src.config.paths import for_shell, option
from src.config.schema import PACKAGE, TrainConfig
from src.data.images import Splits
from src.model.answers import Answers
from src.model.hardware import Hardware
from src.model.init import Loaded
from src.results.intervals import Interval, percent, shown
from src.results.outcome import Outcome, described, duration

# two comments of a recipe: its command, and "# SCORE; SECONDS; SEEDS; DATE; MACHINE, PRECISION"
PURPOSES = {"train": "train", "val": "validate", "test": "test"}  # of each split
MEASURED = re.compile(r"^# python -m \S+ (.+)\n# (.+?); ([\d,]+) s; .+; (.+), .+$", re.MULTILINE)


def console() -> Console:
    """Shows every word as it is, for a folder may be named `[red]` or `:smile:`; what is bold is a Text."""
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=not sys.stdout.isatty())


def data_table(*columns: Column | str, **options: Any) -> Table:
    style = box.SIMPLE_HEAD if sys.stdout.isatty() else None
    return Table(*columns, box=style, title_justify="left", **options)


def show_facts(facts: Mapping[str, str | Text | None], title: str | None = None) -> None:
    """A name and its value in each row, but for those that have none."""
    table = data_table("", Column(overflow="fold"), show_header=False, title=title)  # a path stays whole
    for name, value in facts.items():
        if value:
            table.add_row(name, value)
    console().print(table)


def show_note(text: str | None, word: str = "NOTE") -> None:
    """What a reader must not miss, if there is anything."""
    if text:
        console().print(Text.assemble((f"{word:<6}", "bold yellow"), f" {text}"))


def show_start(
    config: TrainConfig,
    splits: Splits,
    used: Mapping[str, int],
    hardware: Hardware,
    folder: Path,
    summary: ModelSummary,
    goes_on_at: str | None,
    asked: str = "",
) -> None:
    """Data, how many images of each split are used, device, precision, where it writes, and the network's layers."""
    name, count = config.dataset.name, len(splits.train)
    counts = [f"{_part(used[split], len(splits.parts[split]))} to {purpose}" for split, purpose in PURPOSES.items()]
    if splits.origin == "sample":
        total = count + len(splits.valid) + len(splits.test)
        genuine = f"this run is an {name.upper()} score. dataset.source=full takes no sample."
        show_note(f"These are {total:,} packaged digits, not all of {name}: no score of\n       {genuine}", "SAMPLE")
    show_note(splits.note)
    show_note(hardware.note)
    show_facts(
        {
            "data": f"{name}, {len(splits.classes)} classes, {_sizes(splits, config.dataset.image_size)}",
            "images": ", ".join(counts),
            "photos": splits.held,
            "device": f"{hardware.accelerator}, {hardware.precision}",
            "recipe": measured(asked),
            "goes on at": goes_on_at,
            "not trained": ", ".join(config.init.freeze),
        }
    )
    console().print(f"  writes to   {near(folder)}", soft_wrap=True)  # whole, to be copied
    table, names = data_table("layer", "output shape", Column("parameters", justify="right")), summary.layer_names
    layers = zip(names, summary.layer_types, summary.out_sizes, summary.param_nums, strict=True)
    for layer, kind, sides, parameters in layers:
        if layer.startswith("network.") and not any(other.startswith(f"{layer}.") for other in names):
            shape = " x ".join(map(str, sides[1:])) if isinstance(sides, list) else "?"
            table.add_row(kind, shape, f"{parameters:,}" if parameters else "")
    table.add_section()
    table.add_row("in all", "", f"{summary.total_parameters:,}", style="bold")
    console().print(table)


def _sizes(splits: Splits, side: int | None) -> str:
    """Of the images, as they lie in memory and as the network sees them."""
    _, channels, height, width = splits.train.shape
    if splits.fitted:
        return f"{splits.fitted}, {width}x{height}, then resized to {side}x{side}"
    return f"{channels}x{height}x{width} {'resized' if height == width else 'stretched'} to {side}x{side}"


def show_loaded(loaded: Loaded | None) -> None:
    """What became of each layer as weights were loaded; one row for neighbours that fared alike."""
    if loaded:
        table = data_table("layers", "", "weights")
        for outcome, run in groupby(loaded.layers, loaded.layers.get):
            first, *more = run
            table.add_row(f"{first} to {more[-1]}" if more else first, f"{len(more) + 1}", outcome)
        console().print(table)


def measured(command: str) -> str | None:
    """What the recipe of a command has reached and taken, as the comments at the head of its file say."""
    words, found = set(shlex.split(command)), None
    names = [word.partition("=")[2] for word in words if word.startswith("experiment=")]
    files = [folder / "experiment" / f"{name}.yaml" for folder in FOLDERS for name in names]
    for text in (file.read_text(encoding="utf-8") for file in files if file.is_file()):
        for asked, score, seconds, machine in MEASURED.findall(text):
            if words.issuperset(asked.split()):
                took = duration(float(seconds.replace(",", "")))
                found = f"{asked} reached {score}, in {took} on {machine}"
    return found


def advice(outcome: Outcome, config: TrainConfig) -> str | None:
    """What to try after a run that is no better than guessing."""
    score = outcome.test or outcome.val
    if not score.is_guessing:
        return None
    train, few = outcome.train, f" And {score.images} images decide little." if score.images < 50 else ""
    steps = train.epochs * math.ceil(train.images / (config.batch_size * config.devices))
    if (train.accuracy or 0) > (score.chance or 1) + 0.2:
        tries = f"It has learned the training images by heart (accuracy {percent(train.accuracy or 0)}). "
        tries += "More images, more augmentation or a smaller network (model.widths, model.hidden) may help."
    elif steps < 100 and config.batch_size > 8:
        tries = f"{steps} steps are few: train again with batch_size=8, or more epochs (trainer.max_epochs)."
    else:
        warm_up = "" if config.scheduler.name == "one_cycle" else "scheduler=one_cycle (a warm-up), "
        tries = f"Train again with optimizer.lr={config.optimizer.lr / 10:g} (a lower rate), {warm_up}or "
        tries += f"trainer.max_epochs={2 * config.trainer.max_epochs} (more epochs)."
    return f"Accuracy is {score.verdict}. {tries}{few}"


def show_end(outcome: Outcome, folder: Path, config: TrainConfig, handwritten: bool = False) -> None:
    """The table that a run ends with, and what to do next."""
    test, train, run = outcome.test, outcome.train, near(folder)
    rate, name, best = train.images_per_second, outcome.monitor.name, outcome.monitor.value
    validated = best is not None and (percent if name == "val/acc" else digits)(best)
    facts: dict[str, str | Text | None] = {
        "validation": outcome.val.verdict,
        "test": f"left out (test=false); {PACKAGE}.eval makes up for it",
    }
    if test:
        facts = {"test accuracy": Text(test.verdict, "bold")}
        scores = {"loss": test.loss} | test.metrics
        facts |= {f"test {name}": digits(value, test.intervals.get(name)) for name, value in scores.items()}
        facts["tested on"] = f"{test.images:,} {describe_origin(outcome.dataset.name, outcome.dataset.source)}"
    facts |= {
        "checkpoint": f"best by {described(name)} ({validated})" if validated else "last, for none was validated",
        "training": f"{epochs(train.epochs)} in {train.seconds:.0f} s" + (f", {rate:,.0f} images/s" if rate else ""),
    }
    show_facts(facts, "Result")
    if broken := {split: count for split, count in outcome.broken.items() if count}:
        counts = ", ".join(f"{count:,} to {PURPOSES[split]}" for split, count in broken.items())
        show_note(f"Broken images, for which others of their class were taken: {counts}.")
    if said := advice(outcome, config):
        show_note(fill(said, 73).replace("\n", "\n       "))
    there = {path.name for path in folder.iterdir()}
    runs, which = RUNS if RUNS in run.parents else run, option("run", run)
    if runs == RUNS and len(command("demo", which)) > 66:
        which = "run=last"
    lines = {
        "run": str(run),
        "report": "report.html" in there and f"{run / 'report.html'}",
        "curves": "tensorboard" in there and f"tensorboard --logdir {for_shell(str(runs))}",
        "profile": "profile" in there and f"{run}/profile, *.json opens in https://ui.perfetto.dev",
        "evaluate": command("eval", which),
        "draw on it" if handwritten else "try it": command("demo", which),
        "": which == "run=last" and "(last is this run until a newer one has ended)",
    }
    for name, line in lines.items():
        if line:  # whole, to be copied
            console().print(f"  {name + ':' * bool(name):<11} {line}", soft_wrap=True)


def show_confusion(answers: Answers) -> None:
    """The accuracy of each class and the confusion matrix, where the classes are few enough for the screen."""
    if len(answers.classes) > 20:
        return
    width = max(len(str(int(answers.matrix.max()))), 3)  # so narrow that ten classes fit into 80 columns
    fits = 26 + len(answers.classes) * (width + 2) <= console().width
    title = f"accuracy in each true class{', and how often each class was answered' if fits else ''}"
    names = ["accuracy", *(" ".join(name.split())[:width] for name in answers.classes if fits)]
    table = data_table("true", *(Column(name, justify="right", no_wrap=True) for name in names), title=title)
    for number, (scores, row) in enumerate(zip(answers.per_class(), answers.matrix.tolist(), strict=True)):
        cells: list[str | Text] = [str(count) if count else "." for count in row]
        cells[number] = Text(str(row[number]), "bold")
        name = " ".join(scores.name.split())[:14]
        table.add_row(name, "-" if scores.recall is None else percent(scores.recall), *(cells if fits else []))
    console().print(table)


def epochs(count: float) -> str:
    return "1 epoch" if count == 1 else f"{round(count, 1):g} epochs"


def _part(count: int, total: int) -> str:
    return f"{count:,}" if count == total else f"{count:,} of {total:,}"


def near(path: Path) -> Path:
    """The path as seen from here, where it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def describe_origin(name: str, origin: str) -> str:
    """Whose images were scored, as the score must say it."""
    return f"packaged {name} digits, not the official test set" if origin == "sample" else f"images of {name}"


def digits(value: float | None, interval: Interval | None = None) -> str:
    return "none" if value is None else shown(value, interval)  # results.json has no NaN
