"""What --help shows: groups, options, examples."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from omegaconf import OmegaConf

from src.config.check import check, flat, plain
from src.config.compose import compose, declared
from src.config.groups import GROUPS, options
from src.config.problems import keys, show
from src.config.schema import CONFIGS, PACKAGE, DatasetConfig, InitConfig, Section, TrainerConfig

NAMES = {"optimizer": "nadam", "scheduler": "exponentiallr"}  # of torch's, to show how they are written
EXAMPLES = {
    "train": [
        "dataset=mnist",
        "dataset=cifar10 model=alexnet_bn optimizer=sgd precision=16-mixed device=gpu",
        "dataset=image_folder data_dir=my/photos",
        "-m dataset=mnist,cifar10 optimizer=adamw,sgd seed=1,2",
        "-m sweep=last        # on with the newest sweep",
        "resume=last          # on with the newest unfinished run",
        "again=last           # the newest finished run anew: are the digits the same?",
        "--cfg job            # the whole config, with its values",
    ],
    "eval": ["run=last            # the newest finished run", "checkpoint=best.ckpt split=val dataset=fashion_mnist"],
    "predict": ["run=last input=photos output=answers.csv", "checkpoint=best.ckpt input='scans/**/*.jpg'"],
    "demo": ["run=logs/RUN port=8000"],
    "export": ["run=last output=share/      # a folder for others", "checkpoint=best.ckpt output=net.onnx"],
    "tune": [
        "experiment=quick n_trials=20",
        "dataset=cifar10 search=network pruner=hyperband name=mine",
        "'optimizer.lr=tag(log,interval(1e-4,1e-2))' batch_size=32,64 search=null",
    ],
}


def help_text(door: str, schema: type[Section], chosen: Sequence[str] = ()) -> str:
    """At most 80 columns wide where the words allow; of the options that are `chosen`, if any, only those."""
    if chosen:
        return _chosen(door, schema, chosen)
    groups = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*") if path.is_dir())
    searches = {"search", "sampler", "pruner"}
    shown = {"train": set(groups) - searches, "eval": {"dataset"}, "tune": set(groups)}.get(door, set())
    lines = [f"usage: python -m {PACKAGE}.{door} {'' if door in ('tune', 'demo') else '[-m] '}[KEY=VALUE ...]"]
    if shown:
        lines += ["", "Groups, each a choice of a file in configs/:"]
        for group in (group for group in groups if group in shown):
            library = GROUPS[group].library if group in GROUPS else ""
            names = {file.stem for file in (CONFIGS / group).glob("*.yaml")} if library else options(group)
            words = ", ".join([*sorted(names), *([f"or one of {library}, as {NAMES[group]}"] if library else [])])
            lines += textwrap.wrap(words, 80, initial_indent=f"  {group + '=':<22} ", subsequent_indent=" " * 25)
    lines += ["", "Options:", *_described(schema, OmegaConf.load(CONFIGS / f"{door}.yaml"))]
    if door == "train":
        lines += _described(InitConfig, {}, "init.")
        lines += ["", "Options of a dataset:", *_described(DatasetConfig, {}, "dataset.")]
        lines += ["", "--help GROUP=NAME shows what a choice has, such as --help optimizer=sgd loss=focal."]
        lines += ["", "Options of the trainer, all Lightning's own, such as trainer.max_epochs:"]
        lines += textwrap.wrap(", ".join(TrainerConfig.model_fields), 78, initial_indent="  ", subsequent_indent="  ")
    if door == "tune":
        lines += ["", "All options of train stay fixed if they are named so, and vary if they are named"]
        lines += ["with several values. Each trial is a run with its own folder."]
    lines += ["", "Examples:", *(f"  python -m {PACKAGE}.{door} {example}" for example in EXAMPLES[door]), ""]
    if door != "tune":
        lines += [f"--cfg job prints the config{'' if door == 'demo' else ', -m runs a sweep over KEY=A,B'}."]
    return "\n".join([*lines, "HYDRA_FULL_ERROR=1 shows where an error was raised."])


def _described(schema: type[Section], values: Any, prefix: str = "") -> list[str]:
    lines = []
    for name, field in schema.model_fields.items():
        if field.description:
            default = f" ({show(OmegaConf.select(values, name))})" if name in values else ""
            lines.append(f"  {prefix + name:<{34 if prefix else 22}} {field.description}{default}")
    return lines


def _chosen(door: str, schema: type[Section], chosen: Sequence[str]) -> str:
    """The keys of each choice, with their values and descriptions."""
    config = check(compose(door, declared(chosen)).values, schema)
    described, values = keys(type(config)), flat(plain(config))
    groups = dict.fromkeys(text.lstrip("+").partition("=")[0].replace("/", ".") for text in chosen)
    found = [key for group in groups for key in values if key.startswith(f"{group}.")]
    lines = []
    for key in found:
        lines.append(f"  {f'{key}={show(values[key])}':<44} {described.get(key, '')}".rstrip())
        owner = key.removesuffix("._target_")
        if owner != key and attrgetter(owner)(config).model_config.get("extra") == "allow":
            lines.append(f"  {owner}: and any other that it takes")
    return "\n".join(lines)
