"""The leaderboard's records as tables in README.md and docs/results.md; nobody types a number."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from benchmarks import pace, records
from benchmarks.records import Record
from benchmarks.rows import BASES, ROWS, Row
from benchmarks.table import load, renewed
from benchmarks.turns import ROOT
from src.config.files import write_text

DATA = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar10_jpeg": "CIFAR-10 (JPEG)",
}
MARK = "<!-- make leaderboard writes this -->\n"
NOT_MEASURED = "not measured"
RECIPES = ROOT / "configs" / "experiment"


@dataclass(frozen=True)
class Standing:
    """The records of one row on one machine, by seed."""

    row: Row
    runs: list[Record]

    @property
    def accuracy(self) -> str:
        found = [run["accuracy"] for run in self.runs]
        return f"{fmean(found):.2%}" + (f" ± {100 * stdev(found):.2f}" if len(found) > 1 else "")

    @property
    def each(self) -> str:
        """The accuracy with each seed, in their order, where they are more than one."""
        found = [f"{100 * run['accuracy']:.1f}" for run in self.runs]
        return f"{self.accuracy} ({', '.join(found)})" if len(found) > 1 else self.accuracy

    @property
    def seconds(self) -> str:
        return f"{fmean(run['seconds'] for run in self.runs):,.0f}"

    @property
    def seeds(self) -> str:
        numbers = [run["seed"] for run in self.runs]
        together = numbers == list(range(numbers[0], numbers[-1] + 1)) and len(numbers) > 1
        return f"{numbers[0]} to {numbers[-1]}" if together else ", ".join(map(str, numbers))

    @property
    def learned_from(self) -> str:
        run = self.runs[0]
        source = " sample" if run["source"] == "sample" else ""
        return f"{DATA[run['data']]}{source}, {run['images']:,} × {run['epochs']}"

    @property
    def scored_on(self) -> str:
        run = self.runs[0]
        if run["source"] == "sample":
            return f"{run['scored_images']:,} held out of the sample"
        return f"{DATA[run['scored_on']]} test, {run['scored_images']:,}"

    @property
    def command(self) -> str:
        return f"`{self.row.shown(self.runs[0]['seed'])}`"

    @property
    def dates(self) -> str:
        return dates_of(self.runs)

    @property
    def revisions(self) -> str:
        return revisions_of(self.runs)


def dates_of(runs: list[Record]) -> str:
    found = sorted({run["date"] for run in runs})
    return found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}"


def revisions_of(runs: list[Record]) -> str:
    """A star says that the code was not that of the revision alone."""
    return ", ".join(sorted({run["git"]["revision"][:7] + "*" * run["git"]["modified"] for run in runs if run["git"]}))


def write() -> None:
    for page, content in pages().items():
        write_text(page, content)


def pages() -> dict[Path, str]:
    """Each page that has standings, with them renewed."""
    found = [record for record in records.load() if is_current(record)]
    parts = {ROOT / "README.md": [overview(found)], ROOT / "docs" / "results.md": details(found)}
    tables = {page: renewed(page.read_text(encoding="utf-8"), texts, MARK) for page, texts in parts.items()}
    return tables | {path: recipe(path, found) for path in sorted(RECIPES.glob("*.yaml")) if rows_of(path)}


def is_current(record: Record) -> bool:
    """Whether its row still has the command that it was made by."""
    return any(row.name == record["row"] and row.shown(record["seed"]) == record["command"] for row in ROWS)


def rows_of(path: Path) -> list[Row]:
    """The rows that a recipe's file is measured by."""
    sections = ("recipes", "tutorials")
    return [row for row in ROWS if row.section in sections and f"experiment={path.stem}" in row.command.split()]


def recipe(path: Path, found: list[Record]) -> str:
    """A recipe's file, whose head says what came of its command."""
    content = path.read_text(encoding="utf-8")
    lines = ["# @package _global_"]
    for row in rows_of(path):
        lines.append(f"# python -m {row.command}")
        lines += [
            f"# {one.accuracy} of {one.scored_on}; {one.seconds} s; seed {one.seeds}; {one.dates}\n"
            f"# {one.runs[0]['machine']}, {one.runs[0]['precision']}"
            for one in standings(found, row.section)
            if one.row is row
        ] or [f"# {NOT_MEASURED}"]
    return "\n".join(lines) + "\n" + re.sub(r"\A(#.*\n)*", "", content)


def standings(found: list[Record], section: str) -> list[Standing]:
    """What there is of a section's rows, in their order, machine by machine."""
    rows = {row.name: row for row in ROWS if row.section == section}
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in found:
        if record["row"] in rows:
            groups.setdefault((record["machine"], record["row"]), []).append(record)
    order = sorted(groups, key=lambda key: (key[0], list(rows).index(key[1])))
    return [Standing(rows[name], groups[machine, name]) for machine, name in order]


def missing(found: list[Record], section: str) -> list[Row]:
    there = {record["row"] for record in found}
    return [row for row in ROWS if row.section == section and row.name not in there]


def overview(found: list[Record]) -> str:
    """The README's tables: recipes and tutorials, machine by machine."""
    lines = []
    shown = standings(found, "recipes") + standings(found, "tutorials")
    for machine in dict.fromkeys(one.runs[0]["machine"] for one in shown):
        here = [one for one in shown if one.runs[0]["machine"] == machine]
        lines += ["| recipe | learned from, images × epochs | scored on | accuracy | seeds | training | command |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for one in here:
            facts = (one.row.title, one.learned_from, one.scored_on, one.accuracy, one.seeds, f"{one.seconds} s")
            lines.append("| " + " | ".join([*facts, one.command]) + " |")
        lines += ["", footnote(here), ""]
    rows = missing(found, "recipes") + missing(found, "tutorials")
    if rows:
        lines += ["Not measured:", "", *(f"    {row.shown(1)}" for row in rows), ""]
    return "\n".join(lines)


def footnote(here: list[Standing]) -> str:
    """What the rows of one machine have in common."""
    runs = [run for one in here for run in one.runs]
    first = runs[0]
    ours, theirs = (
        ", ".join(sorted({one.runs[0]["precision"] for one in here if one.row.is_run is side}))
        for side in (True, False)
    )
    precision = ours + (f" (as published: {theirs})" if theirs else "")
    return (
        f"{first['machine']}; torch {first['versions']['torch']}, Python {first['versions']['python']}, "
        f"{precision}; {dates_of(runs)}; revision {revisions_of(runs)}. Accuracy: mean ± standard "
        "deviation over the seeds. Training: mean seconds, with validation."
    )


def details(found: list[Record]) -> list[str]:
    """All of docs/results.md's tables."""
    return [
        "## Recipes\n\n" + table(found, "recipes"),
        "## The tutorials and their corrected recipes\n\n" + table(found, "tutorials"),
        "## The price of each mistake\n\n" + prices(found),
        "## Time to accuracy\n\n" + pace_table(),
        "## The same command again\n\n" + repeats(found),
    ]


def table(found: list[Record], section: str) -> str:
    lines = [
        "| recipe | learned from, images × epochs | scored on | seeds | accuracy | seconds | machine | command | date "
        "| revision |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in standings(found, section):
        lines.append(
            f"| {one.row.title} | {one.learned_from} | {one.scored_on} | {one.seeds} | {one.each} | {one.seconds} "
            f"| {one.runs[0]['machine']} | {one.command} | {one.dates} | {one.revisions} |"
        )
    for row in missing(found, section):
        lines.append(f"| {row.title} | | | | {NOT_MEASURED} | | {place(row)} | `{row.shown(1)}` | | |")
    return "\n".join(lines) + "\n"


def place(row: Row) -> str:
    return "a GPU" if row.device == "gpu" else ""


def prices(found: list[Record]) -> str:
    """Each mistake below the recipe that it was added to; its price is the mean over the seeds that both have."""
    lines = [
        "| | accuracy | price, points | seeds | seconds | machine | command | date | revision |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    bases = {(one.row.name, one.runs[0]["machine"]): one for one in standings(found, "tutorials")}
    last = None
    for spoilt in sorted(standings(found, "mistakes"), key=lambda one: BASES[one.row.name], reverse=True):
        machine = spoilt.runs[0]["machine"]
        base = bases.get((BASES[spoilt.row.name], machine))
        if base is not last and base is not None:
            lines.append(priced(base, f"{base.row.title}: {base.learned_from}, scored on {base.scored_on}", "0"))
        lines.append(priced(spoilt, spoilt.row.title, price(base, spoilt) if base else NOT_MEASURED))
        last = base
    for row in missing(found, "mistakes"):
        lines.append(f"| {row.title} | {NOT_MEASURED} | | | | | `{row.shown(1)}` | | |")
    return "\n".join(lines) + "\n"


def priced(one: Standing, title: str, cost: str) -> str:
    facts = (title, one.accuracy, cost, one.seeds, one.seconds, one.runs[0]["machine"], one.command, one.dates)
    return "| " + " | ".join([*facts, one.revisions]) + " |"


def price(base: Standing, spoilt: Standing) -> str:
    right = {run["seed"]: run["accuracy"] for run in base.runs}
    lost = [100 * (right[run["seed"]] - run["accuracy"]) for run in spoilt.runs if run["seed"] in right]
    if not lost:
        return NOT_MEASURED
    return f"{fmean(lost):.2f}" + (f" ± {stdev(lost):.2f}" if len(lost) > 1 else "")


def pace_table() -> str:
    lines = [
        "| | command | to 98 % | to 99 % | best | in seconds of training | seed | machine | date | revision |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    found = load(pace.RESULTS)
    for one in found:
        for side, way in one["ways"].items():
            to = ["not reached" if seconds is None else f"{seconds:,.0f} s" for seconds in way["reached"].values()]
            best = max(accuracy for _, accuracy in way["curve"])
            lines.append(
                f"| {side} | `{way['command']}` | {to[0]} | {to[1]} | {best:.2%} | {way['seconds']:,.0f} "
                f"| {one['seed']} | {one['machine']} | {one['date']} | {revisions_of([one])} |"
            )
    if not found:
        lines.append(f"| ours, tutorial | `python -m benchmarks.pace` | {NOT_MEASURED} | | | | | | | |")
    return "\n".join(lines) + "\n"


def repeats(found: list[Record]) -> str:
    """One recipe and seed in several ways, to the last digit."""
    lines = [
        "| | accuracy | validation | seconds | machine | command | date | revision |",
        "|---|---|---|---|---|---|---|---|",
    ]
    first = [one for one in standings(found, "recipes") if one.row.name == "quick"]
    for one in first + standings(found, "repeats"):
        run = one.runs[0]
        lines.append(
            f"| {one.row.title} | {run['accuracy']:.6f} | {run['val_accuracy']:.6f} | {run['seconds']:,.0f} "
            f"| {run['machine']} | {one.command} | {run['date']} | {one.revisions} |"
        )
    for row in missing(found, "repeats"):
        lines.append(f"| {row.title} | {NOT_MEASURED} | | | {place(row)} | `{row.shown(1)}` | | |")
    return "\n".join(lines) + "\n"
