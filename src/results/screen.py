"""What a run shows before and after training; 80 columns are enough, and a pipe gets plain text."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.model_summary.model_summary import ModelSummary
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from src.config.schema import EvalConfig, ExportConfig, TrainConfig
from src.data.images import Splits
from src.model.hardware import Hardware
from src.results.outcome import Outcome

CONFUSION_CLASSES = 20  # a wider matrix fits no screen


def console() -> Console:
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def show_start(
    config: TrainConfig,
    splits: Splits,
    hardware: Hardware,
    folder: Path,
    summary: ModelSummary,
    goes_on_at: str | None,
) -> None:
    """Data, device, precision, where the run writes, and the network layer by layer."""
    out = console()
    name, size = config.dataset.name, config.dataset.image_size
    if splits.origin == "sample":
        total = len(splits.train) + len(splits.valid) + len(splits.test)
        out.print(
            f"[bold yellow]SAMPLE[/] These are {total:,} packaged digits, not all of {name}: no score of\n"
            f"       this run is an {name.upper()} score. dataset.source=full takes no sample."
        )
    if hardware.note:
        out.print(f"[bold yellow]NOTE[/]   {hardware.note}")
    count, channels, height, width = splits.train.shape
    table = data_table(show_header=False)
    table.add_row(
        "data",
        f"{name}, {len(splits.classes)} classes, {channels}x{height}x{width} resized to {size}x{size}",
    )
    table.add_row("images", f"{count:,} to train, {len(splits.valid):,} to validate, {len(splits.test):,} to test")
    table.add_row("device", f"{hardware.accelerator}, {hardware.precision}")
    table.add_row("writes to", str(near(folder)))
    if goes_on_at is not None:
        table.add_row("goes on at", goes_on_at)
    out.print(table)
    layers = data_table("layer", "output shape", "parameters")
    layers.columns[2].justify = "right"
    rows = zip(summary.layer_names, summary.layer_types, summary.out_sizes, summary.param_nums, strict=True)
    names = summary.layer_names
    for layer, kind, size, parameters in rows:
        if layer.startswith("network.") and not any(other.startswith(f"{layer}.") for other in names):
            shape = " x ".join(str(side) for side in size[1:]) if isinstance(size, list) else "?"
            layers.add_row(kind, shape, f"{parameters:,}" if parameters else "")
    layers.add_section()
    layers.add_row("in all", "", f"{summary.total_parameters:,}", style="bold")
    out.print(layers)


def show_end(outcome: Outcome, folder: Path, links: Mapping[str, str]) -> None:
    """The table that a run ends with; `links` say where its logs are besides."""
    test, train, dataset = outcome.test, outcome.train, outcome.dataset
    table = data_table(show_header=False, title="Result")
    if test:
        table.add_row("test accuracy", f"[bold]{test.accuracy:.2%}[/]")
        table.add_row("test loss", "none" if test.loss is None else f"{test.loss:.4f}")
        table.add_row("tested on", f"{test.images:,} {describe_origin(dataset.name, dataset.source)}")
    else:
        table.add_row("test", "left out (test=false); src.eval makes up for it")
    table.add_row("checkpoint", f"best of {train.epochs} epochs by validation accuracy ({_percent(outcome)})")
    rate = train.images_per_second
    table.add_row("training", f"{train.seconds:.0f} s" + (f", {rate:,.0f} images/s" if rate else ""))
    if train.share_of_peak:
        table.add_row("speed", f"{train.share_of_peak:.0%} of this machine's matrix rate")
    table.add_row("run", str(near(folder)))
    out = console()
    out.print(table)
    where = shlex.quote(str(near(folder)))
    if (folder / "report.html").exists():
        out.print(f"  look at it:     {near(folder) / 'report.html'}")
    if (folder / "tensorboard").exists():
        out.print(f"  curves:         tensorboard --logdir {where}")
    for name, link in links.items():
        out.print(f"  {name + ':':<15} {link}", markup=False, soft_wrap=True)
    if (folder / "profile").exists():
        out.print(f"  profile:        {near(folder) / 'profile'}, trace.json opens in https://ui.perfetto.dev")
    checkpoint = shlex.quote(str(near(folder / outcome.checkpoint)))
    out.print(f"  score it again: python -m src.eval checkpoint={checkpoint}")
    out.print(f"  draw on it:     python -m src.demo checkpoint={checkpoint}")


def show_scores(
    config: EvalConfig,
    run: TrainConfig,
    splits: Splits,
    hardware: Hardware,
    scores: Mapping[str, float],
    matrix: Tensor,
) -> None:
    """Accuracy and loss, and for few classes the accuracy of each and the confusion matrix."""
    out, classes = console(), splits.classes
    if hardware.note:
        out.print(f"[bold yellow]NOTE[/] {hardware.note}")
    whose = describe_origin(run.dataset.name, splits.origin)
    table = data_table(show_header=False)
    table.add_row("scored on", f"{config.split} split, {int(matrix.sum()):,} {whose}")
    table.add_row("accuracy", f"[bold]{scores['test/acc']}[/]")
    table.add_row("loss", f"{scores['test/loss']}")
    table.add_row("device", f"{hardware.accelerator}, {hardware.precision}")
    out.print(table)
    if len(classes) > CONFUSION_CLASSES:
        return
    width = max(len(f"{int(matrix.max())}"), 3)
    # one narrow column a class, so that ten classes fit into 80 columns
    table = data_table(
        "true",
        "accuracy",
        *[name[:width] for name in classes],
        title="right in each true class, and the number of times that each class was answered",
    )
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    for number, name in enumerate(classes):
        row = matrix[number]
        share = f"{int(row[number]) / max(int(row.sum()), 1):.1%}" if int(row.sum()) else "-"
        cells = [
            f"[bold]{int(value)}[/]" if column == number else str(int(value)) if value else "."
            for column, value in enumerate(row)
        ]
        table.add_row(name[:14], share, *cells)
    out.print(table)


def show_export(config: ExportConfig, about: Mapping[str, Any]) -> None:
    """What is in an exported file, how it was verified, and what its 8 bits cost."""
    file, classes, given = Path(config.output), about["classes"], about["preprocessing"]
    verified, reduced = about["verification"], about.get("int8")
    named = ", ".join(classes) if len(classes) <= CONFUSION_CLASSES else f"{', '.join(classes[:3])} ... {classes[-1]}"
    table = data_table(show_header=False)
    table.add_row("file", f"{escape(str(near(file)))}, {_size(file.stat().st_size)}")
    table.add_row("format", f"{config.format}, {'int8' if reduced else 'float32'}")
    table.add_row("input", given["input"])
    table.add_row("inside", given["inside"])
    table.add_row("output", given["output"])
    table.add_row("classes", f"{len(classes)}: {escape(named)}")
    largest = f"largest difference of a logit {verified['largest_difference']:.2g}"
    table.add_row("verified", f"{'float32 graph: ' if reduced else ''}{largest}, by {verified['by']}")
    if reduced:
        right, before = reduced["accuracy"], reduced["float32_accuracy"]
        table.add_row("accuracy", f"[bold]{right:.2%}[/] in int8, {before:.2%} in float32: {right - before:+.2%}")
        table.add_row("measured on", f"{reduced['measured_on']}; calibrated on {reduced['calibrated_on']}")
        table.add_row("float32", f"{_size(reduced['float32_bytes'])} would be the file's size")
    console().print(table)


def near(path: Path) -> Path:
    """The path as seen from here, where it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def describe_origin(name: str, origin: str) -> str:
    """Whose images were scored, as the score must say it."""
    return f"packaged {name} digits, not the official test set" if origin == "sample" else f"images of {name}"


def _size(number: int) -> str:
    """Of so many bytes."""
    return f"{number / 1e6:,.1f} MB" if number >= 1e6 else f"{number / 1e3:,.0f} kB"


def _percent(outcome: Outcome) -> str:
    value = outcome.val.accuracy
    return "none measured" if value is None else f"{value:.2%}"


def data_table(*columns: str, **options: Any) -> Table:
    style = box.SIMPLE_HEAD if sys.stdout.isatty() else None
    return Table(*columns, box=style, pad_edge=True, title_justify="left", **options)
