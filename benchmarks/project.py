"""All that the benchmarks take from src/, so that a change there is followed here alone, and what bounds a speed."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import count
from pathlib import Path
from timeit import timeit
from types import SimpleNamespace
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.throughput import measure_flops
from torch import Tensor, nn

from src.config.check import check
from src.config.cli import end
from src.config.compose import configure
from src.config.errors import RunError, Stopped, UserError
from src.config.files import check_target, write_json, write_text
from src.config.folder import is_finished
from src.config.process import Interrupts, keep_freed_memory
from src.config.schema import TrainConfig
from src.data.batches import step_seed
from src.data.preparation import Preparation
from src.data.splitting import stratified
from src.model import build, saved
from src.model import provenance as made_by
from src.model.hardware import Hardware, pick_hardware
from src.model.parameters import trainable
from src.model.predictor import Predictor
from src.results.outcome import duration
from src.sweeps.jobs import follow
from src.training import run, session  # noqa: F401  which a run would import later, and slower

DTYPES = {"32-true": torch.float32, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
__all__ = ["Hardware", "Interrupts", "Predictor", "Preparation", "RunError", "Stopped", "UserError", "check_target"]
__all__ += ["duration", "follow", "is_finished", "keep_freed_memory", "pick_hardware", "stratified"]
__all__ += ["write_json", "write_text"]


@contextmanager
def explained(advice: str = "") -> Iterator[None]:
    """Say in a sentence what went wrong, and leave with the exit code that src.train has for it."""
    try:
        yield
    except (UserError, RunError) as error:
        end(error, 2 if isinstance(error, UserError) else 1)
    except Stopped as stop:
        end(Stopped(stop.number, f"{stop} {advice}".strip()), stop.code)


def train(overrides: list[str], folder: Path, callbacks: Sequence[L.Callback]) -> None:
    """What `python -m src.train` does, with more callbacks."""
    command = " ".join(["python -m src.train", *overrides])
    run.train(configure(overrides), folder, command=command, callbacks=callbacks)


class PlainRun:
    """A run of src.train without its Trainer: its batches, network and optimizer."""

    def __init__(self, overrides: list[str]) -> None:
        config = configure(overrides)
        self.datamodule, classifier = build.build(config)
        self.hardware = pick_hardware(config.device, config.precision)
        self.device, self.seed = self.hardware.torch_device, config.seed
        self.network = classifier.network.to(self.device)
        self.optimizer = classifier._optimizer(trainable(classifier))
        self.scheduler = classifier._scheduler(self.optimizer, 100_000)

    def batches(self, training: bool) -> Iterator[Any]:
        """Batches without end, as the network sees them; for training drawn and augmented as in a run."""
        strategy: Any = SimpleNamespace(root_device=self.device)
        counts = {"global_rank": 0, "world_size": 1, "num_devices": 1}
        self.datamodule.trainer = SimpleNamespace(training=training, strategy=strategy, **counts)  # type: ignore[assignment]
        self.datamodule.setup("fit")
        loader = self.datamodule.train_dataloader() if training else self.datamodule.test_dataloader()
        for epoch in count():
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            for images, labels in loader:
                torch.manual_seed(step_seed(self.seed, self.datamodule.step, 0, "dropout"))
                yield self.datamodule.on_after_batch_transfer((images.to(self.device), labels.to(self.device)), 0)


def in_file_order(datamodule: Any) -> None:
    """Let training take the images in the order of their files, in each epoch."""
    datamodule.train_dataloader = lambda: datamodule._loader(datamodule._placed.train, None)


def score_forever(classifier: Any, datamodule: Any) -> None:
    """Score the test images again and again, as src.eval does."""
    config = check(classifier.about.config, TrainConfig)
    predictor = Predictor(classifier.network, config, classifier.about, pick_hardware(config.device, config.precision))
    while True:
        predictor.answer(datamodule.splits.test, "test", config.batch_size, config.num_workers)


def trained(path: Path, data_dir: Path) -> tuple[Predictor, Any]:
    """The predictor of a checkpoint, and the test images of its run; raises UserError where they are not there."""
    checkpoint = saved.load(path)
    return Predictor.of(checkpoint), build.images_of(checkpoint, str(data_dir)).test


def provenance() -> dict[str, Any]:
    """The `machine`, the `versions` and the `git` revision, as results.json has them."""
    revision = made_by.git_revision()
    machine = made_by.machine().model_dump()
    return {"machine": machine, "versions": made_by.versions(), "git": revision and revision.model_dump()}


def describe(device: str) -> dict[str, Any]:
    """The machine, the versions and the revision; raises UserError where there is no such device."""
    precision, found = pick_hardware(device, "auto").precision, provenance()
    machine = found["machine"]
    machine["system"] = machine["system"].partition("-")[0]  # the kernel's version is nobody's business
    machine["device"] = machine["gpu"] if device == "gpu" else machine["processor"]
    words = machine["device"] if device == "gpu" else f"{machine['device']} {machine['cores']} cores"
    name = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    return {"name": name, "device": device, "precision": precision, **found}


def flops_per_image(network: nn.Module, image: Tensor, training: bool) -> int:
    """Floating-point operations of one pass of `image` (1, C, S, S), forward and for training also back, by torch's
    counter: only products, a multiplication with its addition as two."""
    network = deepcopy(network)  # whose gradients and running statistics nobody needs
    return measure_flops(network, lambda: network(image), torch.sum if training else None)


def matmul_rate(device: torch.device, precision: str, patience: float) -> float:
    """Floating-point operations a second: the best of products in `patience` seconds, as others may use the machine."""
    size = 2048 if device.type == "cpu" else 8192
    left, right = torch.randn(2, size, size, device=device, dtype=DTYPES[precision])
    seconds: list[float] = []
    while len(seconds) < 5 or sum(seconds) < patience:  # the first product chooses the kernel and fetches memory
        seconds.append(timeit(lambda: (left @ right)[0, 0].item(), number=1))  # which waits for a GPU
    return 2 * size**3 / min(seconds)
