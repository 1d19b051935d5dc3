"""Render what was measured into the README: python -m benchmarks.table"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- make bench-table writes this -->\n", "<!-- to here -->\n"
NAMES = {
    "tutorial": "tutorial",
    "lightning": "Lightning as usual",
    "plain": "plain loop on our path",
    "ours": "**ours**",
    "compiled": "ours, compiled",
}


def main() -> None:
    README.write_text(rendered(README.read_text(encoding="utf-8"), load()), encoding="utf-8")


def load() -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


def rendered(page: str, found: list[dict[str, Any]]) -> str:
    """The page with its tables renewed."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or END not in rest:
        raise SystemExit("error: README.md lacks the two comments between which the tables stand.")
    parts = [table(result) for result in found]
    if not any(result["device"] == "gpu" for result in found):
        parts.append("On a GPU: not measured. `python -m benchmarks --device gpu` measures one.\n")
    return before + BEGIN + "\n" + "\n".join(parts) + "\n" + END + after


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
        f"**{machine['device']}{cores}**, {result['precision']} but for the tutorial and Lightning as usual (32-true); "
        f"torch {versions['torch']}, Lightning {versions['lightning']}, Python {versions['python']}; "
        f"{result['date']}; `{result['command']}`, medians of {result['rounds']} alternating rounds "
        "(lowest to highest).\n\n" + "\n".join(lines) + "\n"
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
                f"and {ours['times_plain']['median']:.3f} times the plain loop. A step takes {step:,.0f} ms, of which "
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
