"""The notebooks, executed from their first cell to their last."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SMALL = "experiment=quick trainer.max_epochs=1 model.widths=[8,16,24,16,16] model.hidden=64 device=cpu"
SMALL += " trainer.limit_train_batches=20"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what the notebooks call, so that nothing is written into the repository."""
    for part in ("src", "configs", "notebooks"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return tmp_path


def execute(project: Path, name: str, options: str | None) -> list[Any]:
    """The cells with their outputs; `options` replace those that the notebook trains with."""
    notebook = nbformat.read(project / "notebooks" / name, as_version=4)
    if options:
        (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        before = cell.source
        lines = [f'OPTIONS = "{options}"' if line.startswith("OPTIONS =") else line for line in before.splitlines()]
        cell.source = "\n".join(lines)
        assert cell.source != before
    client = NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(project / "notebooks")}})
    client.execute()
    return notebook.cells


def pictures(cells: list[Any]) -> int:
    return sum("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))


def text(cells: list[Any]) -> str:
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)


def test_both_are_there_without_outputs() -> None:
    assert [path.name for path in NOTEBOOKS] == ["inside_alexnet.ipynb", "quickstart.ipynb"]
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        assert not any(cell.get("outputs") for cell in cells), f"{path} has outputs: clear them before a commit"


def test_quickstart(project: Path) -> None:
    cells = execute(project, "quickstart.ipynb", SMALL)
    assert pictures(cells) == 6
    said = text(cells)
    assert "digits that it has never seen" in said
    assert "1 image was dark on light and inverted" in said


def test_inside_alexnet(project: Path) -> None:
    cells = execute(project, "inside_alexnet.ipynb", SMALL)
    assert pictures(cells) >= 4
    assert "256 x 6 x 6" in text(cells)
    assert "37,752,832" in text(cells)  # weights of the first linear layer


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS])
def test_as_they_stand_under_three_minutes(project: Path, name: str) -> None:
    os.environ.pop("OMP_NUM_THREADS", None)
    began = time.monotonic()
    assert pictures(execute(project, name, None)) >= 4
    assert time.monotonic() - began < 180
