"""The notebooks, executed from their first cell to their last."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.notebooks import METADATA, NOTEBOOKS, copy_project, execute

SMALL = "experiment=quick trainer.max_epochs=1 model.widths=[4,8,8,8,8] model.hidden=16 device=cpu"
SMALL += " trainer.limit_train_batches=10 trainer.limit_val_batches=2 trainer.limit_test_batches=2"
A_PATH = re.compile(r"(?<![\w.:/<>])(/[A-Za-z][\w.-]*){2,}|\b[A-Z]:\\")  # of some machine: absolute


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return copy_project(tmp_path)


def pictures(cells: list[Any]) -> int:
    return sum("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))


def text(cells: list[Any]) -> str:
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)


def test_both_are_there() -> None:
    assert [path.name for path in NOTEBOOKS] == ["inside_alexnet.ipynb", "quickstart.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_carry_the_outputs_of_one_execution(path: Path) -> None:
    """`python -m tests.notebooks` writes them."""
    notebook = nbformat.read(path, as_version=4)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in codes] == list(range(1, len(codes) + 1))
    assert pictures(codes) >= 4
    assert path.stat().st_size < 1_000_000
    assert notebook.metadata == METADATA
    outputs = [output for cell in codes for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    shown = [output.get("text", "") for output in outputs]
    shown += [value for output in outputs for kind, value in output.get("data", {}).items() if kind[:5] == "text/"]
    assert not A_PATH.search("".join(shown))


def test_quickstart(project: Path) -> None:
    path = project / "notebooks" / "quickstart.ipynb"
    whole = path.read_text(encoding="utf-8")
    assert "torch.randperm(len(train))" in whole
    path.write_text(whole.replace("torch.randperm(len(train))", "torch.randperm(256)"), encoding="utf-8")
    cells = execute(project, "quickstart.ipynb", SMALL).cells
    assert pictures(cells) == 6
    said = text(cells)
    assert "digits that it has never seen" in said
    assert "1 image was dark on light and inverted" in said


def test_inside_alexnet(project: Path) -> None:
    cells = execute(project, "inside_alexnet.ipynb", f"{SMALL} report=false").cells
    assert pictures(cells) >= 4
    assert "256 x 6 x 6" in text(cells)
    assert "37,752,832" in text(cells)  # weights of the first linear layer


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS])
def test_as_they_stand_under_three_minutes(project: Path, name: str) -> None:
    os.environ.pop("OMP_NUM_THREADS", None)
    began = time.monotonic()
    assert pictures(execute(project, name).cells) >= 4
    assert time.monotonic() - began < 180
