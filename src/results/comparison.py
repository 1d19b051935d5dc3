"""Settings compared in pairs, by what their runs answered to the same images: which is better, and how sure that is."""

from __future__ import annotations

import base64
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from src.config.cli import importing
from src.config.errors import UserError
from src.config.files import write_text
from src.config.folder import RUNS
from src.config.paths import for_shell, home
from src.results.cells import markdown
from src.results.html import render
from src.results.intervals import percent, shown
from src.results.settings import PAGE, Setting, Settings
from src.results.verdicts import Pair, agreement, compared

COMPARED = RUNS / "compared"
SHOWN, DRAWN, TILES = 20, 66, 20  # pairs on the screen and in the forest plot; images
PICTURES = {  # in the order of the page: title, and what is to be seen, in words
    "differences": (
        "Differences",
        "Of each pair, in points of accuracy, with 95 % intervals; blue where one is better.",
    ),
    "agreement": (
        "Agreement",
        "The share of images, in %, to which two settings gave one answer, and a setting's seeds.",
    ),
    "disagreements": (
        "Images on which they disagree most",
        "The label with the setting that was surest of it, and what another answered, with their probabilities.",
    ),
}


def report(folders: Sequence[str], options: Sequence[str], data_dir: str | None) -> None:
    """Show what is compared and each pair, and write them down; raises UserError as Settings.of does, or for an option
    that is not output=FOLDER."""
    output = COMPARED
    for option in options:
        if not option.startswith("output="):
            raise UserError(f"{option}: a comparison takes folders, and output=FOLDER.")
        output = Path(home(option.partition("=")[2]))
    settings = Settings.of(folders)
    pairs = compared(settings.every)
    print(f"\n{headline(settings)}")
    every, told = of_settings(settings.every), table(pairs)
    _show(every.assign(setting=every.setting + "\n" + every.folder).drop(columns="folder").head(SHOWN))
    _show(told.head(SHOWN))
    if len(told) > SHOWN:
        print(f"the page has all {len(told)} pairs")
    print(*(fill(note, 79, break_long_words=False, break_on_hyphens=False) for note in notes(settings)), sep="\n")
    print(f"page, tables and pictures: {for_shell(str(save(output, settings, pairs, data_dir)))}")


def save(folder: Path, settings: Settings, pairs: Sequence[Pair], data_dir: str | None) -> Path:
    """Write the page, which it gives, the tables as Markdown, and the pictures; what lies there makes room."""
    folder.mkdir(parents=True, exist_ok=True)
    odd = _disagreed(settings.every)
    tables = {
        "Settings": of_settings(settings.every),
        "Pairs": table(pairs),
        "Images on which they disagree most: the answers, and the probability of the label": _as_table(settings, odd),
    }
    pictures = _draw(folder, settings, pairs, _tiles(settings, odd, data_dir))
    title, lines = headline(settings), notes(settings)
    parts = [f"# {title}", *lines]
    parts += [part for heading, cells in tables.items() if len(cells) for part in (f"## {heading}", markdown(cells))]
    parts += [f"![{words}]({name}.png)" for name, (_, words, _) in pictures.items()]
    write_text(folder / "comparison.md", "\n\n".join(parts) + "\n")
    shown = [(heading, cells) for heading, cells in tables.items() if len(cells)]
    page = render("tables.html", title=title, notes=lines, tables=shown, pictures=pictures.values())
    write_text(folder / PAGE, page)
    return folder / PAGE


def _draw(folder: Path, settings: Settings, pairs: Sequence[Pair], tiles: Any) -> dict[str, tuple[str, str, str]]:
    """Write `*.png`, and give title, words and base64 of each; without `tiles`, none of images."""
    from src.results.figures import canvas, differences  # matplotlib

    letters, names = [one.letter for one in settings.every], [f"{one.letter}: {one.name}" for one in settings.every]
    surest = {pair.name for pair in sorted(pairs, key=lambda pair: pair.p)[:DRAWN]}
    rows = [
        (pair.name, pair.difference.value, pair.difference.interval, pair.is_told)
        for pair in pairs
        if pair.name in surest
    ]
    alike = np.array([[agreement(one, other) for other in settings.every] for one in settings.every])
    drawn: dict[str, tuple[float, Callable[..., None], tuple[Any, ...]]] = {
        "differences": (1.2 + 0.22 * len(rows) + 0.12 * len(names), differences.draw_differences, (rows, names)),
        "agreement": (4.4 * (len(names) > 2), differences.draw_agreement, (letters, alike)),
        "disagreements": tiles or (0, print, ()),
    }
    shown = {}
    for name, (title, words) in PICTURES.items():
        path = folder / f"{name}.png"
        height, draw, subject = drawn[name]
        if not height:
            path.unlink(missing_ok=True)  # of another comparison
            continue
        figure = canvas.blank(5, height, 150)
        draw(figure, *subject)
        canvas.save(figure, path)
        shown[name] = title, words, base64.b64encode(path.read_bytes()).decode()
    return shown


def _disagreed(settings: Sequence[Setting]) -> list[tuple[int, Setting, Setting]]:
    """Images that most seeds of one setting got right and most of another wrong, with both, those of the greatest
    distance in the probability of the label first."""
    sure, right = (np.stack([getattr(one, name).mean(0) for one in settings]) for name in ("sure", "right"))
    high, low = np.where(right > 0.5, sure, -np.inf), np.where(right < 0.5, sure, np.inf)
    gaps = high.max(0) - low.min(0)
    order = [int(place) for place in np.argsort(-gaps, kind="stable")[:TILES] if np.isfinite(gaps[place])]
    return [(place, settings[int(high[:, place].argmax())], settings[int(low[:, place].argmin())]) for place in order]


def _as_table(settings: Settings, odd: Sequence[tuple[int, Setting, Setting]]) -> pd.DataFrame:
    """Each image with what each setting answered, and the probability that it gave to the label."""
    rows = []
    for place, *_ in odd:
        row = {"image": settings.images[place], "label": settings.every[0].labels[place]}
        for one in settings.every:
            answers = ", ".join(dict.fromkeys(one.predicted[:, place]))
            row[one.letter] = f"{answers} ({percent(one.sure[:, place].mean(), 0)})"
        rows.append(row)
    return pd.DataFrame(rows)


def _tiles(settings: Settings, odd: Sequence[tuple[int, Setting, Setting]], data_dir: str | None) -> Any:
    """How images are drawn, if a checkpoint is there by which they are read again, and they are."""
    runs = [run for one in settings.every for run in one.runs if (run.folder / run.outcome.checkpoint).exists()]
    if not runs or not odd:
        return None
    with importing():
        from src.model.build import images_of
        from src.model.saved import load
        from src.results.figures.tiles import draw_tiles
    try:
        splits = images_of(load(runs[0].folder / runs[0].outcome.checkpoint), data_dir)
    except UserError as error:
        print(f"no images are shown: {error}")
        return None
    part = splits.parts["test" if settings.split == "test" else "val"]
    rows = {name: row for row, name in enumerate(part.names())}
    images = part[[rows[settings.images[place]] for place, *_ in odd]].images
    captions = []
    for place, high, low in odd:
        seed = int(np.where(low.predicted[:, place] == low.labels[place], np.inf, low.sure[:, place]).argmin())
        said = f"{low.predicted[seed, place]:.10} by {low.letter} ({percent(low.probability[seed, place], 0)})"
        meant = f"{high.labels[place]:.10} by {high.letter} ({percent(high.sure[:, place].mean(), 0)})"
        captions.append((f"{meant}\n{said}", False))
    return 1.3 * -(-len(odd) // 5), draw_tiles, (images, captions, 5)


def headline(settings: Settings) -> str:
    run, runs = settings.every[0].runs[0], sum(len(setting.runs) for setting in settings.every)
    images = f"{len(settings.images):,} {settings.split} images of {run.outcome.dataset.test_set}"
    return f"{len(settings.every)} settings, {runs} runs, compared on {images}"


def of_settings(settings: Sequence[Setting]) -> pd.DataFrame:
    """A row of text for each setting."""
    rows = [
        {
            "": setting.letter,
            "accuracy": percent(float(setting.right.mean()), interval=setting.interval),
            "seed": ", ".join(str(run.outcome.seed) for run in setting.runs),
            "setting": setting.name,
            "folder": setting.folders,
        }
        for setting in settings
    ]
    return pd.DataFrame(rows)


def table(pairs: Sequence[Pair]) -> pd.DataFrame:
    """A row of text for each pair."""
    rows = [
        {
            "pair": pair.name,
            "points": f"{'+' * (pair.difference.value > 0)}"
            f"{shown(pair.difference.value, pair.difference.interval, times=100)}",
            "p": "<0.001" if pair.p < 0.001 else f"{pair.p:.3f}",
            "agreement": percent(pair.agreement, 1),
            "verdict": pair.verdict,
        }
        for pair in pairs
    ]
    return pd.DataFrame(rows)


def notes(settings: Settings) -> list[str]:
    """What a reader must know of the numbers."""
    pairs, singles = math.comb(len(settings.every), 2), [one.letter for one in settings.every if len(one.runs) == 1]
    lines = [*settings.notes, "points: the second's accuracy less the first's, with its own 95 % interval"]
    p = "p: how often so great a difference would be seen if there were none"
    lines.append(f"{p}{f', corrected for {pairs} pairs (Holm)' if pairs > 1 else ''}")
    if pairs > 1:
        lines.append("an interval is of its pair alone, so it may leave out 0 where the corrected p does not tell")
    if singles:
        who = f"one seed of {', '.join(singles)}, with which the first seed of others is compared"
        who = "one seed each" if len(singles) == len(settings.every) else who
        lines.append(f"{who}: networks, not settings; with another seed they may differ otherwise")
    return lines


def _show(cells: pd.DataFrame) -> None:
    """Print a line for each row; where a terminal is too narrow, the last column is folded."""
    grid = Grid(box=None, pad_edge=False)
    for title in cells:
        last = title == cells.columns[-1]
        grid.add_column(
            Text(title), no_wrap=not last, overflow="fold", min_width=0 if last else cells[title].map(len).max()
        )
    for row in cells.to_numpy().tolist():
        grid.add_row(*map(Text, row))
    Console(width=None if sys.stdout.isatty() else 1000).print("", grid, "", sep="\n", crop=False)
