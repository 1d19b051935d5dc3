"""What a search has found, as an experiment to train with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import QuotedString
from omegaconf import OmegaConf

from src.config.compose import parse
from src.config.files import write_text
from src.config.folder import FREE
from src.config.groups import is_group
from src.results.table import experiment_command

# of the machine or of the search, not of what was found
_LEFT_OUT = (FREE - {"trainer.max_epochs", "data_dir"}) | {"test", "report"}


def save_best(folder: Path, overrides: Sequence[str], found: str) -> None:
    """Write the options of the best trial as `experiment/best.yaml`: groups as its defaults, the values below; what
    was `found` with them as a comment."""
    options = OmegaConf.create({"defaults": []})
    for override in parse(overrides):
        key, value = override.key_or_group, override.value()
        if key == "experiment":
            options.defaults.insert(0, value)
        elif is_group(key):
            options.defaults.append({f"override /{key}": value})
        elif not key.startswith("hydra") and key not in _LEFT_OUT:
            OmegaConf.update(options, key, value.text if isinstance(value, QuotedString) else value)
    comment = f"{experiment_command(folder)}\n# {found}"
    text = f"# @package _global_\n# {comment}\n{OmegaConf.to_yaml(options)}"
    (folder / "experiment").mkdir(exist_ok=True)
    write_text(folder / "experiment/best.yaml", text)
