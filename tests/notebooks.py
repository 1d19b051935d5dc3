"""Executes the notebooks in a copy of the project and keeps their outputs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def copy_project(folder: Path) -> Path:
    """A copy of what the notebooks call, so that nothing is written into the repository."""
    for part in ("src", "configs", "notebooks"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def execute(project: Path, name: str, options: str | None = None) -> Any:
    """The notebook with its outputs; `options` replace those that it trains with."""
    notebook = nbformat.read(project / "notebooks" / name, as_version=4)
    if options:
        (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        before = cell.source
        lines = [f'OPTIONS = "{options}"' if line.startswith("OPTIONS =") else line for line in before.splitlines()]
        cell.source = "\n".join(lines)
        assert cell.source != before
    environment = os.environ | {"PYTHONPATH": str(project), "IPYTHONDIR": str(project / "ipython")}
    resources = {"metadata": {"path": str(project / "notebooks")}}
    NotebookClient(notebook, timeout=900, record_timing=False, resources=resources).execute(env=environment)
    notebook.metadata = nbformat.from_dict(METADATA)  # without this Python's version
    return notebook


def main() -> None:
    for path in NOTEBOOKS:
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            nbformat.write(execute(copy_project(Path(folder)), path.name), path)
        print(f"{path.relative_to(ROOT)}: executed")


if __name__ == "__main__":
    main()
