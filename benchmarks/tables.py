"""What was measured as tables in README.md, docs/ and the heads of recipes: python -m benchmarks.tables"""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from benchmarks import project, records
from benchmarks.cases import CASES
from benchmarks.records import Record
from benchmarks.rows import BY_NAME, ROWS, Row
from benchmarks.turns import ROOT
from src.results.intervals import percent

RESULTS = records.RECORDS.parent
RECIPES = ROOT / "configs" / "experiment"
BEGIN, END = "<!-- make bench-table writes this -->\n", "<!-- to here -->\n"
NOT_MEASURED = "not measured"
DATA = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "cifar10_jpeg": "CIFAR-10 (JPEG)"}
OVERVIEW = {name: DATA[name] for name in ("mnist", "fashion_mnist", "cifar10_jpeg")}
OVERVIEW["quick"] = "the packaged sample of MNIST (500 digits held out)"
LEARNED, EACH, PRICE = "learned from, images × epochs", "of each seed", "price, points"
MADE = ["seconds", "machine", "command", "date", "revision"]  # how, when and by what code a number was made
WAYS = {"tutorial": "tutorial", "lightning": "Lightning as usual", "plain": "plain loop on our path"}
WAYS |= {"ours": "**ours**", "compiled": "ours, compiled"}


def write() -> None:
    for page, content in pages().items():
        project.write_text(page, content)


def pages() -> dict[Path, str]:
    """Each page that has tables, with them renewed."""
    found = current()
    parts = {"README.md": overview(found), "docs/results.md": details(found), "docs/speed.md": speed()}
    texts = {ROOT / name: renewed((ROOT / name).read_text(encoding="utf-8"), text) for name, text in parts.items()}
    return texts | {path: recipe(path, found) for path in sorted(RECIPES.glob("*.yaml"))}


def renewed(page: str, text: str) -> str:
    """The page with `text` between the two comments."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit("error: a page lacks the two comments between which its tables stand.")
    return before + begin + "\n" + text + "\n" + end + after


def markdown(columns: list[str], lines: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in [columns, ["---"] * len(columns), *lines])


def table(lines: pd.DataFrame, columns: list[str]) -> str:
    return markdown(columns, lines.reindex(columns=columns).astype(object).fillna("").to_numpy().tolist())


def current() -> pd.DataFrame:
    """The records whose row still has the command that they were made by, a line each."""
    found = [record for record in records.load() if is_current(record)]
    return pd.DataFrame(found, columns=None if found else ["row", "machine", "seed", "accuracy"])


def is_current(record: Record) -> bool:
    row = BY_NAME.get(record["row"])
    return row is not None and row.shown(record["seed"]) == record["command"]


def mean(values: pd.Series, unit: str = "") -> str:
    """With the standard deviation where there are several."""
    return f"{values.mean():.2f}" + (f" ± {values.std():.2f}" if len(values) > 1 else "") + unit


def revision(git: dict[str, Any]) -> str:
    """A star says that the code was not that of the revision alone."""
    return git["revision"][:7] + "*" * git["modified"]


def cells(row: Row, runs: pd.DataFrame) -> dict[str, Any]:
    """What the tables say of one row's runs on one machine."""
    first, minutes, sample = runs.iloc[0], runs.seconds.mean() / 60, runs.source.iloc[0] == "sample"
    scored = "{:,} held out of the sample" if sample else f"{DATA[first['data']]} test, {{:,}}"
    return {
        "row": row.name,
        "recipe": row.title,
        LEARNED: f"{DATA[first['data']]}{' sample' * sample}, {first.images:,} × {first.epochs}",
        "scored on": scored.format(first.scored_images),
        "seeds": ", ".join(map(str, runs.seed)),
        "accuracy": mean(100 * runs.accuracy, " %"),
        EACH: ", ".join(f"{100 * score:.1f}" for score in runs.accuracy),
        "to the last digit": f"{first.accuracy:.6f}",
        "validation": f"{first.val_accuracy:.6f}",
        "seconds": f"{runs.seconds.mean():,.0f}",
        "minutes": f"{minutes:.0f}" if minutes >= 10 else f"{minutes:.1f}",
        "machine": first.machine,
        "precision": first.precision,
        "command": f"`{row.shown(first.seed)}`",
        "date": " to ".join(sorted({runs.date.min(), runs.date.max()})),
        "revision": ", ".join(sorted(set(map(revision, runs.git.dropna())))),
    }


def standings(found: pd.DataFrame, rows: list[Row]) -> pd.DataFrame:
    """The cells of the rows, machine by machine, and at the end of those that were not measured."""
    groups = dict(iter(found.groupby(["machine", "row"])))
    keys = [(machine, row) for machine in sorted({machine for machine, _ in groups}) for row in rows]
    lines = [cells(row, groups[machine, row.name]) for machine, row in keys if (machine, row.name) in groups]
    for row in rows:
        if row.name not in {name for _, name in groups}:
            blank = {"row": row.name, "recipe": row.title, "machine": "a GPU" if row.on_gpu else ""}
            blank |= dict.fromkeys(("accuracy", "to the last digit"), NOT_MEASURED)
            lines.append(blank | {"command": f"`{row.shown(1)}`"})
    return pd.DataFrame(lines).fillna("")


def overview(found: pd.DataFrame) -> str:
    """The README's table: a line for each data set, its recipe on two cores and on whatever has no cores to count."""
    lines = []
    for name, data in OVERVIEW.items():
        measured = standings(found[found.row == name], [BY_NAME[name]])
        cpu = measured[measured.machine.str.endswith(", 2 cores")]
        gpu = measured[~measured.machine.str.endswith(" cores") & (measured.accuracy != NOT_MEASURED)]
        last = [*gpu.accuracy, *cpu.accuracy][-1:], [*cpu.get("minutes", [])][-1:], [*gpu.get("minutes", [])][-1:]
        lines.append([f"{data}, `experiment={name}`", *("".join(cell) or NOT_MEASURED for cell in last)])
    text = markdown(["data", "accuracy", "minutes on two cores", "minutes on a GPU"], lines)
    return f"{text}\nMean ± standard deviation over the seeds; [every row, machine and command](docs/results.md).\n"


def details(found: pd.DataFrame) -> str:
    """All of docs/results.md's tables."""
    rows = {row.section: [other for other in ROWS if other.section == row.section] for row in ROWS}
    columns = ["recipe", LEARNED, "scored on", "seeds", "accuracy", EACH, *MADE]
    again = standings(found[found.seed == 1], [BY_NAME["quick"], *rows["repeats"]])
    texts = {
        "Recipes": table(standings(found, rows["recipes"]), columns),
        "The tutorials and their corrected recipes": table(standings(found, rows["tutorials"]), columns),
        "The price of each mistake": prices(found),
        "Time to accuracy": pace(),
        "The same command again": table(again, ["recipe", "to the last digit", "validation", *MADE]),
    }
    return "\n".join(f"## {title}\n\n{text}" for title, text in texts.items())


def prices(found: pd.DataFrame) -> str:
    """Each mistake below the recipe that it was added to; its price is the mean over the seeds that both have."""
    parts = []
    for base in dict.fromkeys(row.base for row in ROWS if row.base):
        rows = standings(found, [row for row in ROWS if base in (row.name, row.base)])
        parts.append(rows.assign(**{PRICE: [price(found, row.machine, base, row.row) for row in rows.itertuples()]}))
    return table(pd.concat(parts), ["recipe", LEARNED, "scored on", "accuracy", PRICE, "seeds", *MADE])


def price(found: pd.DataFrame, machine: str, base: str, spoilt: str) -> str:
    scores = found[found.machine == machine].set_index("seed")
    lost = 100 * (scores[scores.row == base].accuracy - scores[scores.row == spoilt].accuracy).dropna()
    return mean(lost) if len(lost) else ""


def pace() -> str:
    """Seconds of training to an accuracy on MNIST's validation images, as an earlier revision measured them."""
    lines = []
    for record in records.load(RESULTS / "pace", "*.json"):
        for side, way in record["ways"].items():
            to = ["not reached" if seconds is None else f"{seconds:,.0f} s" for seconds in way["reached"].values()]
            reached = [*to, percent(max(accuracy for _, accuracy in way["curve"])), f"{way['seconds']:,.0f}"]
            facts = [str(record["seed"]), record["machine"], record["date"], revision(record["git"])]
            lines.append([side, f"`{way['command']}`", *reached, *facts])
    columns = ["", "command", "to 98 %", "to 99 %", "best", "in seconds of training", "seed", "machine", "date"]
    return markdown([*columns, "revision"], lines)


def recipe(path: Path, found: pd.DataFrame) -> str:
    """A recipe's file, whose head says what came of its commands."""
    rows = [row for row in ROWS if f"experiment={path.stem}" in row.command.split()]
    lines = standings(found, [row for row in rows if row.section in ("recipes", "tutorials")]).to_dict("records")
    head = ["# @package _global_"]
    for line in [line for line in lines if line.get("date")] or lines[:1]:
        result = "{accuracy} of {scored on}; {seconds} s; seed {seeds}; {date}; {machine}, {precision}"
        head.append(f"# python -m {BY_NAME[line['row']].command}")
        head.append(f"# {result.format(**line) if line.get('date') else NOT_MEASURED}")
    return "\n".join(head) + "\n" + re.sub(r"\A(#.*\n)*", "", path.read_text(encoding="utf-8"))


def speed() -> str:
    """All of docs/speed.md's tables: each machine, and what one change each made of the plain loop."""
    found = records.load(RESULTS, "*.json")
    texts = [machine_table(result) for result in found]
    if not any(result["device"] == "gpu" for result in found):
        texts.append(f"On a GPU: {NOT_MEASURED}. `python -m benchmarks --device gpu` measures one.\n")
    rows = [photos(result) for result in records.load(RESULTS / "photos", "*.json")]
    texts += ["## Photos\n", *(rows or [f"`python -m benchmarks --photos`: {NOT_MEASURED}.\n"])]
    texts += ["## What each measure is worth\n", *map(worth, records.load(RESULTS / "worth", "*.json"))]
    return "\n".join(texts)


def photos(result: dict[str, Any]) -> str:
    """What one machine made of photos in a folder; the ratios are of each round's own."""
    lines = []
    for name, ways in result["rows"].items():
        sides = [ways.get("tutorial", []), ways["ours"]]
        sides.append([b / a if name.endswith("photos/s") else a / b for a, b in zip(*sides, strict=False)])
        lines.append([name, *(f"{median(v):,.2f} ({min(v):,.2f} to {max(v):,.2f})" if v else "" for v in sides)])
    machine, torch = result["machine"], result["versions"]["torch"]
    how = f"torch {torch}; {result['date']}; `{result['command']}`, medians of {result['rounds']} alternating rounds"
    text = markdown(["", "torchvision", "ours", "times better"], lines)
    return f"**{machine['device']}, {machine['cores']} cores**, {how} (lowest to highest):\n\n{text}"


def worth(result: dict[str, Any]) -> str:
    machine = f"{result['machine']['device']}, {result['machine']['cores']} cores, torch {result['versions']['torch']}"
    lines = [
        [name, rate(values), f"{values['times_as_it_is']['median']:.2f}", f"{values['peak_gib']:.2f} GiB"]
        for name, values in result["changes"].items()
    ]
    how = f"revision {revision(result['git'])}, medians of {result['rounds']} alternating rounds (lowest to highest)"
    columns = ["the plain loop on our path", "images/s", "times as it is", "peak memory"]
    return f"**`{result['case']}`** on {machine}, {how}:\n\n{markdown(columns, lines)}"


def machine_table(result: dict[str, Any]) -> str:
    """One machine's table, with how it was measured."""
    machine, versions = result["machine"], result["versions"]
    lines, ratios = [], []
    for case in CASES:
        label = f"`{case.model}`, {case.batch_size}"
        if case.name not in result["cases"]:
            lines.append([label, "all", NOT_MEASURED, "", NOT_MEASURED, "", ""])
            continue
        measured = result["cases"][case.name]
        for way, phases in measured["ways"].items():
            shares = [word for phase in phases.values() for word in (rate(phase), percent(phase["share_of_limit"], 0))]
            lines.append([label, WAYS[way], *shares, f"{phases['training']['peak_gib']:.2f} GiB"])
            label = ""
        training, inference = measured["limit"]["images_per_second"].values()
        lines.append(["", "peak speed", f"{training:,.0f}", "100 %", f"{inference:,.0f}", "100 %", ""])
        tutorial, plain = (measured["ways"]["ours"]["training"][key] for key in ("times_tutorial", "times_plain"))
        ratios.append(
            f"- `{case.model}`, batch {case.batch_size}: {tutorial['median']:.2f} times the tutorial and "
            f"{plain['median']:.3f} times the plain loop ({plain['low']:.2f} to {plain['high']:.2f}).\n"
        )
    columns = ["training, images/s", "of peak speed", "inference, images/s", "of peak speed", "peak memory"]
    text = markdown(["network, batch", "", *columns], lines) + "\n" + "".join(ratios)
    if first := result["first_step_seconds"]:
        named = [f"{WAYS.get(name, name).strip('*')} {value['median']:.1f} s" for name, value in first.items()]
        text += f"\nFrom the command to the end of the first step of `alexnet`: {', '.join(named)}.\n"
    name = machine["device"] + (f", {machine['cores']} cores" if result["device"] == "cpu" else "")
    return (
        f"**{name}**, {result['precision']} but for the tutorial and Lightning as usual; torch {versions['torch']}, "
        f"Lightning {versions['lightning']}, Python {versions['python']}; {result['date']}; `{result['command']}`, "
        f"medians of {result['rounds']} alternating rounds (lowest to highest); the ratios below are medians of each "
        f"round's own.\n\n{text}"
    )


def rate(values: dict[str, Any]) -> str:
    return "{median:,.1f} ({low:,.1f} to {high:,.1f})".format(**values["images_per_second"])


if __name__ == "__main__":
    write()
