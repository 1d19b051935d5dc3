"""Each image of a folder, read whole: what is broken, there twice, or named as another class."""

from __future__ import annotations

import hashlib
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from textwrap import fill
from typing import Any

from rich.progress import track

from src.config.cli import Parser, end
from src.config.errors import Stopped, UserError
from src.config.paths import home
from src.config.schema import PACKAGE
from src.config.streams import steady
from src.data.decoding import decode
from src.data.image_folder import read_folder


def problems(folder: Path) -> Iterator[str]:
    """A line for each, as they are met; raises UserError if that is no folder of classes."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder.")
    source, copies = read_folder(folder, "full"), defaultdict[str, set[tuple[str, str, Path]]](set)
    parts: Any = {"train": source.train, "val": source.valid, "test": source.test}
    rows = [(split, part.labels.tolist(), part.store.items) for split, part in parts.items() if part]
    files = [(split, source.classes[label], path) for split, *found in rows for label, path in zip(*found, strict=True)]
    meant = {_words(name): name for name in source.classes if re.search("[^\\W\\d_]", name)}
    hidden = not sys.stdout.isatty()
    with ThreadPool() as pool:
        read = pool.imap(_read, (path for *_, path in files), 8)
        pairs = track(zip(files, read, strict=True), "", len(files), transient=True, disable=hidden)
        for file, (sha256, error) in pairs:
            _, own, path = file
            copies[sha256].add(file)
            if error:
                yield f"broken: {error}"
            others = [name for words, name in meant.items() if words in _words(path.stem)]
            if others and own not in others:
                yield f"of class {own}, named as {others[0]}: {path}"
    for same in copies.values():
        if len({(split, name) for split, name, _ in same}) > 1:
            yield f"the same: {', '.join(sorted(str(path) for *_, path in same))}"


def _read(path: Path) -> tuple[str, str]:
    """SHA-256 of a file, and what is wrong with its image."""
    content, wrong = b"", ""
    try:
        content = path.read_bytes()
        decode(content, 3, None, name=str(path))
    except (OSError, UserError) as error:
        wrong = str(error)
    return hashlib.sha256(content or bytes(path)).hexdigest(), wrong


def _words(name: str) -> str:
    return " ".join(["", *re.findall(r"[^\W\d_]+|\d+", name.lower()), ""])


def main() -> None:
    steady()
    parser = Parser(f"python -m {PACKAGE}.data.verify", description=__doc__)
    parser.add_argument("folder", type=home, help="CLASS/IMAGE, or train/CLASS/IMAGE with test and val beside it")
    lines = 0
    try:
        for line in problems(Path(parser.parse_args().folder)):
            print(fill(line, 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))
            lines += 1
    except UserError as error:
        end(error, 2)
    except KeyboardInterrupt:
        end(Stopped(2), 130)
    print(f"{lines:,} found." if lines else "Nothing found.")
    raise SystemExit(bool(lines))


if __name__ == "__main__":
    main()
