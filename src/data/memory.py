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
from torch import Tensor

from src.config.errors import UserError
from src.config.schema import DatasetConfig
from src.data.decoding import BrokenImage
from src.data.images import FIXED_SEED, ImageSet, Source
from src.data.photos import Photos

SAMPLE = 2000  # images that are opened for what holds for all: sizes, mean, standard deviation
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
    fit, largest, skips = dataset.fit, dataset.stored_size, dataset.on_broken == "skip"
    photos = {name: part.store.taken(part.indices) for name, part in parts.items() if isinstance(part.store, Photos)}
    sizes = _sizes(list(photos.values()), skips)
    same = len(set(sizes)) == 1 and max(sizes[0]) <= largest and (fit != "pad" or len({*sizes[0]}) == 1)
    side = min(sorted(map(min if fit == "crop" else max, sizes))[len(sizes) // 2], largest)
    size = sizes[0] if same else (side, side)
    made, digest = dict[str, ImageSet](), hashlib.sha256(repr((size, fit)).encode())
    for name, part in parts.items():
        store = replace(photos[name], size=size, fit=fit)
        broken = torch.zeros(len(part), dtype=torch.bool).share_memory_() if skips else None
        made[name] = ImageSet(store, part.labels, broken=broken)
        digest.update(_content(store) if dataset.checksum == "content" else store.sha256.encode())
        digest.update(b"" if part.indices is None else part.indices.numpy().tobytes())
    needed, free = sum(part.nbytes for part in made.values()) * copies, free_memory()
    held = dataset.in_memory if dataset.in_memory != "auto" else needed < free / 4
    amount, there = (f"{size / 2**30:,.2f} GiB" for size in (needed, free))
    if held and needed > free:
        raise UserError(
            f"dataset.in_memory=true: the images are {amount} once decoded, and {there} are free. Leave it out."
        )
    if held:
        made = {name: _loaded(part) for name, part in made.items()}
    where = f"in memory, {amount}" if held else f"decoded when needed: all are {amount}, and {there} are free"
    sampled = sum(map(len, made.values())) > SAMPLE
    lost = 0 if same or fit != "crop" else sum(3 * min(size) < 2 * max(size) for size in sizes)
    of = f"{lost:,} of {len(sizes):,} images{' looked at' if sampled else ''}"
    much = (
        f"{of} lose more than a third to the cut; dataset.fit=pad keeps them whole." if 10 * lost > len(sizes) else ""
    )
    return replace(
        source,
        **made,
        note="\n       ".join(filter(None, [much, source.note])),
        fitted="" if same or all(width == height for width, height in sizes) else _FITTED[fit],
        held=f"{where}; sizes, mean and std of {SAMPLE:,} of them" if sampled else where,
        sha256=digest.hexdigest(),
    )


def free_memory() -> int:
    """Bytes that this machine, or the container that this process runs in, can still give."""
    free = [psutil.virtual_memory().available]
    with suppress(OSError, ValueError):  # without a limit there is no such file, or no number in it
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        cached = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())["inactive_file"]
        free.append(limit - used + int(cached))
    return max(min(free), 0)


def sample(length: int) -> Tensor:
    """Indices of some images that stand for all, in their order and always the same."""
    generator = torch.Generator().manual_seed(FIXED_SEED)
    return torch.randperm(length, generator=generator)[:SAMPLE].sort().values


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
        sizes = [found for found in pool.map(size, sample(sum(map(len, several))).tolist()) if found]
    if not sizes:
        raise UserError("dataset.on_broken=skip: none of the images can be read.")
    return sizes


def _loaded(part: ImageSet) -> ImageSet:
    """The same in memory; what is broken is marked, or raises BrokenImage."""
    pixels, photos = torch.empty(part.shape, dtype=torch.uint8), part.store
    assert isinstance(photos, Photos)

    def load(index: int) -> None:
        try:
            pixels[index] = photos.read(index)
        except BrokenImage:
            if part.broken is None:
                raise
            part.broken[index] = True

    hidden = not sys.stdout.isatty() or len(part) <= SAMPLE
    try:
        with ThreadPoolExecutor() as pool:
            for _ in track(pool.map(load, range(len(part))), "", len(part), transient=True, disable=hidden):
                pass
    except MemoryError as error:
        raise UserError(
            "dataset.in_memory: reading the images took all memory. Take dataset.in_memory=false."
        ) from error
    return replace(part, store=pixels)


def _content(photos: Photos) -> bytes:
    """SHA-256 of all files, or of the pixels of what is none; what can't be read is told when it is met."""
    digest = hashlib.sha256()
    for index in range(len(photos)):
        with suppress(BrokenImage, OSError):
            item = photos.item(index)
            digest.update(
                item.read_bytes() if isinstance(item, Path) else item if isinstance(item, bytes) else np.array(item)
            )
    return digest.digest()
