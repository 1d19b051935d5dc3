"""Render what was measured into README.md and docs/speed.md: python -m benchmarks.table"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- make bench-table writes this -->\n", "<!-- to here -->\n"
NAMES = {
    "tutorial": "tutorial",
    "lightning": "Lightning as usual",
    "plain": "plain loop on our path",
    "ours": "**ours**",
    "compiled": "ours, compiled",
}


def main() -> None:
    for page, content in pages().items():
        page.write_text(content, encoding="utf-8")


def pages() -> dict[Path, str]:
    """Each page that has tables, with them renewed."""
    found = load(RESULTS)
    tables = [table(result) for result in found]
    if not any(result["device"] == "gpu" for result in found):
        tables.append("On a GPU: not measured. `python -m benchmarks --device gpu` measures one.\n")
    worth = [worth_table(result) for result in load(RESULTS / "worth")]
    named = {ROOT / "README.md": tables, ROOT / "docs" / "speed.md": worth}
    return {page: renewed(page.read_text(encoding="utf-8"), parts) for page, parts in named.items()}


def load(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def renewed(page: str, parts: list[str], mark: str = BEGIN) -> str:
    """The page with `parts` between the comment `mark` and the next END."""
    before, begin, rest = page.partition(mark)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit("error: a page lacks the two comments between which its tables stand.")
    return before + begin + "\n" + "\n".join(parts) + "\n" + end + after


def worth_table(result: dict[str, Any]) -> str:
    """What one change each made of a case."""
    lines = [
        f"**`{result['case']}`** on {result['machine']['device']}, {result['machine']['cores']} cores, torch "
        f"{result['versions']['torch']}, medians of {result['rounds']} alternating rounds (lowest to highest):",
        "",
        "| the plain loop on our path | images/s | times as it is | peak memory |",
        "|---|---|---|---|",
    ]
    for name, values in result["changes"].items():
        times = values["times_as_it_is"]["median"]
        lines.append(f"| {name} | {rate(values)} | {times:.2f} | {values['peak_gib']:.2f} GiB |")
    return "\n".join(lines) + "\n"


def table(result: dict[str, Any]) -> str:
    """One machine's table, with how it was measured."""
    machine, versions = result["machine"], result["versions"]
    cores = f", {machine['cores']} cores" if result["device"] == "cpu" else ""
    lines = [
        "| network, batch | | training, images/s | of the limit | inference, images/s | of the limit | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        label = f"`{case.model}`, {case.batch_size}"
        if case.name not in result["cases"]:
            lines.append(f"| {label} | all | not measured | | not measured | | |")
            continue
        measured = result["cases"][case.name]
        for way, values in measured["ways"].items():
            training, inference = values["training"], values["inference"]
            lines.append(
                f"| {label} | {NAMES[way]} | {rate(training)} | {training['share_of_limit']:.0%} "
                f"| {rate(inference)} | {inference['share_of_limit']:.0%} | {training['peak_gib']:.2f} GiB |"
            )
            label = ""
        bound = measured["limit"]["images_per_second"]
        lines.append(f"| | limit | {bound['training']:,.0f} | 100% | {bound['inference']:,.0f} | 100% | |")
    lines += ["", *words(result)]
    first = result["first_step_seconds"]
    if first:
        named = [f"{NAMES.get(name, name).strip('*')} {value['median']:.1f} s" for name, value in first.items()]
        lines += ["", f"From the command to the end of the first step of `alexnet`: {', '.join(named)}."]
    return (
        f"**{machine['device']}{cores}**, {result['precision']} but for the tutorial and Lightning as usual; "
        f"torch {versions['torch']}, Lightning {versions['lightning']}, Python {versions['python']}; "
        f"{result['date']}; `{result['command']}`, medians of {result['rounds']} alternating rounds "
        "(lowest to highest); the ratios below are medians of each round's own.\n\n" + "\n".join(lines) + "\n"
    )


def words(result: dict[str, Any]) -> list[str]:
    """What the table comes to, each ratio taken within a round."""
    lines = []
    for case in CASES:
        if case.name in result["cases"]:
            measured = result["cases"][case.name]
            ours = measured["ways"]["ours"]["training"]
            step = measured["ways"]["ours"]["training"]["step_ms"]
            floor = measured["limit"]["optimizer_floor_ms"]
            lines.append(
                f"- `{case.model}`, batch {case.batch_size}: {ours['times_tutorial']['median']:.2f} times the tutorial "
                f"and {ours['times_plain']['median']:.3f} times the plain loop ({ours['times_plain']['low']:.2f} to "
                f"{ours['times_plain']['high']:.2f}). A step takes {step:,.0f} ms, of which "
                f"the data path {measured['data_path_ms'] / step:.1%}; memory alone holds the optimizer for "
                f"{floor:.1f} ms."
            )
    return lines


def rate(values: dict[str, Any]) -> str:
    spread = values["images_per_second"]
    digits = 1 if spread["median"] < 1000 else 0
    median, low, high = (f"{spread[key]:,.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} ({low} to {high})"


if __name__ == "__main__":
    main()
