"""The ways of training that are compared, each a process: python -m benchmarks.ways WAY OPTIONS REPLIES"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, find
from benchmarks.parts import compose, gate_callback, waiter
from benchmarks.plain import plain
from benchmarks.turns import PhaseOver, Turns
from benchmarks.tutorials import lightning, tutorial


def ours(case: Case, data: str, device_name: str, turns: Turns, overrides: tuple[str, ...] = ()) -> None:
    """What `python -m src.train` runs, and then what `python -m src.eval` does."""
    from src.config.cli import importing
    from src.training.run import train

    config = compose(case, data, device_name, overrides)
    with importing():
        from src.model.hardware import pick_hardware
        from src.training.callbacks.answers import RecordAnswers
        from src.training.trainer import build_scorer
    gate = gate_callback(turns)
    with tempfile.TemporaryDirectory() as folder:
        with suppress(PhaseOver):
            train(config, Path(folder), callbacks=[gate])
        fitted = gate.trainer
        scorer: Any = build_scorer(pick_hardware(config.device, config.precision), RecordAnswers())
        scorer.callbacks.append(gate)
        with suppress(PhaseOver):
            turns.begin()
            while True:
                scorer.test(fitted.lightning_module, fitted.datamodule, verbose=False)


def compiled(**arguments: Any) -> None:
    """Ours with torch.compile."""
    ours(**arguments, overrides=("compile=true",))


def limit(case: Case, data: str, device_name: str, turns: Turns) -> None:
    """The machine's matrix rate in the run's precision, and its memory bandwidth; a step is one measurement."""
    import torch

    from src.model.hardware import matmul_rate, pick_hardware

    hardware = pick_hardware(device_name, "auto")
    device = torch.device("cuda" if hardware.accelerator == "cuda" else "cpu")
    turns.wait = waiter(device)
    vector = torch.zeros(57_000_000, device=device)
    other = torch.ones_like(vector)
    with suppress(PhaseOver):
        while True:
            rate, seconds = matmul_rate(device, hardware.precision, 1.0), []
            for _ in range(5):
                turns.wait()
                started = time.perf_counter()
                vector.add_(other)
                turns.wait()
                seconds.append(time.perf_counter() - started)
            turns.say(flops=rate, bandwidth=3 * vector.nbytes / min(seconds))
            turns._obey()


if __name__ == "__main__":
    name, options, replies = sys.argv[1:]
    chosen: dict[str, Any] = json.loads(options)
    chosen["case"] = find(chosen["case"])
    run: dict[str, Callable[..., None]] = {
        "tutorial": tutorial,
        "lightning": lightning,
        "plain": plain,
        "ours": ours,
        "compiled": compiled,
        "limit": limit,
    }
    run[name](turns=Turns(int(replies)), **chosen)
