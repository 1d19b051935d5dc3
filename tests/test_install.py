"""What is installed and when, the lock, and what a clone brings for those who take it over."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from src.config.cli import LOGGERS
from src.config.errors import UserError, need
from tests.conftest import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
WORKFLOW = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
UV = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
NEEDS_MAKE = pytest.mark.skipif(shutil.which("make") is None, reason="make is not on this machine")


def run(*command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command as a user gives it: outside of a make or a git that runs the tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "GIT_"))}
    return subprocess.run(command, cwd=cwd, env=environment | variables, capture_output=True, text=True)


@NEEDS_MAKE
class TestExtras:
    """They are in the lock with all else, and installed when first asked for."""

    @pytest.fixture
    def clone(self, tmp_path: Path) -> Path:
        """Where `make train` has been."""
        shutil.copy(ROOT / "Makefile", tmp_path)
        (tmp_path / "requirements.lock").touch()
        (tmp_path / ".venv").mkdir()
        for mark in (".uv", ".installed-from-lock"):
            (tmp_path / ".venv" / mark).touch()
        return tmp_path

    @pytest.mark.parametrize(
        ("target", "options", "mark"),
        [
            ("demo", "--extra demo", ".with-demo"),
            ("notebooks", "--extra notebooks", ".with-notebooks"),
            ("test", "--all-extras --group dev", ".with-all"),
            ("lint", "--all-extras --group dev", ".with-all"),
        ],
    )
    def test_target_installs_what_it_needs_once(self, clone: Path, target: str, options: str, mark: str) -> None:
        lines = run("make", "-n", target, cwd=clone).stdout.splitlines()
        installs = [line for line in lines if "uv pip install" in line]
        assert [line.partition("-r pyproject.toml ")[2] for line in installs] == [options]
        (clone / ".venv" / mark).touch()
        assert "uv pip" not in run("make", "-n", target, cwd=clone).stdout

    def test_training_needs_none(self, clone: Path) -> None:
        (clone / ".venv" / ".installed-from-lock").unlink()
        installs = [line for line in run("make", "-n", "train", cwd=clone).stdout.splitlines() if "uv pip" in line]
        assert len(installs) == 2
        assert installs[0].endswith("--constraint requirements.lock -r pyproject.toml")
        assert "--no-deps" in installs[1]
        assert not re.search("--extra|--all-extras|--group", "".join(installs))

    @pytest.mark.skipif(UV is None, reason="uv is not on this machine")
    def test_they_have_the_versions_of_the_lock_and_no_other_hash(self, clone: Path) -> None:
        assert UV
        wheels = [wheel(clone, version) for version in ("1.0", "2.0")]
        project = '[project]\nname = "p"\nversion = "1"\n[project.optional-dependencies]\nextra = ["part"]\n'
        (clone / "pyproject.toml").write_text(project)
        alone = {"UV_OFFLINE": "1", "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(clone), "UV_NO_CONFIG": "1"}
        alone |= {"UV_CACHE_DIR": str(clone / "cache"), "UV_LINK_MODE": "copy"}
        assert run(UV, "venv", "--allow-existing", "--python", sys.executable, ".venv", cwd=clone).returncode == 0
        (clone / ".venv" / "bin" / "uv").symlink_to(UV)
        lock = clone / "requirements.lock"
        for hashed, code in (wheels[1], 2), (wheels[0], 0):
            lock.write_text(f"part==1.0 --hash=sha256:{hashlib.sha256(hashed.read_bytes()).hexdigest()}\n")
            os.utime(lock, (0, 0))
            done = run("make", "extra", "NAME=extra", cwd=clone, **alone)
            assert done.returncode == code, done.stderr
            assert ("Hash mismatch for `part==1.0`" in done.stderr) == (code == 2)
        assert list(clone.glob(".venv/lib/*/site-packages/part-1.0.dist-info"))
        done = run("make", "extra", "NAME=extar", cwd=clone, **alone)
        assert done.returncode == 2
        assert "extra" in done.stderr

    def test_option_that_needs_one_names_the_command(self) -> None:
        with pytest.raises(
            UserError, match=r'pip install "alexnet-template\[timm\]", or in a clone make extra NAME=timm'
        ):
            need("nothing_like_it", "timm", "a test")
        sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
        named = {extra for _, extra in LOGGERS.values() if extra}
        named |= set(re.findall(r'need\((?:"\w+"|\w+), "(\w+)"', sources))
        assert {"export", "demo", "huggingface", "timm", "wandb"} <= named <= EXTRAS.keys()


def wheel(folder: Path, version: str) -> Path:
    """A package called part, with nothing in it."""
    path, about = folder / f"part-{version}-py3-none-any.whl", f"part-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: part\nVersion: {version}\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/RECORD", "".join(f"{about}/{name},,\n" for name in ("METADATA", "WHEEL", "RECORD")))
    return path


def test_lock_has_all_that_the_project_asks_for() -> None:
    pinned = re.findall(
        r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE
    )
    asked = [*PROJECT["project"]["dependencies"], *chain(*EXTRAS.values()), *PROJECT["dependency-groups"]["dev"]]
    assert len(asked) > 30
    for requirement in map(Requirement, asked):
        versions = [version for name, version in pinned if name == requirement.name.lower()]
        assert versions, requirement
        assert all(version in requirement.specifier for version in versions), requirement


def test_digits_are_read_without_scikit_learn() -> None:
    program = "import sys; sys.modules['sklearn'] = None\nfrom src.data.readers import read_mnist_sample as read\n"
    program += "print(len(read().train), [name for name in sys.modules if name.startswith('sklearn.')])"
    done = run(sys.executable, "-c", program, cwd=ROOT)
    assert done.stdout == "4000 []\n", done.stderr
    assert PROJECT["tool"]["uv"]["dependency-metadata"] == [{"name": "mlxtend", "requires-dist": ["numpy"]}]


@pytest.mark.parametrize("package", ["lightning", "hydra-core", "optuna", "optuna-integration", "gradio", "datasets"])
def test_what_is_used_beyond_its_public_parts_is_bound_from_above(package: str) -> None:
    """Loop counters, the parser of overrides, a storage's files, a page's elements, a cache's layout."""
    asked = [*PROJECT["project"]["dependencies"], *chain(*EXTRAS.values())]
    (requirement,) = [item for item in map(Requirement, asked) if item.name == package]
    assert {item.operator for item in requirement.specifier} == {">=", "<"}


def test_commands_of_make_that_anything_names_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
    named = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for words in re.findall(r"(?:^    |`|&& )make ((?:[a-z][a-z-]*(?= |`|$) ?)+)", text, re.MULTILINE):
            named |= set(words.split())
    assert {"train", "test", "test-lowest", "lint", "demo", "extra", "new", "bench-table"} <= named
    commands = [*steps(), *(ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()]
    named |= {line.split()[1] for line in commands if line.startswith("make ")}
    assert named <= targets, named - targets
    assert targets <= set(re.findall(r"\S+", re.findall(r"^\.PHONY:(.*)", MAKEFILE, re.MULTILINE)[0]))


def steps() -> list[str]:
    jobs = yaml.safe_load(WORKFLOW)["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def test_ci_runs_what_the_makefile_runs_with_actions_that_cannot_change() -> None:
    assert {"make lint", "make test"} <= set(steps())
    jobs = yaml.safe_load(WORKFLOW)["jobs"]
    assert {system.split("-")[0] for system in jobs["smoke"]["strategy"]["matrix"]["os"]} == {"macos", "windows"}
    used = re.findall(r"uses: (\S+)", WORKFLOW)
    assert len(used) == 4
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in used)
    smoke = [step["run"] for step in jobs["smoke"]["steps"] if "run" in step]
    version = re.findall(r"^UV_VERSION := (.*)", MAKEFILE, re.MULTILINE)[0]
    assert smoke[0].endswith(f"uv=={version}")
    for command in smoke[1:3]:
        words = command.removeprefix("uv pip install --system ")
        assert words != command
        assert words in MAKEFILE
        assert f"    uv pip install {words}\n" in (ROOT / "docs" / "develop.md").read_text(encoding="utf-8")
    assert f"uv=={version}" in (ROOT / "docs" / "develop.md").read_text(encoding="utf-8")


def test_hooks_before_a_commit_are_local_and_those_of_lint() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    entries = [hook["entry"].removeprefix(".venv/bin/") for hook in repositories[0]["hooks"]]
    lint = MAKEFILE.partition("\nlint:")[2].partition("\n\n")[0]
    for entry in entries:
        assert f"$(BIN)/{entry.removesuffix(' --force-exclude')}" in lint
    assert len(entries) == lint.count("$(BIN)/") == 3


def test_citation_has_what_its_schema_requires() -> None:
    citation: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert citation["authors"] == [{"name": f"The contributors of {citation['title']}"}]
    assert (citation["title"], citation["version"]) == (PROJECT["project"]["name"], PROJECT["project"]["version"])
    assert citation["license"] == PROJECT["project"]["license"]


class TestNew:
    """make new NAME=... makes a project of one's own out of a clone."""

    @pytest.fixture
    def clone(self, tmp_path: Path) -> Path:
        yours = {".git", ".venv", ".venv-lowest", "logs", "data"}
        folder = tmp_path / "clone"
        shutil.copytree(ROOT, folder, ignore=lambda at, _: yours if Path(at) == ROOT else {"__pycache__"})
        (folder / "logs").mkdir()
        return folder

    def new(self, folder: Path, name: str) -> subprocess.CompletedProcess[str]:
        return run(sys.executable, "tools/new.py", name, cwd=folder)

    def commit(self, folder: Path) -> None:
        who = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
        for words in ["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "Begin"]:
            assert run("git", *words, cwd=folder).returncode == 0

    def test_what_cannot_be_done_is_refused_in_a_sentence(self, clone: Path) -> None:
        before = (clone / "pyproject.toml").read_text()
        for name in ("", "flower research", "-flowers", "blumen-größe", "flowers/", "../flowers"):
            said = self.new(clone, name)
            assert said.returncode == 2
            assert said.stderr.startswith(f"error: NAME={name}: a project's name is of letters, digits, _ and -")
        for name in ("alexnet-template", "AlexNet_Template", "torch"):
            assert "Take another name." in self.new(clone, name).stderr
        assert "is no repository of git" in self.new(clone, "flowers").stderr
        self.commit(clone)
        (clone / "README.md").write_text("mine")
        (clone / "thoughts.txt").touch()
        said = self.new(clone, "flowers")
        assert said.returncode == 2
        assert said.stderr.startswith("error: 2 files have changes that are not committed.")
        for path in ("README.md", "thoughts.txt"):
            run("git", "add", path, cwd=clone)
        run("git", "-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "-qm", "Mine", cwd=clone)
        (clone / "logs.before").mkdir()
        assert "error: logs.before/ is there already" in self.new(clone, "flowers").stderr
        assert (clone / "pyproject.toml").read_text() == before

    @pytest.mark.slow
    def test_it_has_the_name_and_none_of_our_results_and_its_tests_pass(self, clone: Path) -> None:
        self.commit(clone)
        (clone / "logs" / "a_run").mkdir()
        (clone / "logs" / "a_run" / "results.json").write_text("{}")
        said = self.new(clone, "flowers_research")
        assert said.returncode == 0, said.stderr
        assert run("git", "grep", "-l", "alexnet-template", cwd=clone).stdout == ""
        assert (clone / "README.md").read_text().startswith("# flowers_research\n")
        assert 'name = "flowers_research"' in (clone / "pyproject.toml").read_text()
        assert (clone / "logs.before" / "a_run" / "results.json").read_text() == "{}", "no commit has it"
        for folder in ("benchmarks/results", "logs"):
            assert [path.name for path in (clone / folder).iterdir()] == [".gitkeep"]
        for page in ("README.md", "docs/results.md", "docs/speed.md", "configs/experiment/quick.yaml"):
            text = (clone / page).read_text()
            assert "not measured" in text
            assert not re.search(r"\| \d\d\.\d\d (± |%)", text), page
        options = ["trainer.max_epochs=1", "model.widths=[2,2,2,2,2]", "model.hidden=8", "hydra.run.dir=logs/r"]
        done = run(sys.executable, "-m", "src.train", "experiment=tiny", *options, cwd=clone)
        assert done.returncode == 0, done.stderr
        tests = [f"tests/test_{name}.py" for name in ("project", "install", "benchmark", "leaderboard")]
        names = "TestTables or TestExtras or TestMake and not train or lock or rendered or measured or links or names"
        quick = ["-q", "-p", "no:cacheprovider", "-k", f"{names} or citation or hooks or what_lives", *tests]
        done = run(sys.executable, "-m", "pytest", *quick, cwd=clone)
        assert done.returncode == 0, done.stdout
        assert int(re.findall(r"(\d+) passed", done.stdout)[0]) > 20
