"""What the ways share: our run's parts without its Trainer, and how a Trainer takes turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.cases import Case
from benchmarks.turns import Turns


def parts(case: Case, data: str, device_name: str) -> Any:
    """What src.train builds, without the Trainer."""
    from src.config.cli import importing

    with importing():
        from src.data.images import split
        from src.model import build as experiment
        from src.model.hardware import pick_hardware
        from src.model.saved import About
    config = compose(case, data, device_name)
    hardware = pick_hardware(config.device, config.precision)
    splits = split(experiment.read_images(config.dataset, config.data_dir), config.dataset.valid_fraction, 1)
    datamodule = experiment.build_datamodule(config, splits)
    about = About.of(config, splits, hardware.precision, "")
    return hardware, datamodule, experiment.build_classifier(config, hardware, about)


def compose(case: Case, data: str, device_name: str, overrides: tuple[str, ...] = ()) -> Any:
    import hydra

    from src.config.check import check
    from src.config.compose import register
    from src.config.schema import CONFIGS, TrainConfig

    register()
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return check(hydra.compose("train", [*case.overrides(data, device_name), *overrides]), TrainConfig)


def gate_callback(turns: Turns) -> Any:
    import lightning as L

    class Gate(L.Callback):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            turns.wait, self.trainer = waiter(pl_module.device), trainer

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            turns.done(len(batch[1]))

        def on_test_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
        ) -> None:
            turns.done(len(batch[1]))

    return Gate()


def waiter(device: Any) -> Callable[[], None]:
    from src.model.hardware import wait

    return lambda: wait(device)
