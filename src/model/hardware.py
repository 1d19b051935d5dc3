"""Where a run computes, and in which precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from src.config.errors import UserError

_DTYPES = {"32-true": torch.float32, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


@dataclass(frozen=True)
class Hardware:
    """`note` says what was not as asked; `gpu` is this job's own, where several jobs share a machine's GPUs."""

    accelerator: str
    precision: Any
    note: str | None = None
    gpu: int | None = None

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.accelerator if self.gpu is None else f"{self.accelerator}:{self.gpu}")

    def autocast(self) -> torch.autocast:
        """What Lightning computes a step in; without effect in 32-true."""
        enabled = self.precision != "32-true"
        return torch.autocast(self.accelerator, _DTYPES[self.precision], enabled=enabled, cache_enabled=False)

    def devices(self, number: int) -> int | list[int]:
        """What a run of `number` devices tells Lightning."""
        return number if self.gpu is None or number > 1 else [self.gpu]


def pick_hardware(device: str, precision: str, slot: int | None = None) -> Hardware:
    """What both come to here, for the job in its `slot` if others run beside it; raises UserError if it has no GPU."""
    gpu = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None
    if device == "gpu" and gpu is None:
        raise UserError("device=gpu: this machine has no GPU that torch can use. There is: cpu.")
    accelerator = "cpu" if device == "cpu" or gpu is None else gpu
    # emulated, bfloat16 is slower than float32; torch has no public probes for what a CPU does in hardware
    probes = (getattr(torch.cpu, name, bool) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    cpu = "bf16-mixed" if any(probe() for probe in probes) else "32-true"
    half = {"cuda": "16-mixed", "mps": "32-true", "cpu": cpu}[accelerator]
    refused = precision == "16-mixed" and accelerator != "cuda"
    note = f"precision=16-mixed needs a CUDA GPU; this run uses {half} instead." if refused else None
    mine = slot % torch.cuda.device_count() if slot is not None and accelerator == "cuda" else None
    return Hardware(accelerator, half if precision == "auto" or note else precision, note, mine)
