"""What a run shows before and after training; 80 columns are enough, and a pipe gets plain text."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.model_summary.model_summary import ModelSummary
from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from src.config.groups import command
from src.config.paths import for_shell, option
from src.config.schema import PACKAGE, TrainConfig
from src.data.images import Splits
from src.model.answers import Answers
from src.model.hardware import Hardware
from src.model.init import Loaded
from src.results.outcome import Outcome, described


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
) -> None:
    """Data, how many images of each split are used, device, precision, where it writes, and the network's layers."""
    name, size, (count, channels, height, width) = config.dataset.name, config.dataset.image_size, splits.train.shape
    purposes = {"train": "train", "val": "validate", "test": "test"}
    counts = [f"{_part(used[split], len(splits.named(split)))} to {purpose}" for split, purpose in purposes.items()]
    if splits.origin == "sample":
        total = count + len(splits.valid) + len(splits.test)
        genuine = f"this run is an {name.upper()} score. dataset.source=full takes no sample."
        show_note(f"These are {total:,} packaged digits, not all of {name}: no score of\n       {genuine}", "SAMPLE")
    show_note(splits.note)
    show_note(hardware.note)
    show_facts(
        {
            "data": f"{name}, {len(splits.classes)} classes, {channels}x{height}x{width} resized to {size}x{size}",
            "images": ", ".join(counts),
            "device": f"{hardware.accelerator}, {hardware.precision}",
            "writes to": str(near(folder)),
            "goes on at": goes_on_at,
            "not trained": ", ".join(config.init.freeze),
        }
    )
    table, names = data_table("layer", "output shape", Column("parameters", justify="right")), summary.layer_names
    layers = zip(names, summary.layer_types, summary.out_sizes, summary.param_nums, strict=True)
    for layer, kind, sides, parameters in layers:
        if layer.startswith("network.") and not any(other.startswith(f"{layer}.") for other in names):
            shape = " x ".join(map(str, sides[1:])) if isinstance(sides, list) else "?"
            table.add_row(kind, shape, f"{parameters:,}" if parameters else "")
    table.add_section()
    table.add_row("in all", "", f"{summary.total_parameters:,}", style="bold")
    console().print(table)


def show_loaded(loaded: Loaded | None) -> None:
    """What became of each layer as weights were loaded; one row for neighbours that fared alike."""
    if loaded:
        table = data_table("layers", "", "weights")
        for outcome, run in groupby(loaded.layers, loaded.layers.get):
            first, *more = run
            table.add_row(f"{first} to {more[-1]}" if more else first, f"{len(more) + 1}", outcome)
        console().print(table)


def show_end(outcome: Outcome, folder: Path) -> None:
    """The table that a run ends with."""
    test, train, best, run = outcome.test, outcome.train, outcome.val.accuracy, near(folder)
    rate = train.images_per_second
    validated, name = "" if best is None else f"{best:.2%}", outcome.monitor.name
    if name != "val/acc" and outcome.monitor.value is not None:
        validated = f"{outcome.monitor.value:.4f}"
    facts: dict[str, str | Text | None] = {"test": f"left out (test=false); {PACKAGE}.eval makes up for it"}
    if test:
        facts = {"test accuracy": Text(f"{test.accuracy:.2%}", "bold"), "test loss": digits(test.loss)}
        facts |= {f"test {name}": digits(value) for name, value in test.metrics.items()}
        facts["tested on"] = f"{test.images:,} {describe_origin(outcome.dataset.name, outcome.dataset.source)}"
    facts |= {
        "checkpoint": f"best by {described(name)} ({validated})" if validated else "last, for none was validated",
        "training": f"{_epochs(train.epochs)} in {train.seconds:.0f} s" + (f", {rate:,.0f} images/s" if rate else ""),
        "run": str(run),
    }
    show_facts(facts, "Result")
    checkpoint = option("checkpoint", run / outcome.checkpoint)
    there = {path.name for path in folder.iterdir()}
    lines = {
        "look at it": "report.html" in there and f"{run / 'report.html'}",
        "curves": "tensorboard" in there and f"tensorboard --logdir {for_shell(str(run))}",
        "profile": "profile" in there and f"{run}/profile, *.json opens in https://ui.perfetto.dev",
        "score it again": command("eval", checkpoint),
        "draw on it": command("demo", checkpoint),
    }
    for name, line in lines.items():
        if line:  # whole, to be copied
            console().print(f"  {name + ':':<15} {line}", soft_wrap=True)


def show_confusion(answers: Answers) -> None:
    """The accuracy of each class and the confusion matrix, where the classes are few enough for the screen."""
    if len(answers.classes) > 20:
        return
    width = max(len(str(int(answers.matrix.max()))), 3)  # so narrow that ten classes fit into 80 columns
    fits = 26 + len(answers.classes) * (width + 2) <= console().width
    title = f"right in each true class{', and the number of times that each class was answered' if fits else ''}"
    names = ["accuracy", *(" ".join(name.split())[:width] for name in answers.classes if fits)]
    table = data_table("true", *(Column(name, justify="right", no_wrap=True) for name in names), title=title)
    for number, (scores, row) in enumerate(zip(answers.per_class(), answers.matrix.tolist(), strict=True)):
        cells: list[str | Text] = [str(count) if count else "." for count in row]
        cells[number] = Text(str(row[number]), "bold")
        name = " ".join(scores.name.split())[:14]
        table.add_row(name, "-" if scores.recall is None else f"{scores.recall:.1%}", *(cells if fits else []))
    console().print(table)


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _part(count: int, total: int) -> str:
    return f"{count:,}" if count == total else f"{count:,} of {total:,}"


def near(path: Path) -> Path:
    """The path as seen from here, where it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def describe_origin(name: str, origin: str) -> str:
    """Whose images were scored, as the score must say it."""
    return f"packaged {name} digits, not the official test set" if origin == "sample" else f"images of {name}"


def digits(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"  # results.json has no NaN
