"""The schema of a run: every key with its type and range, checked before torch is imported."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, create_model
from pydantic_core import ErrorDetails

from src import signature

CONFIGS = Path(__file__).parent.parent / "configs"
LARGEST_SEED = 2**32 - 1

Fraction = Annotated[float, Strict(), Field(ge=0, le=1)]
PositiveInt = Annotated[int, Strict(), Field(gt=0)]
NonNegativeInt = Annotated[int, Strict(), Field(ge=0)]
NonNegativeFloat = Annotated[float, Strict(), Field(ge=0)]


class UserError(Exception):
    """A request that can't be served as it stands; its message says what was wrong and what to do."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Component(Section):
    """A class or function by its dotted path, and the arguments that its signature declares."""

    name: str
    target: str = Field(alias="_target_", pattern=r"^(src|torch\.optim)(\.\w+)+$")

    def arguments(self) -> dict[str, Any]:
        """The keys that the target's signature declares, with their values."""
        return {key: getattr(self, key) for key in type(self).model_fields if key not in ("name", "target")}


class AugmentationConfig(Section):
    flip: bool = Field(description="mirror half of the images")
    crop: NonNegativeInt = Field(description="reflect this many pixels at each edge, then cut at random")
    degrees: float = Field(ge=0, le=180, description="rotate by up to this angle")
    translate: Fraction = Field(description="shift by up to this part of the side")
    scale: float = Field(ge=0, lt=1, description="shrink or grow by up to this part")


class DatasetConfig(Component):
    source: Literal["auto", "full", "sample"] = Field(description="local files, download, packaged sample")
    valid_fraction: float = Field(gt=0, lt=1, description="part of the training images kept for validation")
    image_size: PositiveInt = Field(description="side in pixels of what the network sees")
    mean: list[Fraction] | None = Field(description="per channel, of pixels in 0..1; null measures it")
    std: list[Annotated[float, Strict(), Field(gt=0)]] | None = Field(description="likewise")
    augmentation: AugmentationConfig

    def arguments(self) -> dict[str, Any]:
        return {k: v for k, v in super().arguments().items() if k not in DatasetConfig.model_fields}


class OptimizerConfig(Component):
    lr: float = Field(gt=0, description="learning rate")
    weight_decay: NonNegativeFloat = 0.0


class TrainerConfig(Section):
    """Lightning's own names; null leaves Lightning's default."""

    max_epochs: Annotated[int, Strict(), Field(ge=1)] | None = None
    min_epochs: PositiveInt | None = None
    max_steps: Annotated[int, Strict(), Field(ge=-1)] | None = None
    max_time: str | None = None
    limit_train_batches: PositiveInt | Fraction | None = None
    limit_val_batches: PositiveInt | Fraction | None = None
    limit_test_batches: PositiveInt | Fraction | None = None
    overfit_batches: NonNegativeInt | Fraction | None = None
    check_val_every_n_epoch: PositiveInt | None = None
    val_check_interval: PositiveInt | Fraction | None = None
    num_sanity_val_steps: Annotated[int, Strict(), Field(ge=-1)] | None = None
    accumulate_grad_batches: PositiveInt | None = None
    gradient_clip_val: NonNegativeFloat | None = None
    gradient_clip_algorithm: Literal["norm", "value"] | None = None
    log_every_n_steps: PositiveInt | None = None
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    detect_anomaly: bool | None = None
    profiler: Literal["simple", "advanced"] | None = None
    strategy: str | None = None
    num_nodes: PositiveInt | None = None
    sync_batchnorm: bool | None = None
    enable_progress_bar: bool | None = None


class CallbacksConfig(Section):
    early_stopping: PositiveInt | None = Field(description="stop after this many epochs without a gain")


class LoggerConfig(Section):
    tensorboard: bool


Precision = Literal["auto", "32-true", "16-mixed", "bf16-mixed"]
Device = Literal["auto", "cpu", "gpu"]


class TrainConfig(Section):
    dataset: DatasetConfig
    model: Component
    optimizer: OptimizerConfig
    scheduler: Component
    trainer: TrainerConfig
    callbacks: CallbacksConfig
    logger: LoggerConfig
    seed: int = Field(ge=0, le=LARGEST_SEED, description="of everything random in the run")
    batch_size: PositiveInt = Field(description="images a step, on each device")
    num_workers: NonNegativeInt = Field(description="processes that fetch batches; 0 is fastest here")
    data_dir: str = Field(min_length=1, description="where the images lie, or are downloaded to")
    precision: Precision = Field(description="auto is 16-mixed on a GPU, bf16-mixed on CPUs that have it")
    device: Device = Field(description="auto takes the best there is")
    devices: PositiveInt = Field(description="how many of them")
    compile: bool = Field(description="torch.compile the network")
    label_smoothing: Fraction = Field(description="of the training loss")
    resume: str | None = Field(description="a run folder or checkpoint to go on from")


class EvalConfig(Section):
    checkpoint: str = Field(min_length=1, description="the .ckpt file")
    split: Literal["test", "val", "train"] = Field(description="which images to score")
    dataset: DatasetConfig | None = Field(None, description="other images than the checkpoint was trained on")
    data_dir: str | None = Field(description="where the images lie; null: where they were in training")
    batch_size: PositiveInt | None = Field(description="null: as in training")
    num_workers: NonNegativeInt = Field(description="processes that fetch batches")
    precision: Precision | None = Field(description="null: as in training")
    device: Device = Field(description="auto takes the best there is")


SCHEMAS: dict[str, type[Section]] = {"train": TrainConfig, "eval": EvalConfig}
COMPONENTS: dict[str, type[Component]] = {
    "dataset": DatasetConfig,
    "model": Component,
    "optimizer": OptimizerConfig,
    "scheduler": Component,
}
# what experiment.py passes itself, and so is no key of the config
_GIVEN = {
    "dataset": {"data_dir", "source"},
    "model": {"in_channels", "num_classes"},
    "optimizer": {"params", "fused", "foreach", "differentiable", "capturable", "maximize"},
    "scheduler": {"optimizer", "total_steps"},
}


class _Tuple:
    """YAML has lists only."""

    def __class_getitem__(cls, items: tuple[Any, ...]) -> Any:
        return list[items[0]]  # type: ignore[valid-type]


# the words that a signature may use for the type of an option
_TYPES = {
    "int": Annotated[int, Strict()],
    "float": Annotated[float, Strict()],
    "bool": Annotated[bool, Strict()],
    "str": Annotated[str, Strict()],
    "Tensor": Annotated[float, Strict()],  # torch.optim takes lr: float | Tensor
    "list": list,
    "dict": dict,
    "tuple": _Tuple,
    "Fraction": Fraction,
    "PositiveInt": PositiveInt,
    "NonNegativeInt": NonNegativeInt,
    "NonNegativeFloat": NonNegativeFloat,
    "Literal": Literal,
    "Annotated": Annotated,
    "Field": Field,
}


def check_train(config: DictConfig) -> TrainConfig:
    """The typed config of a training run; raises UserError for whatever the schema refuses."""
    checked = check(config, TrainConfig)
    assert isinstance(checked, TrainConfig)
    return checked


def check_eval(config: DictConfig) -> EvalConfig:
    """The typed config of an evaluation; raises UserError likewise."""
    checked = check(config, EvalConfig)
    assert isinstance(checked, EvalConfig)
    return checked


def check(config: DictConfig | dict[str, Any], base: type[Section]) -> Section:
    """Check a composed config, or one out of a checkpoint, against `base` and its targets' signatures."""
    try:
        whole = OmegaConf.create(config)
        own = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
        plain = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise UserError(f"{str(error).rpartition(' ')[2]}: a value is needed.") from error
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0]) from error
    assert isinstance(plain, dict)
    sections: dict[str, Any] = {}
    for group, component in COMPONENTS.items():
        if group in base.model_fields and isinstance(plain.get(group), dict):
            sections[group] = (_component(group, component, plain[group]), ...)
    schema = create_model(base.__name__, __base__=base, **sections)
    try:
        return schema.model_validate(plain)
    except ValidationError as error:
        raise UserError("\n".join(_problems(error, schema))) from error


def _component(group: str, base: type[Component], values: dict[Any, Any]) -> type[Component]:
    target = str(values.get("_target_", ""))
    if not target.startswith(("src.", "torch.optim.")):
        return base  # the pattern of `_target_` refuses it, by name
    try:
        declared = signature.parameters(target)
    except LookupError as error:
        raise UserError(f"{group}._target_={target}: {error}.") from error
    fields: dict[str, Any] = {}
    for name, (annotation, default) in declared.items():
        if name not in _GIVEN[group] and name not in base.model_fields:
            fields[name] = (signature.evaluate(annotation, _TYPES), default)
    return create_model(target.rpartition(".")[2] + "Config", __base__=base, **fields)


_WORDS = {
    "Input should be ": "expected ",
    "a valid ": "a ",
    "a integer": "a whole number",
    "a boolean": "true or false",
    "expected greater": "expected a number greater",
    "expected less": "expected a number less",
}


def _problems(error: ValidationError, schema: type[BaseModel]) -> list[str]:
    """One line for each key that was refused: what, the value, what to do."""
    details = error.errors()
    if foreign := [item for item in details if item["type"] == "string_pattern_mismatch"]:
        details = foreign  # of another class, no other key can be right
    expected: dict[str, list[str]] = {}
    lines = {}
    for item in details:
        # a union reports once for each of its members, and names the member behind the key
        path = [
            str(part) for part in item["loc"] if not re.match(r"constrained-|literal\[|int$|float$|bool$", str(part))
        ]
        key = ".".join(path)
        if item["type"] == "extra_forbidden":
            lines[key] = f"{key}: there is no such key.{nearest(key, keys(schema))}"
        elif item["type"] == "missing":
            lines[key] = f"{key}: a value is needed."
        else:
            expected.setdefault(key, []).append(_expectation(key, item, schema))
            value = item["input"]
            shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
            lines[key] = f"{key}={shown}: expected {' or '.join(dict.fromkeys(expected[key]))}."
    return list(lines.values())


def _expectation(key: str, item: ErrorDetails, schema: type[BaseModel]) -> str:
    if item["type"] == "string_pattern_mismatch":
        return "a class of this project (src....) or of torch.optim"
    message = _range(key, schema) or item["msg"]
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    return message.removeprefix("expected ")


def _range(key: str, schema: type[BaseModel]) -> str | None:
    """The range of a key that has two ends, in words."""
    section: Any = schema
    field: Any = None
    for part in key.split("."):
        field = getattr(section, "model_fields", {}).get(part)
        if field is None:
            return None
        section = field.annotation
    ends = {type(end).__name__: getattr(end, type(end).__name__.lower(), None) for end in field.metadata}
    low, high = ends.get("Gt", ends.get("Ge")), ends.get("Lt", ends.get("Le"))
    return None if low is None or high is None else f"a number between {low:g} and {high:g}"


def keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key of a schema, sections included."""
    found = []
    for name, field in schema.model_fields.items():
        key = prefix + (field.alias or name)
        found.append(key)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += keys(field.annotation, key + ".")
    return found


def nearest(word: str, words: list[str]) -> str:
    """A sentence that names the word meant, or nothing where none is near."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if not close:  # the right leaf in the wrong section, or with no section
        leaf = word.rpartition(".")[2]
        leaves = {name.rpartition(".")[2]: name for name in words}
        close = [leaves[name] for name in difflib.get_close_matches(leaf, list(leaves), n=1, cutoff=0.7)]
    return f" Did you mean {close[0]}?" if close else ""
