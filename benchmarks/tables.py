"""What was measured as tables in README.md, docs/ and the heads of recipes: python -m benchmarks.tables"""

import re
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from benchmarks import project, records
from benchmarks.cases import CASES, PHASES
from benchmarks.records import BY_NAME, ROWS, Row
from benchmarks.turns import ROOT
from src.results import intervals
from src.results.intervals import Interval, percent, shown

RESULTS = records.RECORDS.parent
RECIPES = ROOT / "configs" / "experiment"
BEGIN, END = "<!-- make bench-table writes this -->\n", "<!-- to here -->\n"
NOT_MEASURED = "not measured"
DATA = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "cifar10_jpeg": "CIFAR-10 (JPEG)"}
OVERVIEW = {name: DATA[name] for name in ("mnist", "fashion_mnist", "cifar10_jpeg")}
OVERVIEW["quick"] = "the packaged sample of MNIST (500 digits held out)"
LEARNED, EACH = "learned from, images × epochs", "of each seed"
PRICE, TOLD = "price, points", "told from nothing"
MADE = ["seconds", "machine", "command", "date", "revision"]  # how, when and by what code a number was made
WAYS = {"tutorial": "tutorial", "lightning": "Lightning as usual", "plain": "plain loop on our path"}
WAYS |= {"ours": "**ours**", "compiled": "ours, compiled"}
RATE = "{median:,.1f} ({low:,.1f} to {high:,.1f})"


def write() -> None:
    for page, content in pages().items():
        project.write_text(page, content)


def pages() -> dict[Path, str]:
    """Each page that has tables, with them renewed."""
    found = records.current()
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


def spread(values: pd.Series, interval: Interval | None, unit: str = "") -> str:
    """A share, or the mean of some ± their standard deviation, in the digits that the interval leaves."""
    mean, _, rest = shown(values.mean(), interval, 2, unit, 100).partition(" ")
    deviation = f" ± {100 * values.std():.{len(mean.partition('.')[2])}f}" if len(values) > 1 else ""
    return f"{mean}{deviation} {rest}".rstrip()


def accuracy(runs: pd.DataFrame) -> str:
    """With its interval: of one seed over the images, of several over the seeds."""
    images = runs.scored_images.iloc[0]
    low, high = intervals.mean(runs.accuracy) or intervals.proportion(runs.accuracy.iloc[0] * images, images)
    return spread(runs.accuracy, (max(low, 0.0), min(high, 1.0)), " %")


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
        "accuracy": accuracy(runs),
        EACH: ", ".join(f"{100 * score:.1f}" for score in runs.accuracy),
        "to the last digit": f"{first.accuracy:.6f}",
        "validation": f"{first.val_accuracy:.6f}",
        "seconds": f"{runs.seconds.mean():,.0f}",
        "minutes": f"{minutes:.0f}" if minutes >= 10 else f"{minutes:.1f}",
        "machine": first.machine,
        "precision": first.precision,
        "command": f"`{row.shown(first.seed)}`",
        "date": " to ".join(sorted({runs.date.min(), runs.date.max()})),
        # a star says that the code was not that of the revision alone
        "revision": ", ".join(sorted({git["revision"][:7] + "*" * git["modified"] for git in runs.git.dropna()})),
    }


def standings(found: pd.DataFrame, rows: list[Row]) -> pd.DataFrame:
    """The cells of the rows, machine by machine, and at the end of those that were not measured."""
    groups = dict(iter(found.groupby(["machine", "row"])))
    keys = [(machine, row) for machine in sorted({machine for machine, _ in groups}) for row in rows]
    lines = [cells(row, groups[machine, row.name]) for machine, row in keys if (machine, row.name) in groups]
    for row in rows:
        if row.name not in {name for _, name in groups}:
            blank = {"row": row.name, "recipe": row.title, "machine": "a GPU" if row.gpu else ""}
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
    how = "95 % intervals: of one seed over its images, of several over the seeds, beside their deviation"
    return f"{text}\n{how}; [every row](docs/results.md).\n"


def details(found: pd.DataFrame) -> str:
    """All of docs/results.md's tables."""
    rows = {row.section: [other for other in ROWS if other.section == row.section] for row in ROWS}
    columns = ["recipe", LEARNED, "scored on", "seeds", "accuracy", EACH, *MADE]
    resumed = records.load(RESULTS / "resume", "*.json")
    resumed = resumed or [{"command": "python -m benchmarks.gpu", "weights": NOT_MEASURED, "machine": "a GPU"}]
    again = standings(found[found.seed == 1], [BY_NAME["quick"], *rows["repeats"]])
    texts = {
        "Recipes": table(standings(found, rows["recipes"]), columns),
        "The tutorials and their corrected recipes": table(standings(found, rows["tutorials"]), columns),
        "The price of each mistake": prices(found),
        "Time to accuracy": kept("pace"),
        "Killed and resumed": table(pd.DataFrame(resumed), ["command", "weights", "metrics.csv", "machine", "date"]),
        "The same command again": table(again, ["recipe", "to the last digit", "validation", *MADE]),
    }
    return "\n".join(f"## {title}\n\n{text}" for title, text in texts.items())


def prices(found: pd.DataFrame) -> str:
    """Each mistake below the recipe that it was added to; its price is the mean over the seeds that both have."""
    parts = []
    for base in dict.fromkeys(row.base for row in ROWS if row.base):
        rows = standings(found, [row for row in ROWS if base in (row.name, row.base)])
        of_rows = [price(found, row.machine, base, row.row) for row in rows.itertuples()]
        parts.append(rows.join(pd.DataFrame(of_rows, columns=[PRICE, TOLD])))
    return table(pd.concat(parts), ["recipe", LEARNED, "scored on", "accuracy", PRICE, TOLD, "seeds", *MADE])


def price(found: pd.DataFrame, machine: str, base: str, spoilt: str) -> tuple[str, str]:
    """In points, and whether its interval over the seeds leaves out nothing; both empty where it was not measured."""
    scores = found[found.machine == machine].set_index("seed")
    lost = (scores[scores.row == base].accuracy - scores[scores.row == spoilt].accuracy).dropna()
    if base == spoilt or not len(lost):
        return "", ""
    interval = intervals.mean(lost)
    told = "one seed" if interval is None else "no" if interval[0] <= 0 <= interval[1] else "yes"
    return spread(lost, interval), told


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
    texts = [heading(result) + machine_table(result) for result in found]
    if not any(result["device"] == "gpu" for result in found):
        texts.append(f"On a GPU: {NOT_MEASURED}. `python -m benchmarks.gpu` measures one.\n")
    texts += map(profile, records.load(RESULTS / "profile", "*.json"))
    rows = [heading(result) + photos(result) for result in records.load(RESULTS / "photos", "*.json")]
    texts += ["## Photos\n", *(rows or [f"`python -m benchmarks --photos`: {NOT_MEASURED}.\n"])]
    return "\n".join([*texts, "## What each measure is worth\n", kept("worth")])


def kept(name: str) -> str:
    """The table that a program of before made of its records, which lie beside it."""
    path = RESULTS / name / "table.md"
    return path.read_text(encoding="utf-8") if path.exists() else f"{NOT_MEASURED}\n"


def heading(result: dict[str, Any]) -> str:
    """On which machine, with which versions, when and how something was measured."""
    machine, versions = result["machine"], result["versions"]
    made = "torch {torch}, Lightning {lightning}, Python {python}".format(**versions)
    how = f"{made}; {result['date']}; `{result['command']}`, medians of {result['rounds']} alternating rounds"
    return f"**{machine['device']}, {machine['cores']} cores**, {result['precision']}; {how} (lowest to highest):\n\n"


def photos(result: dict[str, Any]) -> str:
    """What one machine made of photos in a folder; the ratios are of each round's own."""
    lines = []
    for name, ways in result["rows"].items():
        sides = [ways.get("tutorial", []), ways["ours"]]
        sides.append([b / a if name.endswith("photos/s") else a / b for a, b in zip(*sides, strict=False)])
        lines.append([name, *(f"{median(v):,.2f} ({min(v):,.2f} to {max(v):,.2f})" if v else "" for v in sides)])
    return markdown(["", "torchvision", "ours", "times better"], lines)


def profile(result: dict[str, Any]) -> str:
    """What a GPU does in a step of training."""
    lines = [[f"`{name[:70]}`", percent(share, 1)] for name, share in result["costs"].items()]
    busy = f"its kernels take {percent(result['busy'], 0)} of the time of a step"
    how = f"**{result['machine']}**, `{result['command']}`; {result['date']}: {busy}; those that take most:"
    return f"{how}\n\n{markdown(['kernel', 'of the time'], lines)}"


def machine_table(result: dict[str, Any]) -> str:
    """How fast each way is on one machine."""
    lines: list[list[str]] = []
    for case in CASES:
        label, measured = f"`{case.model}`, {case.batch_size}", result["cases"].get(case.name)
        if not measured:
            lines.append([label, "all", NOT_MEASURED, "", NOT_MEASURED, *[""] * 4])
            continue
        for way, phases in measured["ways"].items():
            both = [phases[name] for name in PHASES]
            rates = [(RATE.format(**one["images_per_second"]), percent(one["share_of_limit"], 0)) for one in both]
            tutorial, plain, peak = (phases["training"][key] for key in ("times_tutorial", "times_plain", "peak_gib"))
            times = "{median:.2f}".format(**tutorial), "{median:.3f} ({low:.2f} to {high:.2f})".format(**plain)
            lines.append([label, WAYS[way], *rates[0], *rates[1], *times, f"{peak:.2f} GiB"])
            label = ""
        training, inference = (f"{measured['limit']['images_per_second'][name]:,.0f}" for name in PHASES)
        lines.append(["", "peak speed", training, "100 %", inference, "100 %", *[""] * 3])
    columns = ["network, batch", "", "training, images/s", "of peak speed", "inference, images/s", "of peak speed"]
    columns += ["times the tutorial", "times the plain loop", "peak memory"]
    first = result.get("first_step_seconds", {})
    named = ", ".join(f"{WAYS[name].strip('*')} {value['median']:.1f} s" for name, value in first.items())
    return markdown(columns, lines) + f"\nFrom the command to the end of the first step: {named or NOT_MEASURED}.\n"


if __name__ == "__main__":
    write()
