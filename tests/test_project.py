"""What the README promises, its commands, its examples, and the rooms of the source with their imports."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import mutants
from tests.conftest import NARROW, ROOT, Outcome, only_run, results_of, write_folder

TESTS = ("test", "test-all")
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
SOURCES = sorted((ROOT / "src").rglob("*.py"))
ROOMS = ["config", "data", "model", "results", "training", "serving", "sweeps"]
# what each may import: of those that it stands above, and itself; a door may import all
BELOW = {room: set(ROOMS[: place + 1]) for place, room in enumerate(ROOMS)}
BELOW["serving"] -= {"training"}
BELOW["sweeps"] -= {"serving"}


def make(*arguments: str, cwd: Path = ROOT) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(
    shutil.which("make") is None, reason="make is not on this machine; its targets are for those who have it"
)
class TestMake:
    def test_help_lists_the_targets(self) -> None:
        listed = set(re.findall(r"^make (\S+)", make("help"), re.MULTILINE))
        assert listed >= {"train", "test", "test-all", "lint", "tensorboard", "lock", "clean"}

    def test_train_runs_the_command_that_it_prints(self, door: Callable[..., Outcome], in_tmp: Path) -> None:
        command = next(line for line in make("-n", "train").splitlines() if "src.train" in line)
        arguments = shlex.split(command)[3:]
        assert arguments == ["experiment=quick"]
        limits = [f"trainer.limit_{part}_batches=2" for part in ("train", "val", "test")]
        outcome = door("train", *arguments, *NARROW, *limits, "dataset.source=sample")
        assert outcome.code == 0, outcome.err
        assert "test accuracy" in outcome.out
        assert results_of(only_run(in_tmp))["dataset"]["source"] == "sample"

    def test_test_sets_up_and_runs_pytest_on_the_whole_source(self) -> None:
        fast, whole = (next(line for line in make("-n", name).splitlines() if "pytest" in line) for name in TESTS)
        assert '"not slow"' in fast
        assert "--cov" not in fast, "it would take half as long again"
        assert "slow" not in whole
        assert "--cov-fail-under=90" in whole

    def test_set_up_installs_the_lock_and_nothing_the_second_time(self, tmp_path: Path) -> None:
        shutil.copy(ROOT / "Makefile", tmp_path)
        shutil.copy(ROOT / "requirements.lock", tmp_path)
        assert "requirements.lock" in make("-n", "train", cwd=tmp_path)
        (tmp_path / ".venv").mkdir()
        for mark in (".uv", ".installed-from-lock"):
            (tmp_path / ".venv" / mark).touch()
        assert make("-n", "train", cwd=tmp_path).strip() == ".venv/bin/python -m src.train experiment=quick"

    def test_lock_is_hashed_and_names_no_index(self) -> None:
        lock = (ROOT / "requirements.lock").read_text()
        pinned = [line for line in lock.splitlines() if re.match(r"\w", line)]
        assert len(pinned) > 30
        assert all("==" in line and line.endswith("\\") for line in pinned)
        assert "--index" not in lock
        assert "://" not in lock


def blocks() -> dict[str, str]:
    """File name -> content of each example in the README's section on your own data and network."""
    section = README.partition("## Your own data and network")[2].partition("\n## ")[0]
    return dict(re.findall(r"`((?:configs|src)/\S+)`:\n\n```\w+\n(.*?)```", section, re.DOTALL))


def test_examples_of_the_readme_work_as_they_stand_and_keep_the_tests_green(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for folder in ("src", "configs", "tests", "docs"):
        shutil.copytree(ROOT / folder, project / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("README.md", "pyproject.toml", "Makefile", "requirements.lock"):
        shutil.copy(ROOT / file, project)
    assert sorted(blocks()) == ["configs/dataset/flowers.yaml", "configs/loss/margin.yaml", "src/model/lenet.py"]
    for name, content in blocks().items():
        (project / name).write_text(content)
    write_folder(project / "data" / "flowers", classes=3, count=10)
    (project / "tests" / "test_it.py").write_text(IT)

    names = ["networks_are_found", "help_names", "rooms", "circle", "stem", "sitting", "names_a_reader and flowers"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", " or ".join([*names, "test_it"])]
    files = [f"tests/test_{name}.py" for name in ("it", "signature", "config", "project", "runs")]
    tests = subprocess.run([*command, *files], cwd=project, capture_output=True, text=True)
    assert tests.returncode == 0, tests.stdout
    results = results_of(project / "run")
    assert (results["dataset"]["name"], results["model"]) == ("flowers", "lenet")
    assert "margin: 0.5" in (project / "run/config.yaml").read_text()


IT = """
from tests.conftest import ROOT


def test_it(door):
    words = ["dataset=flowers", "model=lenet", "model.width=4", "dataset.image_size=32", "loss=margin"]
    words += ["loss.margin=0.5", "trainer.max_epochs=1", "device=cpu", f"data_dir={ROOT}/data", "report=false"]
    done = door("train", *words, f"hydra.run.dir={ROOT}/run")
    assert done.code == 0, done.err
    wrong = door("train", *words, "model.widht=4")
    assert wrong.code == 2
    assert "Did you mean model.width?" in wrong.err
"""


def test_the_library_of_the_readme_works_as_it_stands_from_any_folder(trained: Path, tmp_path: Path) -> None:
    section = README.partition("## As a library")[2].partition("\n## ")[0]
    training, predicting = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert [sum(map(bool, text.splitlines())) for text in (training, predicting)] == [8, 3]
    made = "import torch\npixels = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)\n"
    predicting = predicting.replace("logs/RUN", str(trained)) + "print(tuple(probabilities.shape))\n"
    short = "max_epochs=1, limit_train_batches=2, limit_val_batches=2, limit_test_batches=2"
    training = training.replace("max_epochs=1", f'{short}, accelerator="cpu"')
    training = training.replace(
        '"dataset.limit=200"', '"dataset.limit=40", "batch_size=8", "model.widths=[4,4,4,4,4]", "model.hidden=16"'
    )
    assert "batch_size" in training
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", training + made + predicting],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "test/acc" in done.stdout
    assert "Total params" in done.stdout, "a stock summary of the model"
    assert done.stdout.splitlines()[-1] == "(2, 10)"


def test_links_lead_to_files() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_files_and_names_in_the_readme_are_there() -> None:
    named = re.findall(r"`((?:src|configs|docs|tests|benchmarks)/[\w/.]+)`(?:, `([\w.]+)`)?", README)
    assert len(named) > 10
    for path, name in named:
        if path in blocks():
            continue
        assert (ROOT / path).exists(), path
        for word in filter(None, name.split(".")):
            assert re.search(rf"(class|def) {word}\b", (ROOT / path).read_text()), (path, name)
    assert len(README.splitlines()) <= 190


def test_commands_of_the_pages_are_accepted(door: Callable[..., Outcome]) -> None:
    commands = re.findall(r"^    python -m src\.train (.*)$", COMMANDS, re.MULTILINE)
    assert len(commands) >= 12
    for command in dict.fromkeys(commands):
        if command.startswith("--"):
            continue
        words = shlex.split(command, comments=True)
        outcome = door("train", *words, "batch_size=0")
        wrong = "sweep=last: there is no sweep below" if "sweep=last" in command else "batch_size=0: expected a number"
        assert outcome.err.startswith(f"error: {wrong}"), command
    searches = re.findall(r"^    python -m src\.tune (.*)$", COMMANDS, re.MULTILINE)
    assert len(searches) >= 3
    for command in searches:
        outcome = door("tune", *shlex.split(command, comments=True), "batch_size=0")
        assert outcome.err.startswith("error: batch_size=0: expected a number"), command


def imports_of(path: Path) -> Iterator[str]:
    """The modules of src that a file imports, within functions and for types too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "src")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "src":
            for alias in node.names:
                inner = ROOT.joinpath(*str(node.module).split("."), f"{alias.name}.py")
                yield f"{node.module}.{alias.name}" if inner.exists() else str(node.module)


def test_imports_go_down_from_room_to_room() -> None:
    for path in SOURCES:
        room = path.relative_to(ROOT / "src").parts[0]
        for module in imports_of(path):
            target = module.split(".")[1]
            if room in BELOW:
                assert target in BELOW[room], f"{path.relative_to(ROOT)} imports {module}"
            else:
                assert target in ROOMS, f"{path.relative_to(ROOT)}, a door, imports {module}"


def test_no_circle_of_imports() -> None:
    arrows = {".".join(path.relative_to(ROOT).with_suffix("").parts): set(imports_of(path)) for path in SOURCES}
    while leaves := {module for module, targets in arrows.items() if not targets & arrows.keys()}:
        arrows = {module: targets for module, targets in arrows.items() if module not in leaves}
    assert not arrows, f"a circle among {sorted(arrows)}"


def test_src_shows_its_doors_and_rooms_alone() -> None:
    shown = {path.name for path in (ROOT / "src").iterdir() if path.name != "__pycache__"}
    doors = {f"{name}.py" for name in ("train", "eval", "predict", "export", "report", "tune", "demo")}
    assert shown == {*doors, *ROOMS, "__init__.py"}
    for door in doors:
        assert len((ROOT / "src" / door).read_text().splitlines()) <= 60, door


@pytest.mark.parametrize("door", ["train", "eval", "predict", "export", "report", "tune", "demo"])
def test_a_door_can_be_started_by_its_file_from_any_folder(tmp_path: Path, door: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(ROOT / "src" / f"{door}.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m src.{door}")


def test_no_two_files_share_a_stem() -> None:
    stems = Counter(path.stem for path in SOURCES if path.name != "__init__.py")
    assert not [stem for stem, count in stems.items() if count > 1]


def test_a_command_line_is_read_once_and_private_parts_of_libraries_stay_private() -> None:
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in SOURCES}
    readers = [path for path, text in texts.items() if "sys.argv" in text]
    assert all(texts[path].count("sys.argv") == 1 for path in readers)
    assert set(readers) <= {"src/config/cli.py", "src/report.py", "src/tune.py"}, "one door, one look"
    assert not [path for path, text in texts.items() if "hydra._internal" in text]
    loops = r"fit_loop|epoch_loop|_checkpoint_connector|_batches_that_stepped"
    assert [path for path, text in texts.items() if re.search(loops, text)] == ["src/training/position.py"]
    assert not [path for path, text in texts.items() if "benchmarks" in text]


def test_no_source_file_outgrows_a_sitting() -> None:
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 250, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno:
                assert node.end_lineno - node.lineno < 40, f"{path}, {node.name}"


def test_what_lives_on_the_internals_of_lightning_is_bound_to_them() -> None:
    """The resume sets Lightning's loop counters, which another minor version may change."""
    assert '"lightning>=2.6,<2.7"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_each_change_that_the_tests_must_see_can_still_be_made() -> None:
    changes = mutants.read(mutants.LIST)
    assert len(changes) > 70
    for change in changes:
        assert (ROOT / change.file).read_text(encoding="utf-8").count(change.old) == 1, change
        assert change.new != change.old
        for test in change.tests:
            path, *names = test.split("::")
            text = (ROOT / path).read_text(encoding="utf-8")
            assert all(re.search(rf"(class|def) {name}\b", text) for name in names), test
