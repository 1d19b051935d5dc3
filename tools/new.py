"""Makes a project of one's own out of this clone: make new NAME=flowers_research"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
LOGS, ASIDE = ROOT / "logs", ROOT / "logs.before"


def main(name: str) -> None:
    """Rename the project, empty what was measured here, and set aside what was trained; nothing is committed."""
    before = re.search(r'^name = "(.+)"$', read("pyproject.toml"), re.MULTILINE)[1]  # type: ignore[index]
    check(name, before)
    files = git("grep", "-lF", before, "--", ".", ":!requirements.lock").splitlines()
    for file in files:
        write(file, read(file).replace(before, name))
    write("README.md", re.sub(r"\A# .*", f"# {name}", read("README.md")))
    shutil.rmtree(ROOT / "benchmarks" / "results")
    if set(LOGS.iterdir()) - {LOGS / ".gitkeep"}:
        LOGS.rename(ASIDE)  # no commit has them
        print(f"The runs that were in logs/ are in {ASIDE.name}/ now.")
    for folder in (ROOT / "benchmarks" / "results", LOGS):
        folder.mkdir(exist_ok=True)
        (folder / ".gitkeep").touch()
    subprocess.run([sys.executable, "-m", "benchmarks.tables"], cwd=ROOT, check=True)
    print(f"{name}: so it is called in README.md and {', '.join(files)}. benchmarks/results and logs/ are empty.")
    print("Write in README.md, pyproject.toml and CITATION.cff what it is about. To keep it, or to have all back:")
    print(f"  git add -A && git commit -m 'Begin {name}'\n  git restore .")


def check(name: str, before: str) -> None:
    """Exits with a sentence where the name is none, or where what follows could not be undone."""
    known = {normal(line) for line in re.findall(r"^[\w.-]+(?===)", read("requirements.lock"), re.MULTILINE)}
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
        refuse(f"NAME={name}: a project's name is of letters, digits, _ and -, as in NAME=flowers_research.")
    if normal(name) in known | {normal(before)}:
        refuse(f"NAME={name}: this project is called so, or a package that it installs. Take another name.")
    if git("rev-parse", "--show-toplevel").strip() != str(ROOT):
        refuse(f"{ROOT} is no repository of git. To make it one: git init && git add -A && git commit -m Begin")
    if changes := git("status", "--porcelain"):
        count = len(changes.splitlines())
        refuse(f"{count} files have changes that are not committed. Commit them first, or git stash -u.")
    if ASIDE.exists():
        refuse(f"{ASIDE.name}/ is there already, with runs that were set aside. Move it away first.")


def refuse(words: str) -> NoReturn:
    print(f"error: {words}", file=sys.stderr)
    sys.exit(2)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def git(*words: str) -> str:
    """What git says, or nothing where it fails."""
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, encoding="utf-8").stdout


def read(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def write(file: str, text: str) -> None:
    (ROOT / file).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(*sys.argv[1:2] or [""])
