"""A run as a folder for others: the network in three forms, its source, its report, and a model card."""

from __future__ import annotations

import inspect
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import safetensors.torch
import torch
from jinja2 import Environment, FileSystemLoader

from src.config.errors import RunError
from src.config.files import write_text
from src.config.schema import PACKAGE, ExportConfig, Values
from src.model.components import resolve
from src.model.predictor import Predictor
from src.model.saved import ABOUT, Checkpoint, Content, load, read
from src.results.intervals import percent
from src.results.outcome import Outcome, described
from src.results.screen import describe_origin, near, show_facts, show_note
from src.serving import graph


def share(config: ExportConfig) -> None:
    """Write the folder, whole or not at all, and show what is in it."""
    output, saved = Path(config.output), load(config.checkpoint)
    predictor, outcome = Predictor.of(saved, "cpu", "32-true"), Outcome.of_checkpoint(saved.path)
    source = Path(inspect.getfile(resolve(saved.config.model)))
    try:
        with TemporaryDirectory(dir=output.absolute().parent, prefix=f".{output.name}.") as temporary:
            folder = Path(temporary, output.name)
            folder.mkdir()
            about = graph.write(folder / "model.onnx", predictor, saved.about, "onnx")
            plain = torch.contiguous_format  # the file's own, and each tensor has memory of its own there
            weights = {name: value.clone(memory_format=plain) for name, value in saved.state_dict.items()}
            (folder / "model.safetensors").write_bytes(safetensors.torch.save(weights, {"format": "pt"}))
            torch.save(alone(saved), folder / saved.path.name)
            for file in source, *([saved.path.parent.parent / "report.html"] if outcome else []):
                if file.exists():
                    shutil.copyfile(file, folder / file.name)
            write_text(folder / "README.md", card(saved, outcome, source, about))
            names = sorted(path.name for path in folder.iterdir())
            if output.exists():
                output.rmdir()  # it is empty
            folder.rename(output)
    except OSError as error:
        raise RunError(f"output={output}: {error}.") from error
    show_note(predictor.hardware.note)
    facts = {"folder": str(near(output)), "files": ", ".join(names), "verified": about["verification"]["in_words"]}
    show_facts(facts | {"licence": "choose one: add license: to the head of README.md before you publish"})


def alone(saved: Checkpoint) -> Content:
    """The checkpoint without callbacks and loggers: training alone calls them, and others may lack their code."""
    content, _ = read(saved.path)
    for group in "callbacks", "logger":
        options = content[ABOUT]["config"][group].items()
        content[ABOUT]["config"][group] = {key: value for key, value in options if not isinstance(value, dict)}
    return content


def card(saved: Checkpoint, outcome: Outcome | None, source: Path, about: Values) -> str:
    """The README.md, as the Hugging Face hub reads it."""
    module, _, name = saved.config.model.target.rpartition(".")
    needs = re.search(rf"^\s*(from|import) {PACKAGE}\b", source.read_text(encoding="utf-8"), re.MULTILINE)
    looks: Values = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    template = Environment(loader=FileSystemLoader(Path(__file__).parent), **looks).get_template("card.md")
    return template.render(
        outcome=outcome,
        about=about,
        said=saved.about,
        config=saved.config,
        file=saved.path.name,
        source=source.name,
        imported=f"from {module if needs else source.stem} import {name}",
        needs=needs,
        name=name,
        arguments="".join(f", {key}={value!r}" for key, value in saved.config.model.arguments().items()),
        whose=describe_origin(saved.about.dataset, saved.about.source),
        percent=percent,
        described=described,
    )
