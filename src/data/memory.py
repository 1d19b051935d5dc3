"""In which size photos are decoded, and whether they are held in memory."""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import torch
from rich.progress import track

from src.config.errors import UserError
from src.config.schema import DatasetConfig
from src.data import statistics
from src.data.decoding import BrokenImage
from src.data.images import ImageSet, Source
from src.data.photos import Photos

GROUP = Path("/sys/fs/cgroup")  # where Linux says what a container may take
_FITTED = {"crop": "cut to the middle square", "pad": "padded to a square", "stretch": "stretched to a square"}
_PARTS = ("train", "valid", "test")


def settled(source: Source, dataset: DatasetConfig, copies: int = 1) -> Source:
    """The same with photos of a size, held in memory where that is asked for, or so many copies fit; others as it is.

    Images of one size keep it, up to `stored_size`; others become squares of the side that half of them reach, by
    their shorter sides where they are cut. Of many a sample is opened. Raises UserError for one that can't be read, or
    if they don't fit into memory.
    """
    parts = {name: part for name in _PARTS if (part := getattr(source, name)) and isinstance(part.store, Photos)}
    if not parts:
        return source
    skips = dataset.on_broken == "skip"
    photos = {name: part.store.taken(part.indices) for name, part in parts.items()}
    sizes = _sizes(list(photos.values()), skips)
    size, fitted, lost = _fitted(sizes, dataset)
    digest = hashlib.sha256(repr((size, dataset.fit)).encode())
    sets = dict[str, ImageSet]()
    for name, store in photos.items():
        digest.update(_content(store) if dataset.checksum == "content" else store.sha256.encode())
        digest.update(b"" if store.rows is None else store.rows.numpy().tobytes())
        broken = torch.zeros(len(store), dtype=torch.bool).share_memory_() if skips else None
        sets[name] = ImageSet(replace(store, size=size, fit=dataset.fit), parts[name].labels, broken=broken)
    is_held, where = _place(sum(part.nbytes for part in sets.values()) * copies, dataset.in_memory)
    if is_held:
        sets = {name: _loaded(part) for name, part in sets.items()}
    most = statistics.SAMPLE
    few = f"; sizes, mean and std are those of {most:,}" if sum(map(len, sets.values())) > most else ""
    note = "\n       ".join(filter(None, [lost, source.note]))
    train, valid, test = (sets.get(name, getattr(source, name)) for name in _PARTS)
    texts = note, fitted, where + few, digest.hexdigest()
    return Source(train, source.classes, source.origin, valid, test, *texts)


def _fitted(sizes: list[tuple[int, int]], dataset: DatasetConfig) -> tuple[tuple[int, int], str, str]:
    """The size for images of these, how they are brought to it, if they are, and what to say of what that costs."""
    fit, largest = dataset.fit, dataset.stored_size
    if len(set(sizes)) == 1 and max(sizes[0]) <= largest and (fit != "pad" or len({*sizes[0]}) == 1):
        return sizes[0], "", ""
    side = min(sorted(map(min if fit == "crop" else max, sizes))[len(sizes) // 2], largest)
    lost = sum(3 * min(size) < 2 * max(size) for size in sizes) if fit == "crop" else 0
    much = f"{lost:,} of {len(sizes):,} images lose more than a third to the cut; dataset.fit=pad keeps them whole."
    are_square = all(width == height for width, height in sizes)
    return (side, side), "" if are_square else _FITTED[fit], much if 10 * lost > len(sizes) else ""


def _place(needed: int, in_memory: bool | str) -> tuple[bool, str]:
    """Whether images of so many bytes are held in memory, and that with its reason in words."""
    free = free_memory()
    sizes = f"{_gigabytes(needed)} of the {_gigabytes(free)} that are free"
    if in_memory is True and needed > free:
        raise UserError(f"dataset.in_memory=true: the images take {sizes}. Leave it out, or take less stored_size.")
    is_held = needed < free / 4 if in_memory == "auto" else bool(in_memory)
    why = f"for all would take {sizes}" if in_memory == "auto" else "as dataset.in_memory=false says"
    return is_held, f"held in memory: {sizes}" if is_held else f"decoded when needed, {why}"


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:,.{1 if count >= 2**30 else 3}f} GiB"


def free_memory() -> int:
    """Bytes that this machine, or the container that this process runs in, can still give."""
    free = [psutil.virtual_memory().available]
    with suppress(OSError, ValueError):  # without a limit there is no such file, or no number in it
        limit, used = (int((GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        cached = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())["inactive_file"]
        free.append(limit - used + int(cached))
    return max(min(free), 0)


def _sizes(several: list[Photos], skips: bool) -> list[tuple[int, int]]:
    """Width and height of each in the sample, but for those that are broken, if they are to be skipped."""

    def size(number: int) -> tuple[int, int] | None:
        for photos in several:
            if number < len(photos):
                break
            number -= len(photos)
        try:
            return photos.shown(number)
        except BrokenImage:
            if skips:
                return None
            raise

    with ThreadPoolExecutor() as pool:
        sizes = [found for found in pool.map(size, statistics.sample(sum(map(len, several))).tolist()) if found]
    if not sizes:
        raise UserError("dataset.on_broken=skip: none of the images can be read.")
    return sizes


def _loaded(part: ImageSet) -> ImageSet:
    """The same in memory; what is broken is marked, or raises BrokenImage."""
    pixels, photos = np.empty(part.shape, np.uint8), part.store
    assert isinstance(photos, Photos)

    def load(index: int) -> None:
        try:
            pixels[index] = photos.read(index).numpy()
        except BrokenImage:
            if part.broken is None:
                raise
            part.broken[index] = True

    hidden = not sys.stdout.isatty() or len(part) <= statistics.SAMPLE
    try:
        with ThreadPoolExecutor() as pool:
            for _ in track(pool.map(load, range(len(part))), "", len(part), transient=True, disable=hidden):
                pass
    except MemoryError as error:
        raise UserError(
            "dataset.in_memory: reading the images took all memory. Take dataset.in_memory=false."
        ) from error
    return replace(part, store=torch.from_numpy(pixels), photos=photos)


def _content(photos: Photos) -> bytes:
    """SHA-256 of all files, or of the pixels of what is none; what can't be read is told when it is met."""
    digest = hashlib.sha256()
    for index in range(len(photos)):
        with suppress(BrokenImage, OSError):
            item = photos.item(index)
            content = item.read_bytes() if isinstance(item, Path) else item
            digest.update(content if isinstance(content, bytes) else np.array(content).tobytes())
    return digest.digest()
