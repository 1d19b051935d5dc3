"""Data sets of Hugging Face's library `datasets`: Parquet, Arrow and image files here, or names on its hub."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from src.config.errors import UserError, need
from src.data.decoding import Encoded
from src.data.fetching import PATIENCE, watch
from src.data.images import ImageSet, Source
from src.data.photos import Photos

if TYPE_CHECKING:
    from datasets import Dataset, Features

_SPLITS = {"train": "train", "validation": "valid", "valid": "valid", "val": "valid", "dev": "valid", "test": "test"}
_KINDS = {"image": ("Image",), "label": ("ClassLabel", r"Value\('(u?int|string|large_string)")}  # the first there is


class Rows(Sequence[Encoded]):
    """The images of a table on the disk; a process that they are sent to maps the same file."""

    def __init__(self, table: Any, column: str) -> None:
        from datasets import Image

        self.table, self.column = table.select_columns(column).cast_column(column, Image(decode=False)), column

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Encoded:  # type: ignore[override]
        image = self.table[index][self.column]
        return image["bytes"] or Path(image["path"])

    def sha256(self) -> str:
        """Of their sizes in bytes, and of the names of those that lie in files of their own: pixels take too long."""
        from pyarrow import compute

        data, paths = (compute.struct_field(self.table.data.column(self.column), part) for part in ("bytes", "path"))
        sizes = compute.fill_null(compute.binary_length(data), 0).to_numpy()
        names = [Path(path or "").name for path in compute.filter(paths, compute.is_null(data)).to_pylist()]
        return hashlib.sha256(sizes.tobytes() + repr(names).encode()).hexdigest()


def read_hub(
    data_dir: Path,
    source: str,
    path: str,
    subset: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    channels: Literal[1, 3] = 3,
    download: bool = True,
) -> Source:
    """Read a folder or file at `path`, else the `subset` of a data set of this name on the hub, with its own splits.

    It lies in the library's cache, not in `data_dir`; without `download` no network is asked. Raises UserError if it
    can't be had, a column is missing or may be one of several, or a label is none of the training set's classes.
    """
    need("datasets", "huggingface", "dataset=huggingface")
    if source == "sample":
        raise UserError("dataset.source=sample: the hub has no packaged sample. Use auto or full.")
    with _refusing(path, Exception):  # files, the network and the library raise errors of every kind
        found = _loaded(path, subset, download)
    with _refusing(path, UserError, ValueError, NotImplementedError):  # the last two of tables
        tables, unused = _splits(found)
        features, sets = tables["train"].features, dict[str, ImageSet]()
        image, label = _column("image", features, image_column), _column("label", features, label_column)
        classes, values = _classes(tables["train"].unique(label), features[label])
        for split, table in tables.items():
            if any(table.features.get(column) != features[column] for column in (image, label)):
                raise UserError(f"{image} and {label} are not of the same kind in {split} as in train.")
            if split != "train" and set(table.unique(label)) <= {-1, None}:
                unused.append(f"{split}, whose labels are not told")
                continue
            labels, rows = _labels(split, table.data.column(label), values), Rows(table, image)
            sets[split] = ImageSet(Photos(rows, channels, f"{split} {rows.sha256()}", f"{path}, {split}"), labels)
    note = f"Of {path} are left out: {', '.join(unused)}." if unused else ""
    return Source(sets["train"], classes, "full", sets.get("valid"), sets.get("test"), note)


@contextmanager
def _refusing(path: str, *kinds: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kinds as error:
        raise UserError(f"dataset.path={path}: {_words(error)}.") from error


def _loaded(path: str, subset: str | None, download: bool) -> Any:
    """What the library reads there, from the hub, or from what it has kept of it where that can't be asked."""
    import datasets
    import huggingface_hub as hub
    from datasets.packaged_modules.cache.cache import Cache

    datasets.disable_progress_bars()  # they and the log lines would disturb the screen
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # it asks the network for what lies here
    for log in (datasets.logging, hub.logging):
        log.set_verbosity(log.CRITICAL)
    place, kind = Path(path).absolute(), Path(path).suffix[1:]
    if any((place / state).exists() for state in ("state.json", "dataset_dict.json")):
        return datasets.load_from_disk(place, keep_in_memory=False)
    if place.is_file():
        if kind not in ("parquet", "arrow"):
            raise UserError("expected a folder, a .parquet or .arrow file, or a name on the hub")
        return datasets.load_dataset(kind, data_files=glob.escape(str(place)), keep_in_memory=False)
    if not place.exists() and (refusal := _refusal(path) if download else "dataset.download=false"):
        try:
            return Cache(None, path.rpartition("/")[2], subset, "auto", "auto", repo_id=path).as_dataset()
        except Exception as error:
            raise UserError(f"no such file or folder, {refusal}, and {_words(error)}") from error
    return datasets.load_dataset(str(place) if place.exists() else path, subset, keep_in_memory=False)


def _refusal(path: str) -> str:
    """Why the hub gives no data set of this name, sooner than the library, which tries for minutes; "" if it does."""
    from huggingface_hub import HfApi, errors

    try:
        watch(lambda name, _: HfApi().dataset_info(name, timeout=PATIENCE), path, Path(path), PATIENCE / 2)
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        return "the hub shows none of this name without a login"
    except Exception as error:  # of the network
        return f"the hub can't be reached ({_words(error)})"
    return ""


def _words(error: Exception) -> str:
    text = str(error if isinstance(error, UserError) else error.__cause__ or error).partition("\nExample of usage")[0]
    return shorten(text, 300, placeholder=" ...").rstrip(".") or type(error).__name__


def _splits(found: Any) -> tuple[dict[str, Dataset], list[str]]:
    """The tables of our splits, and the names of the others."""
    found = found if isinstance(found, dict) else {"train": found}
    named = {ours: name for name, ours in reversed(_SPLITS.items()) if found.get(name)}
    if len(found) == 1 and all(found.values()):
        named = {"train": next(iter(found))}
    if "train" not in named:
        raise UserError(f"it has {', '.join(found)}, and no images in a split train")
    return {ours: found[name] for ours, name in named.items()}, [name for name in found if name not in named.values()]


def _column(key: str, features: Features, named: str | None) -> str:
    """The one that is named, or the only one of a kind."""
    kinds = ([name for name, kind in features.items() if re.match(wanted, repr(kind))] for wanted in _KINDS[key])
    found = [*{named} & features.keys()] if named else next(filter(None, kinds), [])
    if found and key == "label" and not any(re.match(wanted, repr(features[found[0]])) for wanted in _KINDS[key]):
        raise UserError(f"the column {named} holds no labels, but {features[found[0]]!r}. Set dataset.label_column")
    if len(found) != 1:
        wrong = f"it has no column {named}" if named else f"which column holds the {key}s is not clear"
        raise UserError(f"{wrong}. Set dataset.{key}_column to one of {', '.join(features)}")
    return found[0]


def _classes(labels: list[Any], feature: Any) -> tuple[list[str], list[Any]]:
    """The names of the classes, and the labels that mean them."""
    names, values = getattr(feature, "names", None), sorted({*labels} - {None})
    whole = len(names) if names else values[-1] + 1 if values and isinstance(values[0], int) else 0
    if not 2 <= (whole or len(values)) <= 2**16:
        raise UserError(f"its labels mean {whole or len(values):,} classes; expected from 2 to {2**16:,}")
    values = list(range(whole)) or values
    return names or [str(value) for value in values], values


def _labels(split: str, column: Any, values: list[Any]) -> Tensor:
    from pyarrow import array, compute

    indices = compute.fill_null(compute.index_in(column, value_set=array(values, column.type)), -1).to_numpy()
    if indices[row := int(indices.argmin())] < 0:
        raise UserError(f"row {row} of {split} has the label {column[row]}, which is none of the classes of train")
    return torch.tensor(indices, dtype=torch.int64)
