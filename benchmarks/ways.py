"""The ways of training that are compared, each a process: python -m benchmarks.ways WAY OPTIONS REPLIES"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.cases import Case, find
from benchmarks.turns import PhaseOver, Turns


def tutorial(case: Case, data: str, device_name: str, turns: Turns, lightning: bool = False) -> None:
    """What tutorials write: PIL images one by one, float32, NCHW; on a GPU autocast and a loss scaler for MNIST."""
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    from src.model.alexnet import AlexNet

    device = torch.device("cuda" if device_name == "gpu" else "cpu")
    turns.wait = waiter(device)
    torch.manual_seed(1)
    grey = case.channels == 1
    pixels = ((0.1307,), (0.3081,)) if grey else ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    steps = [transforms.Resize((227, 227)), transforms.ToTensor(), transforms.Normalize(*pixels)]

    class Unverified(datasets.CIFAR10):  # its files need not have the official checksums
        train_list = [[f"data_batch_{number}", None] for number in range(1, 6)]  # noqa: RUF012
        test_list = [["test_batch", None]]  # noqa: RUF012
        meta = {"filename": "batches.meta", "key": "label_names", "md5": None}  # noqa: RUF012

    kind: Any = datasets.MNIST if grey else Unverified
    train, test = (kind(data, train=part, transform=transforms.Compose(steps)) for part in (True, False))
    loaders = [
        DataLoader(part, case.batch_size, shuffle=part is train, num_workers=case.loader_workers)
        for part in (train, test)
    ]
    form: dict[str, Any] = {} if grey else {"widths": [96, 256, 384, 384, 256], "batch_norm": True, "padding": 0}
    network = AlexNet(case.channels, 10, **form)
    if lightning:
        return usual(case, network, loaders, device_name, turns)

    network.to(device)
    optimizer: Any
    if case.optimizer == "adamw":
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, foreach=None, fused=False)
    else:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.005, momentum=0.9, weight_decay=0.005)
    mixed = grey and device.type == "cuda"
    scaler = torch.amp.GradScaler(device.type, enabled=mixed)
    with suppress(PhaseOver):
        while True:
            network.train()
            total, right = 0.0, 0
            for images, labels in loaders[0]:
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
        turns.begin()
        while True:
            for images, labels in loaders[1]:
                logits = network(images.to(device))
                right += (logits.argmax(1) == labels.to(device)).sum().item()
                turns.done(len(labels))


def usual(case: Case, network: Any, loaders: list[Any], device_name: str, turns: Turns) -> None:
    """The same as a LightningModule, with the Trainer's defaults."""
    import lightning as L
    import torch
    from torch.nn.functional import cross_entropy
    from torchmetrics.classification import MulticlassAccuracy

    class Usual(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.train_acc, self.test_acc = MulticlassAccuracy(10), MulticlassAccuracy(10)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            images, labels = batch
            logits = self.network(images)
            loss = cross_entropy(logits, labels)
            self.train_acc(logits, labels)
            self.log("train_loss", loss, prog_bar=True)
            self.log("train_acc", self.train_acc, prog_bar=True)
            return loss

        def test_step(self, batch: Any, batch_idx: int) -> None:
            images, labels = batch
            logits = self.network(images)
            self.test_acc(logits, labels)
            self.log("test_loss", cross_entropy(logits, labels))
            self.log("test_acc", self.test_acc)

        def configure_optimizers(self) -> Any:
            if case.optimizer == "adamw":
                return torch.optim.AdamW(self.parameters(), lr=1e-3)
            return torch.optim.SGD(self.parameters(), lr=0.005, momentum=0.9, weight_decay=0.005)

    gate = gate_callback(turns)
    precision: Any = "16-mixed" if case.channels == 1 and device_name == "gpu" else "32-true"
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"accelerator": device_name, "callbacks": [gate], "default_root_dir": folder}
        module = Usual()
        with suppress(PhaseOver):
            L.Trainer(max_epochs=100_000, precision=precision, **options).fit(module, loaders[0])
        with suppress(PhaseOver):
            turns.begin()
            while True:
                L.Trainer(precision=precision, **options).test(module, loaders[1])


def lightning(case: Case, data: str, device_name: str, turns: Turns) -> None:
    """Lightning as usual."""
    tutorial(case, data, device_name, turns, lightning=True)


def plain(case: Case, data: str, device_name: str, turns: Turns, **changes: Any) -> None:
    """A plain loop on our path: our batches, network and optimizer, no Trainer; `changes` of one thing each."""
    import torch
    from torch.nn.functional import cross_entropy

    from src.data.sampling import step_seed

    hardware, datamodule, classifier = parts(case, data, device_name)
    device = torch.device("cuda" if hardware.accelerator == "cuda" else "cpu")
    turns.wait = waiter(device)
    if hardware.accelerator == "cpu" and changes.get("keep_memory", True):
        from src.hardware import keep_freed_memory

        keep_freed_memory()
    if "threads" in changes:
        torch.set_num_threads(changes["threads"])
    network = classifier.network.to(device)
    if changes.get("memory_format") == "contiguous":
        network = network.to(memory_format=torch.contiguous_format)
    if changes.get("compile"):
        network.compile(mode=changes["compile"])
    optimizer = optimizer_of(classifier, network, changes)
    drop = changes.get("set_to_none", changes.get("optimizer") != "flat")  # a flat gradient is what theirs lie in
    scheduler = classifier._scheduler(optimizer, 100_000)
    precision = changes.get("precision", hardware.precision)
    dtype = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16, "32-true": torch.float32}[precision]
    cast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    if datamodule.splits.nbytes < 2**30 and device.type == "cuda":
        datamodule._placed = datamodule.splits.to(device)

    def batches(loader: Any, training: bool) -> Iterator[Any]:
        epoch, step = 0, 0
        while True:
            loader.sampler.set_epoch(epoch)
            for images, labels in loader:
                generator = None
                if training:
                    generator = torch.Generator(device).manual_seed(step_seed(1, step, 0, "augmentation"))
                    torch.manual_seed(step_seed(1, step, 0, "dropout"))
                yield datamodule.prepare(images.to(device), generator), labels.to(device)
                step += 1
            epoch += 1

    with suppress(PhaseOver):
        for images, labels in batches(datamodule.train_dataloader(), True):
            with cast:
                loss = cross_entropy(network(images), labels)
            optimizer.zero_grad(set_to_none=drop)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            turns.done(len(labels))
    network.eval()
    with suppress(PhaseOver), torch.inference_mode():
        turns.begin()
        right = torch.zeros((), dtype=torch.int64, device=device)
        for images, labels in batches(datamodule.test_dataloader(), False):
            with cast:
                right += (network(images).argmax(1) == labels).sum()
            turns.done(len(labels))
    with suppress(PhaseOver):  # the data path alone
        turns.begin()
        for _, labels in batches(datamodule.train_dataloader(), True):
            turns.done(len(labels))


def optimizer_of(classifier: Any, network: Any, changes: dict[str, Any]) -> Any:
    """The run's optimizer, or the same with another implementation or other groups."""
    import torch

    make, weights = classifier._optimizer, list(network.parameters())
    kind = changes.get("optimizer", "fused")
    if kind in ("foreach", "forloop"):
        return make.func(weights, **{**make.keywords, "fused": False, "foreach": kind == "foreach"})
    if kind == "grouped":  # no weight decay of biases and norms
        few, many = ([weight for weight in weights if (weight.ndim > 1) == side] for side in (False, True))
        return make([{"params": many}, {"params": few, "weight_decay": 0.0}])
    if kind == "flat":  # all weights and gradients as two vectors, so that the optimizer sees one tensor
        flat = torch.nn.Parameter(torch.cat([weight.detach().flatten() for weight in weights]))
        flat.grad = torch.zeros_like(flat)
        start = 0
        for weight in weights:
            end = start + weight.numel()
            with torch.no_grad():
                form = torch.channels_last if weight.ndim == 4 else torch.contiguous_format
                strides = torch.empty_like(weight, device="meta", memory_format=form).stride()
                weight.data = flat.data[start:end].as_strided(weight.shape, strides, start)
                weight.grad = flat.grad[start:end].as_strided(weight.shape, strides, start)
            start = end
        return make([flat])
    return make(weights)


def ours(case: Case, data: str, device_name: str, turns: Turns, overrides: tuple[str, ...] = ()) -> None:
    """What `python -m src.train` runs, and then what `python -m src.eval` does."""
    import src.train

    config = compose(case, data, device_name, overrides)
    kept: list[Any] = []
    gate = None

    def watched(build: Callable[..., Any]) -> Callable[..., Any]:
        def build_and_watch(*arguments: Any) -> Any:
            nonlocal gate
            gate = gate_callback(turns)
            trainer = build(*arguments)
            trainer.callbacks.append(gate)
            kept.append(trainer)
            return trainer

        return build_and_watch

    from src.cli import importing

    with importing():
        from src import training
        from src.hardware import pick_hardware
    training.build_trainer = watched(training.build_trainer)
    src.train.command_line = lambda door: "benchmark"  # there is no command line of Hydra's here
    with tempfile.TemporaryDirectory() as folder:
        with suppress(PhaseOver):
            src.train.train(config, Path(folder))
        fitted = kept[0]
        scorer: Any = training.build_scorer(pick_hardware(config.device, config.precision), 10)
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

    from src.hardware import pick_hardware
    from src.speed import matmul_rate

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


def parts(case: Case, data: str, device_name: str) -> Any:
    """What src.train builds, without the Trainer."""
    from src.cli import importing

    with importing():
        from src import experiment, results
        from src.data.images import split
        from src.hardware import pick_hardware
    config = compose(case, data, device_name)
    hardware = pick_hardware(config.device, config.precision)
    splits = split(experiment.read_images(config.dataset, config.data_dir), config.dataset.valid_fraction, 1)
    datamodule = experiment.build_datamodule(config, splits)
    about = results.describe(config, splits, hardware.precision, "")
    return hardware, datamodule, experiment.build_classifier(config, hardware, about)


def compose(case: Case, data: str, device_name: str, overrides: tuple[str, ...] = ()) -> Any:
    import hydra

    from src.cli import register
    from src.config import CONFIGS, TrainConfig
    from src.validation import check

    register()
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return check(hydra.compose("train", [*case.overrides(data, device_name), *overrides]), TrainConfig)


def gate_callback(turns: Turns) -> Any:
    import lightning as L

    class Gate(L.Callback):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            turns.wait = waiter(pl_module.device)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            turns.done(len(batch[1]))

        def on_test_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
        ) -> None:
            turns.done(len(batch[1]))

    return Gate()


def waiter(device: Any) -> Callable[[], None]:
    from src.speed import wait

    return lambda: wait(device)


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
