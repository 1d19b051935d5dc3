"""Break one line at a time, and run the tests that should see it.

    python -m tests.mutants                         # all of tests/mutants.yaml
    python -m tests.mutants -j 2 --only src/data    # of one room, two at a time

A list has, for each change, the `file`, the `old` text that stands once in it, the `new` text, and the `tests`. Each is
made in a copy of the project and taken back; `survived` says that the tests pass nevertheless. Exits with 1 if any did.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parent.parent
LIST = Path(__file__).with_suffix(".yaml")
OUTCOMES = {None: "timed out", 0: "survived", 1: "killed", 2: "killed"}  # 2: what can't be imported any more


class Mutant(NamedTuple):
    file: str
    old: str
    new: str
    tests: list[str]

    def __str__(self) -> str:
        before, after = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.file}: {before}  ->  {after}"


def read(path: Path) -> list[Mutant]:
    return [Mutant(**entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]


def environment(folder: Path) -> dict[str, str]:
    # compiled files go by a source's size and second: those of a change would outlive it
    return os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


def copy_project(folder: Path) -> Path:
    """A copy in `folder`; raises RuntimeError if its tests would import another one's source."""
    left = {path.name for path in ROOT.iterdir() if path.name[0] == "."} | {"data", "logs"}
    shutil.copytree(ROOT, folder, ignore=lambda place, names: left if Path(place) == ROOT else ())
    command = [sys.executable, "-c", "import src; print(src.__file__)"]
    found = subprocess.check_output(command, cwd=folder, env=environment(folder), text=True).strip()
    if Path(found) != folder / "src" / "__init__.py":
        raise RuntimeError(f"the tests of a copy import {found}")
    return folder


def run_tests(folder: Path, tests: list[str], marked: str, seconds: float) -> tuple[int | None, str]:
    """pytest's exit code, None if it took longer, and what it said."""
    words = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-m", marked]
    words += [f"--basetemp={folder.parent}/tests-of-{folder.name}", *tests]
    options: Any = {"cwd": folder, "env": environment(folder), "start_new_session": True, "text": True}
    with subprocess.Popen([sys.executable, "-m", "pytest", *words], stdout=-1, stderr=-2, **options) as process:
        try:
            out, _ = process.communicate(timeout=seconds)
            return process.returncode, out
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the runs that a test has started
            return None, ""


def judge(mutant: Mutant, folder: Path, marked: str, seconds: float) -> str:
    path = folder / mutant.file
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text.count(mutant.old) != 1:
        return "not found"
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    code, _ = run_tests(folder, mutant.tests, marked, seconds)
    path.write_text(text, encoding="utf-8")
    return OUTCOMES.get(code, "no tests")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=str(__doc__).partition("\n")[0])
    parser.add_argument("list", type=Path, nargs="?", default=LIST)
    parser.add_argument("-j", "--jobs", type=int, default=1, help="how many at a time, each in a copy of its own")
    parser.add_argument("-m", "--marked", default="not slow", help="as pytest has it; '' for every test")
    parser.add_argument("--only", default="", help="those whose file or text holds this")
    parser.add_argument("--seconds", type=float, default=300, help="for the tests of one change")
    options = parser.parse_args()
    mutants = [mutant for mutant in read(options.list) if options.only in str(mutant)] or parser.error("no such change")
    free, counts = SimpleQueue[Path](), Counter[str]()

    def work(mutant: Mutant) -> str:
        folder = free.get()
        outcome = judge(mutant, folder, options.marked, options.seconds)
        free.put(folder)
        return outcome

    with TemporaryDirectory(ignore_cleanup_errors=True) as base, ThreadPoolExecutor(options.jobs) as pool:
        for number in range(options.jobs):
            free.put(folder := copy_project(Path(base).resolve() / str(number)))
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        code, out = run_tests(folder, tests, options.marked, options.seconds * len(tests))
        if code != 0:  # else each change would seem to be seen
            raise SystemExit(f"{out}\nthe tests fail without any change")
        for mutant, outcome in zip(mutants, pool.map(work, mutants), strict=True):
            counts[outcome] += 1
            print(f"{outcome:<9}  {mutant}", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    raise SystemExit(1 if counts.keys() - {"killed"} else 0)


if __name__ == "__main__":
    main()
