"""Makes a project of one's own out of this clone: make new NAME=flowers_research"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main(name: str) -> None:
    """Rename the project and empty what was measured and trained here; nothing is committed."""
    before = re.search(r'^name = "(.+)"$', read("pyproject.toml"), re.MULTILINE)[1]  # type: ignore[index]
    check(name, before)
    files = git("grep", "-lF", before, "--", ".", ":!requirements.lock").splitlines()
    for file in files:
        write(file, read(file).replace(before, name))
    write("README.md", re.sub(r"\A# .*", f"# {name}", read("README.md")))
    empty(ROOT / "benchmarks" / "results")
    empty(ROOT / "logs")
    subprocess.run([sys.executable, "-m", "benchmarks.tables"], cwd=ROOT, check=True)
    print(f"{name}: so it is called in README.md and {', '.join(files)}. benchmarks/results and logs are empty.")
    print("Write in README.md, pyproject.toml and CITATION.cff what it is about. To keep it, or to have all back:")
    print(f"  git add -A && git commit -m 'Begin {name}'\n  git restore .")


def check(name: str, before: str) -> None:
    """Exits with a sentence where the name is none, or where git could not undo what follows."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
        sys.exit(f"error: NAME={name}: a project's name is of letters, digits, _ and -, as in NAME=flowers_research.")
    known = {normal(line) for line in re.findall(r"^[\w.-]+(?===)", read("requirements.lock"), re.MULTILINE)}
    if normal(name) in known | {normal(before)}:
        sys.exit(f"error: NAME={name}: this project is called so, or a package that it installs. Take another name.")
    if git("rev-parse", "--show-toplevel").strip() != str(ROOT):
        sys.exit(
            f"error: {ROOT} is no repository of git. To make it one: git init && git add -A && git commit -m Begin"
        )
    if changes := git("status", "--porcelain"):
        count = len(changes.splitlines())
        sys.exit(f"error: {count} files have changes that are not committed. Commit them first, or git stash -u.")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def git(*words: str) -> str:
    """What git says, or nothing where it fails."""
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, encoding="utf-8").stdout


def read(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def write(file: str, text: str) -> None:
    (ROOT / file).write_text(text, encoding="utf-8", newline="\n")


def empty(folder: Path) -> None:
    """Leave the folder to git, with nothing in it."""
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / ".gitkeep").touch()


if __name__ == "__main__":
    main(*sys.argv[1:2] or [""])
