"""The loops that tutorials write, and the same in Lightning as usual."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from typing import Any

from benchmarks.cases import Case
from benchmarks.parts import gate_callback, waiter
from benchmarks.turns import PhaseOver, Turns


def tutorial(case: Case, data: str, device_name: str, turns: Turns) -> None:
    """What tutorials write: PIL images one by one, float32, NCHW; on a GPU autocast and a loss scaler for MNIST."""
    import torch
    from torch.nn.functional import cross_entropy

    device = torch.device("cuda" if device_name == "gpu" else "cpu")
    turns.wait = waiter(device)
    train, test = loaders(case, data)
    network = plain_network(case).to(device)
    optimizer = unfused(case, network)
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
        turns.begin()
        while True:
            for images, labels in test:
                logits = network(images.to(device))
                right += (logits.argmax(1) == labels.to(device)).sum().item()
                turns.done(len(labels))


def loaders(case: Case, data: str) -> Any:
    """A loader of training and one of test images, each image resized, made a tensor and normalized on its own."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    grey = case.channels == 1
    pixels = ((0.1307,), (0.3081,)) if grey else ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    steps = [transforms.Resize((227, 227)), transforms.ToTensor(), transforms.Normalize(*pixels)]

    class Unverified(datasets.CIFAR10):  # its files need not have the official checksums
        train_list = [[f"data_batch_{number}", None] for number in range(1, 6)]  # noqa: RUF012
        test_list = [["test_batch", None]]  # noqa: RUF012
        meta = {"filename": "batches.meta", "key": "label_names", "md5": None}  # noqa: RUF012

    kind: Any = datasets.MNIST if grey else Unverified
    train, test = (kind(data, train=part, transform=transforms.Compose(steps)) for part in (True, False))
    return [
        DataLoader(part, case.batch_size, shuffle=part is train, num_workers=case.loader_workers)
        for part in (train, test)
    ]


def plain_network(case: Case) -> Any:
    """The case's network in float32 and NCHW."""
    import torch

    from src.model.alexnet import AlexNet

    torch.manual_seed(1)
    if case.channels == 1:
        return AlexNet(1, 10)
    return AlexNet(3, 10, widths=[96, 256, 384, 384, 256], batch_norm=True, padding=0)


def unfused(case: Case, network: Any) -> Any:
    """The tutorial's optimizer, as torch makes it by default."""
    import torch

    if case.optimizer == "adamw":
        return torch.optim.AdamW(network.parameters(), lr=1e-3)
    return torch.optim.SGD(network.parameters(), lr=0.005, momentum=0.9, weight_decay=0.005)


def lightning(case: Case, data: str, device_name: str, turns: Turns) -> None:
    """Lightning as usual: the same as a LightningModule, with the Trainer's defaults."""
    import lightning as L
    from torch.nn.functional import cross_entropy
    from torchmetrics.classification import MulticlassAccuracy

    class Usual(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = plain_network(case)
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
            return unfused(case, self.network)

    train, test = loaders(case, data)
    gate = gate_callback(turns)
    precision: Any = "16-mixed" if case.channels == 1 and device_name == "gpu" else "32-true"
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"accelerator": device_name, "callbacks": [gate], "default_root_dir": folder}
        module = Usual()
        with suppress(PhaseOver):
            L.Trainer(max_epochs=100_000, precision=precision, **options).fit(module, train)
        with suppress(PhaseOver):
            turns.begin()
            while True:
                L.Trainer(precision=precision, **options).test(module, test)
