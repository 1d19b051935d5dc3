"""Image files and what a network says of them, as a table, a file and a picture."""

from __future__ import annotations

import csv
import glob
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from rich.text import Text
from torch import Tensor

from src.config.errors import RunError, UserError
from src.config.files import write_json, write_text
from src.config.schema import PredictConfig
from src.data.image_folder import read_image
from src.model.predictor import Predictor
from src.results.screen import console, data_table, show_note

SHOWN = 20  # rows on the screen
SHEET = 64  # images on a contact sheet


class Row(NamedTuple):
    """What was answered for an image."""

    file: Path
    top: list[tuple[str, float]]  # classes with their probabilities, the likeliest first
    true: str | None  # its folder's name where that is a class
    inverted: bool
    pixels: Tensor | None  # uint8 (C, H, W), as the network was given them, if it comes onto the contact sheet


def predict(config: PredictConfig) -> None:
    """Answer each image that `input` names, show the answers, and write them to `output` and `sheet`.

    Raises RunError at the end if some of the images can't be read, and UserError if none can.
    """
    files = find_images(config.input)
    predictor = Predictor.load(config.checkpoint, config.device, config.precision)
    show_note(predictor.hardware.note)
    rows, unreadable = answer(predictor, files, config)
    if not rows:
        raise UserError(unreadable[0])
    show(rows)
    try:
        if config.output:
            write(Path(config.output), rows)
        if config.sheet:
            draw_sheet(Path(config.sheet), rows)
    except OSError as error:
        raise RunError(f"output: {error}.") from error
    if unreadable:
        raise RunError("\n".join([*unreadable[:5], f"{len(unreadable):,} of {len(files):,} left out."]))


def find_images(named: str) -> list[Path]:
    """The files that a path or a pattern names, by name; of a folder, all images below it. UserError if none."""
    path, missing = Path(named), "there is no such file or folder"
    found = [path]
    if path.is_dir():
        extensions = Image.registered_extensions().items()
        readable = {suffix for suffix, kind in extensions if kind in Image.OPEN}  # some can only be written
        found = [file for file in path.rglob("*") if file.suffix.lower() in readable]
        found = [file for file in found if not any(name[0] == "." for name in file.relative_to(path).parts)]
        missing = "that folder holds no images"
    elif not path.exists() and glob.has_magic(named):
        found = [Path(name) for name in glob.glob(named, recursive=True)]  # noqa: PTH207 - it takes absolute patterns
        missing = "no file has a name of that pattern"
    files = sorted(file for file in found if file.is_file())
    if not files:
        raise UserError(f"input={named}: {missing}.")
    return files


def answer(predictor: Predictor, files: list[Path], config: PredictConfig) -> tuple[list[Row], list[str]]:
    """A row for each file that can be read, in their order, and why the others can't; the next batch is decoded
    while one is answered."""
    rows: list[Row] = []
    unreadable: list[str] = []
    out, classes, size = console(), predictor.classes, config.batch_size
    on_sheet = {files[n] for n in torch.linspace(0, len(files) - 1, min(SHEET, len(files))).round().int().tolist()}
    hidden, batches = not out.is_terminal or len(files) < 20 * size, -(-len(files) // size)
    for batch in track(decode(predictor, files, size), "", batches, console=out, transient=True, disable=hidden):
        unreadable += [str(pixels) for _, pixels in batch if isinstance(pixels, UserError)]
        read = [(file, pixels) for file, pixels in batch if not isinstance(pixels, UserError)]
        if not read:
            continue
        inverted = [predictor.is_inverted(pixels) if config.invert is None else config.invert for _, pixels in read]
        turned = [255 - pixels if turn else pixels for (_, pixels), turn in zip(read, inverted, strict=True)]
        images = torch.from_numpy(np.stack(turned))
        shares, labels = predictor(images).topk(min(config.top_k, len(classes)))
        for number, (file, _) in enumerate(read):
            best = zip(labels[number].tolist(), shares[number].tolist(), strict=True)
            true = file.parent.name if file.parent.name in classes else None
            pixels = images[number].clone() if file in on_sheet else None  # which keeps no batch
            rows.append(Row(file, [(classes[label], share) for label, share in best], true, inverted[number], pixels))
    return rows, unreadable


def decode(predictor: Predictor, files: list[Path], size: int) -> Iterator[list[tuple[Path, np.ndarray | UserError]]]:
    """Batches of files with their pixels uint8 (C, H, W), or with the reason why they have none."""

    def read(file: Path) -> tuple[Path, np.ndarray | UserError]:
        try:
            return file, read_image(file, predictor.channels, (predictor.width, predictor.height))
        except UserError as error:
            return file, error

    with ThreadPoolExecutor() as pool:
        coming = None
        for start in range(0, len(files) + size, size):
            batch, coming = coming, pool.map(read, files[start : start + size])
            if batch is not None:
                yield list(batch)


def show(rows: list[Row]) -> None:
    """The first rows, and what was done to the images."""
    out, labelled = console(), [row for row in rows if row.true]
    table = data_table("file", "predicted", "probability", *(["true"] if labelled else []), "next")
    table.columns[0].overflow, table.columns[2].justify = "fold", "right"
    for row in rows[:SHOWN]:
        (predicted, share), *others = row.top
        cells: list[str | Text] = [str(row.file), predicted, f"{share:.1%}"]
        if labelled:
            cells.append(Text(row.true or "", "" if row.true == predicted else "bold"))
        table.add_row(*cells, ", ".join(f"{name} {other:.1%}" for name, other in others))
    out.print(table)
    if len(rows) > SHOWN:
        out.print(f"  and {len(rows) - SHOWN:,} more; output=FILE.csv has them all.")
    if labelled:
        right = sum(row.true == row.top[0][0] for row in labelled)
        share = right / len(labelled)
        out.print(f"  {right:,} of {len(labelled):,} right ({share:.2%}), the folders' names taken as true.")
    if turned := sum(row.inverted for row in rows):
        many = f"{turned:,} images were" if turned > 1 else "1 image was"
        out.print(f"  {many} dark on light and inverted: the network has learned light on dark.")


def write(path: Path, rows: list[Row]) -> None:
    """All rows as CSV or JSON, by the file's name."""
    if path.suffix.lower() == ".json":
        predictions = []
        for row in rows:
            top = [{"class": name, "probability": share} for name, share in row.top]
            best = {"file": str(row.file), "predicted": row.top[0][0], "probability": row.top[0][1]}
            predictions.append({**best, "true": row.true, "inverted": row.inverted, "top": top})
        write_json(path, {"predictions": predictions})
        return
    more = [f"{name}_{rank}" for rank in range(2, len(rows[0].top) + 1) for name in ("predicted", "probability")]
    table = [["file", "predicted", "probability", "true", "inverted", *more]]
    for row in rows:
        first, second, *others = [text for name, share in row.top for text in (name, f"{share:.6g}")]
        table.append([str(row.file), first, second, row.true or "", str(row.inverted).lower(), *others])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    write_text(path, text.getvalue())


def draw_sheet(path: Path, rows: list[Row]) -> None:
    """A contact sheet of images from all over."""
    from src.results.figures import canvas, images  # matplotlib takes a second, which the answers need not wait for

    tiles = [images.as_colour(row.pixels) for row in rows if row.pixels is not None]
    answers = [(row.top[0][0], row.true) for row in rows if row.pixels is not None]
    captions = [images.Caption(predicted, None if predicted == true else true) for predicted, true in answers]
    figure = canvas.blank(9, 1.45 * -(-len(tiles) // 8), 120)
    images.draw_tiles(figure, tiles, captions, 8)
    canvas.save(figure, path)
