"""Image files and what a network says of them, as a table, a file and a picture."""

from __future__ import annotations

import glob
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

import pandas as pd
import torch
from rich.progress import track
from rich.text import Text

from src.config.errors import RunError, UserError
from src.config.files import write_json, write_text
from src.config.schema import PredictConfig
from src.data.image_folder import list_folder, passed_over
from src.model.predictor import UNSURE, Predictor, Reading
from src.results.figures import canvas, tiles
from src.results.intervals import percent
from src.results.screen import console, data_table, show_note

pd.set_option("mode.string_storage", "python")  # a file's name may be no UTF-8, which Arrow takes alone
SHOWN = 20  # rows on the screen
SHEET = 64  # images on a contact sheet


class Row(NamedTuple):
    """What was answered for an image; `true` is its folder's name where that is a class, `top` the likeliest first."""

    file: str
    predicted: str
    probability: float
    true: str | None
    unsure: bool
    inverted: bool
    centred: bool
    top: list[tuple[str, float]]


def predict(config: PredictConfig) -> None:
    """Answer each image that `input` names; RunError at the end if some can't be read, UserError if none can."""
    files = find_images(config.input)
    predictor = Predictor.load(config.checkpoint, config.device, config.precision)
    show_note(predictor.hardware.note)
    rows, unreadable = answer(predictor, files, config)
    if not rows:
        raise UserError(unreadable[0])
    try:
        if config.output:
            write(Path(config.output), rows)
        if config.sheet:
            draw_sheet(Path(config.sheet), rows, predictor)
    except OSError as error:
        raise RunError(f"output: {error}.") from error
    finally:  # what has cost an hour is shown, whatever becomes of the files
        show(rows, config.input)
    if unreadable:
        raise RunError("\n".join([*unreadable[:5], f"{len(unreadable):,} of {len(files):,} left out."]))


def find_images(named: str) -> list[Path]:
    """The files that a path or a pattern names, by name; of a folder, all images below it. UserError if none."""
    path, missing = Path(named), "there is no such file or folder"
    found = [path] if path.is_file() else []
    if path.is_dir():
        found, others = _below(path)
        show_note(passed_over(others))
        missing = "that folder holds no images"
    elif not found and glob.has_magic(named):
        names = glob.glob(named, recursive=True)  # noqa: PTH207 - it takes absolute patterns
        found = [file for file in map(Path, names) if (file.is_file() or not file.exists()) and not _returns(file)]
        missing = "no file has a name of that pattern"
    if not found:
        raise UserError(f"input={named}: {missing}.")
    return sorted(found)


def _below(folder: Path, *above: Path) -> tuple[list[Path], list[Path]]:
    """The images and the other files below a folder, through links too, but for those to a folder `above`."""
    folders, images, others = list_folder(folder)
    above = (*above, folder.resolve())
    for inner in folders:
        if inner.resolve() not in above:
            found, more = _below(inner, *above)
            images += found
            others += more
    return images, others


def _returns(file: Path) -> bool:
    """Whether a link on the way to a file, which a pattern follows, leads back to a folder above."""
    links = (folder for folder in file.parents if folder.is_symlink())
    return any(link.resolve() in {above.resolve() for above in link.parents} for link in links)


def answer(predictor: Predictor, files: list[Path], config: PredictConfig) -> tuple[list[Row], list[str]]:
    """A row for each file that can be read, in their order, and why the others can't."""
    rows: list[Row] = []
    unreadable: list[str] = []
    out, classes, size = console(), predictor.classes, config.batch_size
    count = min(config.top_k, len(classes))

    def read(file: Path) -> tuple[Path, Reading] | str:
        try:
            return file, predictor.read(file, config.invert, config.centre)
        except UserError as error:
            return str(error)

    hidden = not out.is_terminal or len(files) < 20 * size
    with ThreadPoolExecutor() as pool:
        for start in track(range(0, len(files), size), "", console=out, transient=True, disable=hidden):
            decoded = list(pool.map(read, files[start : start + size]))
            unreadable += [image for image in decoded if isinstance(image, str)]
            images = [image for image in decoded if not isinstance(image, str)]
            if not images:
                continue
            best = predictor(torch.stack([reading.pixels for _, reading in images])).topk(count)
            for (file, reading), labels, shares in zip(images, best.indices, best.values, strict=True):
                top = [(classes[label], share) for label, share in zip(labels, shares.tolist(), strict=True)]
                folder = file.absolute().parent.name
                true = folder if folder in classes else None
                rows.append(Row(str(file), *top[0], true, top[0][1] < UNSURE, *reading[1:], top))
    return rows, unreadable


def show(rows: list[Row], named: str) -> None:
    """The first rows, with paths as seen from the folder that the input names."""
    out, labelled = console(), [row for row in rows if row.true]
    folder = next(folder for folder in (Path(named), *Path(named).parents) if folder.is_dir())
    table = data_table("file", "predicted", "probability", *(["true"] if labelled else []), "next")
    for column in table.columns:  # no number is folded; rich would fold at a no-break space too
        column.overflow, column.no_wrap = "fold", column.header in ("probability", "next")
    table.columns[2].justify = "right"
    for row in rows[:SHOWN]:
        true = [Text(row.true or "", "" if row.true == row.predicted else "bold")] if labelled else []
        following = ", ".join(f"{name} {percent(share, 1)}" for name, share in row.top[1:])
        following = fill(following.replace(" %", "\xa0%"), out.width // (4 if labelled else 3)).replace("\xa0", " ")
        probability = f"{'unsure, ' if row.unsure else ''}{percent(row.probability, 1)}"
        table.add_row(os.path.relpath(row.file, folder), row.predicted, probability, *true, following)
    out.print(table)
    if len(rows) > SHOWN:
        out.print(f"  and {len(rows) - SHOWN:,} more; output=FILE.csv has them all.")
    if labelled:
        right, count = sum(row.true == row.predicted for row in labelled), len(labelled)
        out.print(f"  {right:,} of {count:,} right ({percent(right / count)}), the folders' names taken as true.")
    facts = {
        "dark on light and inverted: the network has learned light on dark.": [row.inverted for row in rows],
        "cut and centred as MNIST's digits lie; centre=false leaves them.": [row.centred for row in rows],
        f"answered with less than {percent(UNSURE, 0)}, which is unsure.": [row.unsure for row in rows],
    }
    for fact, holds in facts.items():
        if count := sum(holds):
            out.print(f"  {f'{count:,} images were' if count > 1 else '1 image was'} {fact}")


def write(path: Path, rows: list[Row]) -> None:
    """All rows as CSV or JSON, by the file's name."""
    if path.suffix.lower() == ".json":
        tops = [{"top": [{"class": name, "probability": share} for name, share in row.top]} for row in rows]
        write_json(path, {"predictions": [row._asdict() | top for row, top in zip(rows, tops, strict=True)]})
        return
    table = pd.DataFrame(rows).drop(columns="top")
    for name in ("unsure", "inverted", "centred"):
        table[name] = table[name].map({True: "true", False: "false"})
    for rank in range(1, len(rows[0].top)):
        pairs = zip(*(row.top[rank] for row in rows), strict=True)
        table[f"predicted_{rank + 1}"], table[f"probability_{rank + 1}"] = pairs
    write_text(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def draw_sheet(path: Path, rows: list[Row], predictor: Predictor) -> None:
    """A contact sheet of images from all over, as the network was given them."""
    drawn = [rows[n] for n in torch.linspace(0, len(rows) - 1, min(SHEET, len(rows))).round().int().tolist()]
    images = torch.stack([predictor.read(Path(row.file), row.inverted, row.centred).pixels for row in drawn])
    captions = [tiles.caption(row.predicted, row.true) for row in drawn]
    figure = canvas.blank(9, 1.45 * -(-len(images) // 8), 120)
    tiles.draw_tiles(figure, images, captions, 8)
    canvas.save(figure, path)
