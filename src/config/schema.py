"""The schema of a run: every key with its type and range; check.py checks against it. Imports no torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

PACKAGE = __name__.partition(".")[0]  # by which targets name this project's own
CONFIGS = Path(__file__).parents[2] / "configs"
LARGEST_SEED = 2**32 - 1

Fraction = Annotated[float, Strict(), Field(ge=0, le=1)]
Share = Annotated[float, Strict(), Field(gt=0, le=1)]
PositiveInt = Annotated[int, Strict(), Field(gt=0)]
NonNegativeInt = Annotated[int, Strict(), Field(ge=0)]
NonNegativeFloat = Annotated[float, Strict(), Field(ge=0)]


def _below(path: str) -> str:
    parts = path.replace("\\", "/").split("/")
    if path.startswith(("/", "\\", "~")) or ".." in parts or ":" in parts[0]:
        raise ValueError("a path below data_dir, without .. in it")
    return path


def _given(path: str) -> str:
    if not path:
        raise ValueError("a value")
    return path


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"a regular expression ({error})") from error
    return text


AnyPath = Annotated[str, AfterValidator(_given)]  # any name: see paths.py. min_length would ask for UTF-8
PathBelow = Annotated[str, Strict(), Field(min_length=1), AfterValidator(_below)]  # a config may be a stranger's

Fit = Literal["crop", "pad", "stretch"]
Values = dict[str, Any]  # of a config, plain as YAML has them


def source_file(target: str) -> str:
    """Where the source of a dotted path lies, below the folder of its package."""
    return f"{target.rpartition('.')[0].replace('.', '/')}.py"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Component(Section):
    """A class or function by its dotted path, and the arguments that its signature declares."""

    target: str = Field(alias="_target_")

    def arguments(self) -> Values:
        """The keys that the target's signature declares, with their values."""
        declared = {key: getattr(self, key) for key in type(self).model_fields if key not in ("name", "target")}
        return declared | (self.model_extra or {})  # of a target that takes any


class MapStyle(Component):
    """A class of map-style data sets, which is given data_dir/`root`."""

    root: PathBelow = "."


class NamedComponent(Component):
    name: str = Field(min_length=1)  # in folders of runs, and tables


class Components(Section):
    """Components by names of their own, in their order; null leaves one out."""

    def components(self) -> dict[str, Component]:
        values = {key: getattr(self, key) for key in type(self).model_fields}
        return {key: value for key, value in values.items() if isinstance(value, Component)}


class DatasetConfig(NamedComponent):
    source: Literal["auto", "full", "sample"] = Field(description="local files, download, packaged sample")
    valid_fraction: float = Field(gt=0, lt=1, description="part of the training images kept for validation")
    image_size: PositiveInt | None = Field(description="side in pixels of what the network sees; null: as it asks")
    limit: PositiveInt | None = Field(None, description="only so many of the training images, validation's among them")
    fit: Fit = Field("crop", description="crop, pad or stretch files of another shape")
    stored_size: PositiveInt = Field(256, description="largest side in pixels that files are decoded to")
    in_memory: Literal["auto"] | bool = Field("auto", description="decode files at the start; auto: if they are few")
    on_broken: Literal["stop", "skip"] = Field("stop", description="skip takes another of its class for a broken file")
    checksum: Literal["names", "content"] = Field(
        "names", description="what of files tells a run that they are its own"
    )
    mean: list[Fraction] | None = Field(description="per channel, of pixels in 0..1; null measures it")
    std: list[Annotated[float, Strict(), Field(gt=0)]] | None = Field(description="likewise")
    augmentation: Components

    def arguments(self) -> Values:
        return {k: v for k, v in super().arguments().items() if k not in DatasetConfig.model_fields}


class ParameterGroup(Section):
    """The weights whose names `match`, a regular expression, with options of their own; the optimizer's join them."""

    match: Annotated[str, Strict(), AfterValidator(_pattern)]


class OptimizerConfig(NamedComponent):
    lr: float = Field(gt=0, allow_inf_nan=False, description="learning rate")
    weight_decay: NonNegativeFloat = 0.0
    groups: list[ParameterGroup] = Field([], description="[{match: '^classifier', lr: 1e-3}]: options of some weights")
    decay_bias_and_norm: bool = Field(True, description="false: no weight decay of biases and normalizations")

    def arguments(self) -> Values:
        return {k: v for k, v in super().arguments().items() if k not in ("groups", "decay_bias_and_norm")}


class TrainerConfig(Section):
    """Lightning's own names; null leaves Lightning's default."""

    max_epochs: PositiveInt
    min_epochs: PositiveInt | None = None
    max_steps: Annotated[int, Strict(), Field(ge=-1)] | None = None
    max_time: str | None = Field(None, pattern=r"^\d+:\d\d:\d\d:\d\d$")
    limit_train_batches: PositiveInt | Share | None = None
    limit_val_batches: PositiveInt | Share | None = None
    limit_test_batches: PositiveInt | Share | None = None
    check_val_every_n_epoch: PositiveInt | None = None
    val_check_interval: Share | None = None
    accumulate_grad_batches: PositiveInt | None = None
    gradient_clip_val: NonNegativeFloat | None = None
    gradient_clip_algorithm: Literal["norm", "value"] | None = None
    log_every_n_steps: PositiveInt | None = None
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    detect_anomaly: bool | None = None
    profiler: Literal["simple", "advanced", "pytorch"] | None = None
    strategy: str | None = Field(None, min_length=1)
    num_nodes: PositiveInt | None = None
    sync_batchnorm: bool | None = None
    enable_progress_bar: bool | None = None


class CallbacksConfig(Components):
    checkpoint_minutes: Annotated[float, Strict(), Field(gt=0)] | None = Field(10, description="and when an epoch ends")
    checkpoint_steps: PositiveInt | None = Field(None, description="likewise")
    keep_optimizer: bool = Field(False, description="in a finished run, to go on from; a file four times as large")


class InitConfig(Section):
    weights: AnyPath | None = Field(None, description="a file of weights to begin a new run with")
    skip: list[str] = Field([], description="layers that keep their initial values, as [classifier.6]")
    freeze: list[str] = Field([], description="layers that are not trained, as [features]")


Precision = Literal["auto", "32-true", "16-mixed", "bf16-mixed"]
Device = Literal["auto", "cpu", "gpu"]
Workers = Literal["auto"] | NonNegativeInt


class TrainConfig(Section):
    dataset: DatasetConfig
    model: NamedComponent
    loss: Component
    metrics: Components
    optimizer: OptimizerConfig
    scheduler: NamedComponent
    trainer: TrainerConfig
    callbacks: CallbacksConfig
    logger: Components
    monitor: str = Field(description="what the best checkpoint is the best of: val/loss, val/acc or one of the metrics")
    monitor_mode: Literal["max", "min"] = Field(description="which is better; null: as the metric says")
    seed: int = Field(ge=0, le=LARGEST_SEED, description="of everything random in the run")
    batch_size: PositiveInt = Field(description="images a step, on each device")
    num_workers: Workers = Field(description="processes that fetch batches; auto: none for images in memory")
    data_dir: AnyPath = Field(description="where the images lie, or are downloaded to")
    precision: Precision = Field(description="auto is 16-mixed on CUDA, bf16-mixed on CPUs that have it")
    device: Device = Field(description="auto takes the best there is")
    devices: PositiveInt = Field(description="how many of them")
    compile: bool = Field(description="torch.compile the network")
    init: InitConfig = InitConfig()
    test: bool = Field(True, description="score the best checkpoint on the test set at the end")
    report: bool = Field(True, description="write report.html and summary.png at the end")
    resume: AnyPath | None = Field(description="a run to go on with: its folder, a checkpoint in it, or last")
    again: AnyPath | None = Field(None, description="a finished run to train anew and compare: its folder, or last")


class TuneConfig(Section):
    search: Values = Field({}, description="key: choice(a, b), range(1, 9), interval(0.0, 1.0) ...")
    sampler: NamedComponent
    pruner: NamedComponent | None = None
    name: str | None = Field(pattern=r"^\w[\w.-]*$", description="its folder; null: data set, network and search")
    n_trials: PositiveInt = Field(description="trials in all, of all processes and starts")
    n_seeds: PositiveInt = Field(1, description="runs of each of the best 3 trials, before one is called the best")
    keep_weights: bool = Field(False, description="best.ckpt of every trial; else of the best one alone")
    storage: AnyPath | None = Field(description="a database, as sqlite:///FILE; null: a file in its folder")


_CHECKPOINT = "a .ckpt file, a run's folder or last; also as run="


class EvalConfig(Section):
    checkpoint: AnyPath = Field(description=_CHECKPOINT)
    split: Literal["test", "val", "train"] = Field(description="which images to score")
    dataset: DatasetConfig | None = Field(None, description="other images than the checkpoint was trained on")
    data_dir: AnyPath | None = Field(description="where the images lie; null: where they were in training")
    match: Literal["name", "number"] = Field(description="what tells which of the network's classes a label means")
    batch_size: PositiveInt | None = Field(description="null: as in training")
    num_workers: Workers = Field(description="processes that fetch batches; auto: none for images in memory")
    precision: Precision | None = Field(description="null: as in training")
    device: Device = Field(description="auto takes the best there is")


class PredictConfig(Section):
    checkpoint: AnyPath = Field(description=_CHECKPOINT)
    input: AnyPath = Field(description="an image, a folder of images, or a pattern such as 'scans/*.png'")
    output: AnyPath | None = Field(description="a .csv or .json file for all answers")
    sheet: AnyPath | None = Field(description="a .png file for a contact sheet of some images")
    top_k: PositiveInt = Field(description="classes named for each image")
    invert: bool | None = Field(description="dark on light for light on dark; null: where an image's edge says so")
    centre: bool | None = Field(description="find a digit and centre it; null: in photos, if digits were learned")
    batch_size: PositiveInt = Field(description="images at a time")
    precision: Precision | None = Field(description="null: as in training")
    device: Device = Field(description="auto takes the best there is")


class DemoConfig(Section):
    checkpoint: AnyPath | None = Field(description=f"{_CHECKPOINT}; null: the best new one")
    data_dir: AnyPath | None = Field(description="where the images lie; null: where they were in training")
    device: Device = Field(description="auto takes the best there is")
    port: int = Field(ge=1024, le=65535, description="of this machine, where the page is served")
    open_browser: bool = Field(description="show the page at once")


class ExportConfig(Section):
    checkpoint: AnyPath = Field(description=_CHECKPOINT)
    output: AnyPath = Field(description="the file to write, .onnx or .pt2, or a folder/ to share")
    format: Literal["onnx", "torch_export"] = Field(description="onnx, or torch_export for torch.export.load")
