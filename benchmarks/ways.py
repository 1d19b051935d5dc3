"""The ways of training, each a process that imports only what it needs, for its start is measured, too."""

import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES, PHOTOS, Case, accept_any_checksum
from benchmarks.turns import PhaseOver, Turns


def tutorial(case: Case, data: str, device_name: str, turns: Turns) -> None:
    """What tutorials write: PIL images one by one, float32, NCHW; on a GPU autocast and a loss scaler for MNIST."""
    import torch
    from torch.nn.functional import cross_entropy

    from benchmarks import published

    device = torch.device("cuda" if device_name == "gpu" else "cpu")
    train, test = loaders(case, data)
    network, optimizer = published.network_of(case.dataset, device)
    mixed = case.channels == 1 and device.type == "cuda"
    scaler = torch.amp.GradScaler(device.type, enabled=mixed)
    with suppress(PhaseOver):
        while True:
            network.train()
            total, right = 0.0, 0
            for images, labels in train:
                images, labels = images.to(device), labels.to(device)
                optimizer.zero_grad()
                with torch.autocast(device.type, enabled=mixed):
                    logits = network(images)
                    loss = cross_entropy(logits, labels)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                total += loss.item()
                right += (logits.argmax(1) == labels).sum().item()
                turns.done(len(labels))
    network.eval()
    with suppress(PhaseOver), torch.no_grad():
        while True:
            for images, labels in test:
                logits = network(images.to(device))
                right += (logits.argmax(1) == labels.to(device)).sum().item()
                turns.done(len(labels))


def loaders(case: Case, data: str) -> Any:
    """A loader of training and one of test images, each image resized, made a tensor and normalized on its own."""
    from torch.utils.data import DataLoader

    from benchmarks.published import images_of

    train, test = images_of(case.dataset, Path(data))
    options: Any = {"batch_size": case.batch_size, "num_workers": case.loader_workers}
    return DataLoader(train, shuffle=True, **options), DataLoader(test, **options)


def lightning(case: Case, data: str, device_name: str, turns: Turns) -> None:
    """Lightning as usual: the same as a LightningModule, with the Trainer's defaults."""
    import lightning as L
    import torch
    from torch.nn.functional import cross_entropy
    from torchmetrics.classification import MulticlassAccuracy

    from benchmarks import published

    class Usual(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.usual_optimizer = published.network_of(case.dataset, torch.device("cpu"))
            self.train_acc, self.test_acc = MulticlassAccuracy(10), MulticlassAccuracy(10)

        def training_step(self, batch: Any, batch_idx: int, name: str = "train") -> Any:
            images, labels = batch
            accuracy = getattr(self, f"{name}_acc")
            logits = self.network(images)
            loss = cross_entropy(logits, labels)
            accuracy(logits, labels)
            self.log_dict({f"{name}_loss": loss, f"{name}_acc": accuracy}, prog_bar=name == "train")
            return loss

        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.training_step(batch, batch_idx, "test")

        def configure_optimizers(self) -> Any:
            return self.usual_optimizer

    train, test = loaders(case, data)
    precision: Any = "16-mixed" if case.channels == 1 and device_name == "gpu" else "32-true"
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"accelerator": device_name, "callbacks": [gate(turns)], "default_root_dir": folder}
        module = Usual()
        with suppress(PhaseOver):
            L.Trainer(max_epochs=100_000, precision=precision, **options).fit(module, train)
        with suppress(PhaseOver):
            while True:
                L.Trainer(precision=precision, **options).test(module, test)


def gate(turns: Turns) -> Any:
    """A callback by which a Trainer takes turns; it keeps the `trainer` that it was called by."""
    import lightning as L

    class Gate(L.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.trainer, times = trainer, getattr(trainer.profiler, "recorded_durations", {})
            turns.waited = sum(times.get("[_TrainingEpochLoop].train_dataloader_next", []))
            turns.done(len(batch[1]))

        def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
            turns.done(len(batch[1]))

    return Gate()


def plain(case: Case, data: str, device_name: str, turns: Turns) -> None:
    """A plain loop on our path: our batches, network and optimizer, no Trainer."""
    project = imported()
    import torch
    from torch.nn.functional import cross_entropy

    run = project.PlainRun(case.overrides(data, device_name))
    network, device, cast = run.network, run.device, run.hardware.autocast()
    if device.type == "cpu":
        project.keep_freed_memory()
    scaler = torch.amp.GradScaler(device.type, enabled=run.hardware.precision == "16-mixed")
    with suppress(PhaseOver):
        for images, labels in run.batches(training=True):
            with cast:
                loss = cross_entropy(network(images), labels)
            run.optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(run.optimizer)
            scaler.update()
            run.scheduler.step()
            turns.done(len(labels))
    network.eval()
    with suppress(PhaseOver), torch.inference_mode():
        right = torch.zeros((), dtype=torch.int64, device=device)
        for images, labels in run.batches(training=False):
            with cast:
                right += (network(images).argmax(1) == labels).sum()
            turns.done(len(labels))


def ours(case: Case, data: str, device_name: str, turns: Turns, compile: str = "false") -> None:
    """What `python -m src.train` runs, and then what `python -m src.eval` does."""
    project, gated = imported(), gate(turns)
    with tempfile.TemporaryDirectory() as folder, suppress(PhaseOver):
        project.train([*case.overrides(data, device_name), f"compile={compile}"], Path(folder), [gated])
    classifier = gated.trainer.lightning_module
    *_, last_layer = classifier.network.modules()
    last_layer.register_forward_hook(lambda module, given, logits: turns.done(len(logits)))
    with suppress(PhaseOver):
        project.score_forever(classifier, gated.trainer.datamodule)


def imported() -> Any:
    """benchmarks.project, imported as fast as src.train imports the same."""
    from src.config.cli import importing

    with importing():
        from benchmarks import project
    return project


WAYS: dict[str, Callable[..., None]] = {way.__name__: way for way in (tutorial, lightning, plain, ours)}
WAYS["compiled"] = partial(ours, compile="true")

if __name__ == "__main__":
    way, name, data_dir, device, replies = sys.argv[1:]
    chosen = next(case for case in CASES + PHOTOS if case.name == name)
    if chosen.dataset == "cifar10":
        accept_any_checksum()
    WAYS[way](chosen, data_dir, device, Turns(int(replies), device == "gpu"))
