"""What each measure is worth: python -m benchmarks.worth; the plain loop on our path with one thing changed."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.__main__ import RESULTS, describe, spread
from benchmarks.cases import CASES, find, write_cifar, write_mnist
from benchmarks.turns import Worker

CHANGES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "float32 instead of bfloat16": {"precision": "32-true"},
    "NCHW instead of channels_last": {"memory_format": "contiguous"},
    "freed memory given back (glibc's default)": {"keep_memory": False},
    "gradients zeroed instead of dropped": {"set_to_none": False},
    "foreach optimizer instead of fused": {"optimizer": "foreach"},
    "optimizer in a Python loop instead of fused": {"optimizer": "forloop"},
    "weights and gradients flattened into one tensor": {"optimizer": "flat"},
    "no weight decay of biases and norms, two groups": {"optimizer": "grouped"},
    "torch.compile": {"compile": "default"},
    "one thread instead of two": {"threads": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worth", description=__doc__)
    parser.add_argument("--case", default="alexnet-128", choices=[case.name for case in CASES])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="the file to write; default: results/worth/CASE.json")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: expected a number greater than 0")
    case, machine = find(options.case), describe("cpu")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        (write_mnist(data, None) if case.channels == 1 else write_cifar(data))
        common = {"case": case.name, "data": str(data), "device_name": "cpu"}
        workers = {
            name: Worker("plain", common | change, Path(folder, f"{name}.log")) for name, change in CHANGES.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in CHANGES}
        for worker in workers.values():
            worker.turn(1)
        for number in range(options.rounds):
            for name, worker in workers.items() if number % 2 else reversed(workers.items()):
                seconds[name].append(worker.turn(2)["seconds"] / 2)
            print(f"round {number + 1}", {name: round(times[-1], 2) for name, times in seconds.items()}, flush=True)
        peaks = {name: worker.next_phase()["peak"] for name, worker in workers.items()}
        for worker in workers.values():
            worker.end()
    base = seconds["as it is"]
    found = {
        name: {
            "images_per_second": spread([case.batch_size / value for value in times], 1),
            "times_as_it_is": spread([one / other for one, other in zip(base, times, strict=True)], 3),
            "peak_gib": round(peaks[name] / 2**30, 2),
        }
        for name, times in seconds.items()
    }
    out = options.out or RESULTS / "worth" / f"{case.name}.json"
    content = machine | {"case": case.name, "rounds": options.rounds, "changes": found}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
