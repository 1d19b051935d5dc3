"""What a checkpoint says about itself, and loading one without running anything in it."""

from __future__ import annotations

import pickle
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from src.config.check import check, flat, plain
from src.config.errors import UserError
from src.config.schema import CONFIGS, NonNegativeInt, PositiveInt, Section, TrainConfig, Values, source_file
from src.data.images import Splits, checksum
from src.data.statistics import has_dark_background
from src.model.provenance import Revision, fingerprint, git_revision, versions, way_back

FORMAT = 5  # counts up where an older checkpoint no longer loads
ABOUT = "about"  # the key under which Classifier saves it
Content = dict[str, Any]  # of a whole checkpoint, as Lightning writes it
_STATE = TypeAdapter(dict[str, Tensor], config={"arbitrary_types_allowed": True, "strict": True})


class ImageCounts(Section):
    """Of each split; `sha256` is that of all pixels and labels, and of the cuts."""

    train: NonNegativeInt
    val: NonNegativeInt
    test: NonNegativeInt
    sha256: str


class About(Section, extra="ignore"):
    """What a checkpoint says about itself; a field that came later has a default, for checkpoints without it.

    `config` is the run's, with what `auto` and `null` came to; `size` is (height, width).
    """

    format: int = FORMAT
    config: Values
    classes: list[str] = Field(min_length=2)
    channels: PositiveInt
    size: list[PositiveInt] = Field(min_length=2, max_length=2)
    dark_background: bool = False
    images: ImageCounts
    precision: Literal["32-true", "16-mixed", "bf16-mixed"]
    dataset: str
    source: str
    test_set: str
    command: str = ""
    versions: dict[str, str] = Field({})
    git: Revision | None = None
    init_sha256: str | None = None  # of the file that the run began with, which may be gone
    network_sha256: str = ""  # of the code in the network's file

    @classmethod
    def of(cls, config: TrainConfig, splits: Splits, precision: Any, command: str) -> About:
        name, train, val, test = config.dataset.name, splits.train, len(splits.valid), len(splits.test)
        return cls(
            config=plain(config),
            classes=splits.classes,
            channels=train.shape[1],
            size=list(train.shape[2:]),
            dark_background=has_dark_background(train),
            images=ImageCounts(train=len(train), val=val, test=test, sha256=checksum(splits)),
            precision=precision,
            dataset=name,
            source=splits.origin,
            test_set=f"{name} sample" if splits.origin == "sample" else name,
            command=command,
            versions=versions(),
            git=git_revision(),
            network_sha256=fingerprint(config.model.target),
        )

    @property
    def changed_network(self) -> str | None:
        """What to say of a network whose file is another than in training; its weights may fit all the same."""
        if not self.network_sha256 or fingerprint(target := self.config["model"]["_target_"]) == self.network_sha256:
            return None
        return f"{source_file(target)} has changed since this network was trained: it may compute something else now"

    @property
    def handwritten(self) -> bool:
        """Whether handwritten characters were learned, which lie light on black as MNIST's do."""
        return self.dark_background and all(len(name) == 1 for name in self.classes)


class Checkpoint(NamedTuple):
    """`state_dict` is the network's."""

    path: Path
    config: TrainConfig
    about: About
    state_dict: dict[str, Tensor]

    @classmethod
    def of(cls, path: Path, config: TrainConfig, about: About, content: Content) -> Checkpoint:
        state, prefix = content["state_dict"], "network."
        weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        return cls(path, config, about, weights)


def load(path: str | Path, config: TrainConfig | None = None) -> Checkpoint:
    """Read a checkpoint, of a run with this `config`, or a stranger's; raises UserError if it is missing, damaged, not
    ours, more than values and tensors, or names what nothing here does."""
    content, about = read(Path(path))
    try:
        config = config or check(about.config, TrainConfig, frozenset())
    except UserError as error:
        target = flat(about.config).get("model._target_", "")
        changed = str(error).startswith("model.") and (CONFIGS.parent / source_file(str(target))).exists()
        advice = way_back(target, about.git) if changed else ""
        raise UserError(f"checkpoint={path}: its config can't be used: {error}\n{advice}".rstrip()) from error
    return Checkpoint.of(Path(path), config, about, content)


def read(path: Path) -> tuple[Content, About]:
    """The whole content of a checkpoint of ours, and what it says about itself; raises UserError as `load` does."""
    wrong = f"checkpoint={path}: it"
    if path.is_dir() or not path.exists():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{wrong} {what}. Name a .ckpt file, or a run as logs/NAME.")
    content = unpickle(path, wrong)
    about = content.get(ABOUT) if isinstance(content, dict) else None
    if not isinstance(about, dict) or "format" not in about:
        raise UserError(f"checkpoint={path}: another program wrote it. Only checkpoints of this project are read.")
    if about["format"] != FORMAT:
        theirs = f"has format {about['format']!s:.20}, and this version reads format {FORMAT}"
        raise UserError(f"{wrong} {theirs}. Take the revision that wrote it, or train anew.")
    try:
        _STATE.validate_python(content["state_dict"])
        return content, About.model_validate(about)
    except (ValidationError, KeyError) as error:
        raise UserError(f"{wrong} is damaged, for a part of it is missing or wrong. Take another one.") from error


def unpickle(path: Path, wrong: str) -> Any:
    """What torch saved in a file; raises UserError, whose words follow `wrong`, if it could run code, or is damaged."""
    try:
        if path.suffix == ".safetensors":
            return import_module("safetensors.torch").load_file(path)  # of the extra `timm`
        if zipfile.is_zipfile(path):  # torch itself does not look for a byte that has changed
            with zipfile.ZipFile(path) as file:
                if (damaged := file.testzip()) is not None:
                    raise zipfile.BadZipFile(damaged)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        strange = "holds more than tensors and plain values, which could run code, or is no checkpoint at all"
        raise UserError(f"{wrong} {strange}. It was not loaded.") from error
    except Exception as error:  # damaged pickles and archives raise errors of every kind
        raise UserError(f"{wrong} is damaged or no checkpoint. Take another one.") from error
