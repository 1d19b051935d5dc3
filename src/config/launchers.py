"""What this project sets of Hydra's launchers, which start the jobs of a sweep."""

from __future__ import annotations

import os
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

# no YAML: Hydra has a deprecation warning for a file that is named as a launcher is, in every job
SETTINGS: dict[str, dict[str, Any]] = {
    "joblib": {"n_jobs": "${devices_here:}"},
    "submitit_local": {"timeout_min": 1440, "tasks_per_node": 1},
    "submitit_slurm": {
        "timeout_min": 1440,
        "nodes": "${oc.select:trainer.num_nodes,1}",
        "tasks_per_node": "${devices}",
        "gpus_per_node": "${devices}",
        "cpus_per_task": 8,
        "mem_gb": 32,
        "max_num_timeout": 1000,  # a run that has used its time goes on in another job
        "additional_parameters": {"requeue": True},
    },
}


def register() -> None:
    """Give the launchers that are installed these values for their own."""
    Plugins.instance()  # loads them
    store = ConfigStore.instance()
    stored = store.repo.get("hydra", {}).get("launcher", {})
    for name, values in SETTINGS.items():
        if f"{name}.yaml" in stored:
            node = OmegaConf.merge(stored[f"{name}.yaml"].node, values)
            store.store(group="hydra/launcher", name=name, node=node, provider=stored[f"{name}.yaml"].provider)


def _devices_here() -> int:
    """GPUs, or processor cores where there are none: so many jobs run at one time."""
    from torch.cuda import device_count

    return device_count() or os.cpu_count() or 1


OmegaConf.register_new_resolver("devices_here", _devices_here, replace=True)
