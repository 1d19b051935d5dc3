"""The groups, their options, and what --help shows of them; imports no torch."""

from __future__ import annotations

import textwrap
from typing import Any

from omegaconf import OmegaConf

from src.config import signature
from src.config.groups import networks, options
from src.config.schema import CONFIGS, AugmentationConfig, DatasetConfig, Section, TrainerConfig

EXAMPLES = {
    "train": [
        "python -m src.train dataset=mnist",
        "python -m src.train dataset=cifar10 model=alexnet_bn optimizer=sgd precision=16-mixed device=gpu",
        "python -m src.train experiment=quick trainer.max_epochs=1",
        "python -m src.train dataset=image_folder data_dir=my/photos",
        "python -m src.train -m dataset=mnist,cifar10 optimizer=adamw,sgd seed=1,2",
        "python -m src.train -m sweep=last        # on with the newest sweep",
        "python -m src.train resume=last          # on with the newest unfinished run",
        "python -m src.train --cfg job            # the whole config, with its values",
    ],
    "eval": [
        "python -m src.eval checkpoint=logs/RUN/checkpoints/best.ckpt",
        "python -m src.eval checkpoint=best.ckpt split=val device=cpu",
        "python -m src.eval checkpoint=best.ckpt dataset=fashion_mnist",
    ],
    "predict": [
        "python -m src.predict checkpoint=best.ckpt input=digit.png",
        "python -m src.predict checkpoint=best.ckpt input=photos output=answers.csv top_k=3",
        "python -m src.predict checkpoint=best.ckpt input='scans/**/*.jpg' sheet=sheet.png",
    ],
    "demo": [
        "python -m src.demo                       # the newest finished run below logs/",
        "python -m src.demo checkpoint=logs/RUN/checkpoints/best.ckpt port=8000",
    ],
    "export": [
        "python -m src.export checkpoint=best.ckpt output=mnist.onnx",
        "python -m src.export checkpoint=best.ckpt output=mnist.onnx int8=true",
        "python -m src.export checkpoint=best.ckpt output=mnist.pt2 format=torch_export",
    ],
    "tune": [
        "python -m src.tune experiment=quick n_trials=20",
        "python -m src.tune dataset=cifar10 search=network pruner=hyperband name=mine",
        "python -m src.tune 'optimizer.lr=tag(log,interval(1e-4,1e-2))' batch_size=32,64 search=null",
        "python -m src.tune experiment=quick storage=sqlite:///trials.db",
    ],
}
SEARCHES = {"search", "sampler", "pruner"}


def groups() -> list[str]:
    """The folders below configs/, nested ones as parent/child."""
    return sorted(str(path.relative_to(CONFIGS).as_posix()) for path in CONFIGS.rglob("*") if path.is_dir())


def help_text(door: str, schema: type[Section]) -> str:
    """Groups, options and examples, at most 80 columns wide where the words allow."""
    lines = [f"usage: python -m src.{door} {'' if door in ('tune', 'demo') else '[-m] '}[KEY=VALUE ...]"]
    wanted = {"train": set(groups()) - SEARCHES, "eval": {"dataset"}, "tune": set(groups())}.get(door, set())
    if chosen := [group for group in groups() if group in wanted]:
        lines += ["", "Groups, each a choice of a file in configs/:"]
        lines += [f"  {group + '=':<22} {', '.join(options(group))}" for group in chosen]
    lines += ["", "Options:", *_described(schema, OmegaConf.load(CONFIGS / f"{door}.yaml"))]
    if door == "train":
        lines += ["", "Options of a dataset:"]
        lines += _described(DatasetConfig, {}, "dataset.")
        lines += _described(AugmentationConfig, {}, "dataset.augmentation.")
        for group in ("model", "optimizer", "scheduler"):
            for name in options(group):
                lines += _wrapped(f"Options of {group}={name}:", [f"{group}.{key}" for key in _keys(group, name)])
        lines += _wrapped("Options of the trainer, all Lightning's own:", list(TrainerConfig.model_fields), "trainer.")
    if door == "tune":
        lines += ["", "All options of src.train stay fixed if they are named so, and vary if they are named with"]
        lines += ["several values. Each trial is a run with its own folder."]
    lines += ["", "Examples:", *(f"  {example}" for example in EXAMPLES[door])]
    if door != "tune":
        sweeps = "" if door == "demo" else ", -m runs a sweep over KEY=A,B"
        lines += ["", f"--cfg job prints the config{sweeps}."]
    lines += ["", "HYDRA_FULL_ERROR=1 shows where an error was raised."]
    return "\n".join(lines)


def _described(schema: Any, values: Any, prefix: str = "") -> list[str]:
    lines = []
    for name, field in schema.model_fields.items():
        if field.description:
            value = OmegaConf.select(values, name, throw_on_missing=False) if values else None
            shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
            default = f" ({shown})" if name in values else ""
            lines.append(f"  {prefix + name:<{34 if prefix else 22}} {field.description}{default}")
    return lines


def _keys(group: str, name: str) -> list[str]:
    file = CONFIGS / group / f"{name}.yaml"
    values = OmegaConf.load(file) if file.exists() else signature.parameters(networks()[name])
    return [str(key) for key in values if key not in ("name", "_target_", "defaults", "in_channels", "num_classes")]


def _wrapped(title: str, words: list[str], prefix: str = "") -> list[str]:
    text = ", ".join(prefix + word for word in words) or "none"
    if len(title) + len(text) < 79:
        return ["", f"{title} {text}"] if prefix else [f"{title} {text}"]
    return ["", title, *textwrap.wrap(text, 78, initial_indent="  ", subsequent_indent="  ")]
