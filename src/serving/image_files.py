"""Image files and what a network says of them, as a table, a file and a picture."""

from __future__ import annotations

import csv
import glob
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from rich.markup import escape
from rich.progress import track

from src.config.errors import UserError
from src.config.files import write_json, write_text
from src.data.image_folder import read_image
from src.model.predictor import Predictor
from src.results.screen import console, data_table

SHOWN = 20  # rows on the screen
SHEET = 64  # images on a contact sheet


class Row(NamedTuple):
    """One image; `top` are its classes with their probabilities, the likeliest first, and `true` is its folder's
    name where that is a class."""

    file: Path
    top: list[tuple[str, float]]
    true: str | None
    inverted: bool

    @property
    def predicted(self) -> str:
        return self.top[0][0]


def find_images(named: str) -> list[Path]:
    """The files that a path or a pattern names, by name; of a folder, all images below it.

    Raises:
        UserError: there are none.
    """
    path = Path(named)
    if path.is_dir():
        extensions = Image.registered_extensions().items()
        known = {suffix for suffix, kind in extensions if kind in Image.OPEN}  # some can only be written
        files = [
            file
            for file in path.rglob("*")
            if file.suffix.lower() in known
            and file.is_file()
            and not any(part[0] == "." for part in file.relative_to(path).parts)
        ]
        if not files:
            raise UserError(f"input={named}: that folder holds no images.")
    elif path.exists():
        files = [path]
    else:
        found = map(Path, glob.glob(named, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        files = [file for file in found if file.is_file()]
        if not files:
            pattern = glob.has_magic(named)
            what = "no file has a name of that pattern" if pattern else "there is no such file or folder"
            raise UserError(f"input={named}: {what}.")
    return sorted(files)


class Predictions:
    """What a network says of many files: a `Row` of each, in their order, and why some are `unreadable`."""

    def __init__(self, predictor: Predictor, top_k: int) -> None:
        self.predictor, self.top_k = predictor, min(top_k, len(predictor.classes))
        self.rows: list[Row] = []
        self.unreadable: list[str] = []
        self._pictures: list[tuple[Row, np.ndarray]] = []

    def read(self, files: list[Path], batch_size: int, invert: bool | None) -> None:
        """Answer them batch by batch, while the next batch is decoded.

        Args:
            invert: whether to turn light into dark; None where the edge of an image says that it is drawn dark on
                light and the network has learned light on dark.
        """
        out = console()
        pictured = {files[n] for n in torch.linspace(0, len(files) - 1, min(SHEET, len(files))).round().int().tolist()}
        quiet = not out.is_terminal or len(files) < 20 * batch_size
        total = -(-len(files) // batch_size)
        for batch in track(self._decoded(files, batch_size), "", total, console=out, transient=True, disable=quiet):
            read = [(file, pixels) for file, pixels in batch if not isinstance(pixels, UserError)]
            self.unreadable += [str(pixels) for _, pixels in batch if isinstance(pixels, UserError)]
            inverted = [self.predictor.is_inverted(pixels) if invert is None else invert for _, pixels in read]
            images = [255 - pixels if turn else pixels for (_, pixels), turn in zip(read, inverted, strict=True)]
            if not images:
                continue
            probabilities = self.predictor(torch.from_numpy(np.stack(images)))
            values, places = probabilities.topk(self.top_k)
            answered = zip(read, images, inverted, values.tolist(), places.tolist(), strict=True)
            for (file, _), image, turned, parts, classes in answered:
                top = [(self.predictor.classes[n], part) for n, part in zip(classes, parts, strict=True)]
                true = file.parent.name if file.parent.name in self.predictor.classes else None
                self.rows.append(Row(file, top, true, turned))
                if file in pictured:
                    self._pictures.append((self.rows[-1], image))

    def _decoded(self, files: list[Path], batch_size: int) -> Iterator[list[tuple[Path, np.ndarray | UserError]]]:
        size = (self.predictor.width, self.predictor.height)

        def decode(file: Path) -> tuple[Path, np.ndarray | UserError]:
            try:
                return file, read_image(file, self.predictor.channels, size)
            except UserError as error:
                return file, error

        with ThreadPoolExecutor() as pool:
            waiting = None
            for start in range(0, len(files), batch_size):
                coming = [pool.submit(decode, file) for file in files[start : start + batch_size]]
                if waiting:
                    yield [future.result() for future in waiting]
                waiting = coming
            if waiting:
                yield [future.result() for future in waiting]

    def show(self) -> None:
        """The first rows, and what was done to the images."""
        out = console()
        labelled = [row for row in self.rows if row.true]
        table = data_table("file", "predicted", "probability", *(["true"] if labelled else []), "next")
        table.columns[0].overflow = "fold"
        table.columns[2].justify = "right"
        for row in self.rows[:SHOWN]:
            others = escape(", ".join(f"{name} {part:.1%}" for name, part in row.top[1:]))
            wrong = row.true and row.true != row.predicted
            true = [f"[bold]{escape(row.true or '')}[/]" if wrong else escape(row.true or "")] if labelled else []
            table.add_row(escape(str(row.file)), escape(row.predicted), f"{row.top[0][1]:.1%}", *true, others)
        out.print(table)
        if len(self.rows) > SHOWN:
            out.print(f"  and {len(self.rows) - SHOWN:,} more; output=FILE.csv has them all.")
        if labelled:
            right = sum(row.true == row.predicted for row in labelled)
            share = right / len(labelled)
            out.print(f"  {right:,} of {len(labelled):,} right ({share:.2%}), the folders' names taken as true.")
        if turned := sum(row.inverted for row in self.rows):
            many = f"{turned:,} images were" if turned > 1 else "1 image was"
            out.print(f"  {many} dark on light and inverted: the network has learned light on dark.")

    def write(self, path: Path) -> None:
        """All rows as CSV or JSON, by the file's name."""
        if path.suffix.lower() == ".json":
            write_json(path, {"predictions": [self._as_dict(row) for row in self.rows]})
            return
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        more = [f"{name}_{rank}" for rank in range(2, self.top_k + 1) for name in ("predicted", "probability")]
        writer.writerow(["file", "predicted", "probability", "true", "inverted", *more])
        for row in self.rows:
            (name, part), *others = row.top
            rest = [value for other, share in others for value in (other, f"{share:.6g}")]
            writer.writerow([row.file, name, f"{part:.6g}", row.true or "", str(row.inverted).lower(), *rest])
        write_text(path, text.getvalue())

    @staticmethod
    def _as_dict(row: Row) -> dict[str, Any]:
        (name, part), *_ = row.top
        top = [{"class": other, "probability": share} for other, share in row.top]
        first = {"file": str(row.file), "predicted": name, "probability": part}
        return {**first, "true": row.true, "inverted": row.inverted, "top": top}

    def draw(self, path: Path) -> None:
        """A contact sheet of images from all over, as the network was given them."""
        from src.results.figures import canvas, images

        rows, shown = zip(*self._pictures, strict=True)
        captions = [images.Caption(row.predicted, row.true if row.true != row.predicted else None) for row in rows]
        figure = canvas.blank(9, 1.45 * -(-len(rows) // 8), 120)
        images.draw_tiles(figure, [images.as_rows(torch.from_numpy(one.copy())) for one in shown], captions, 8)
        canvas.save(figure, path)
