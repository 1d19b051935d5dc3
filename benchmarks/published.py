"""The two tutorials as they are published: python -m benchmarks.published mnist --images 4000 --seed 1

Their mistakes are marked where they stand; docs/lessons.md says what each does. Nothing of src/ trains here but the
network, whose layers are the tutorials' own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets
from torchvision.transforms import Compose, Normalize, RandomHorizontalFlip, Resize, ToTensor

from benchmarks.records import Record, explained, here
from src.config.errors import UserError
from src.config.files import check_target, write_json
from src.data.images import stratified
from src.model.alexnet import AlexNet

EPOCHS = {"mnist": 5, "cifar10": 20}
SIZE = Resize((227, 227))
CIFAR = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Watch = Callable[[nn.Module, int], None]  # after each batch, with the images seen so far


def mnist(train: Dataset[Any], test: Dataset[Any], epochs: int, device: torch.device, watch: Watch) -> float:
    """AlexNet on MNIST with AdamW and, on a GPU, mixed precision."""
    network = untouched(AlexNet(1, 10)).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    loader = DataLoader(train, batch_size=128, num_workers=2)  # mistake: not shuffled
    seen = 0
    for _ in range(epochs):  # mistake: nothing is validated, the last epoch's weights are the result
        network.train()
        for number, (images, labels) in enumerate(loader):
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()  # mistake: with the step below, three of four batches are thrown away
            with torch.autocast(device.type, enabled=device.type == "cuda"):
                loss = cross_entropy(network(images), labels)
            scaler.scale(loss).backward()
            if (number + 1) % 4 == 0:
                scaler.step(optimizer)
                scaler.update()
            seen += len(labels)
            watch(network, seen)
    network.eval()
    return accuracy(network, DataLoader(test, batch_size=128, num_workers=2), device)


def cifar10(train: Dataset[Any], test: Dataset[Any], epochs: int, device: torch.device, watch: Watch) -> float:
    """AlexNet with batch norm on CIFAR-10 with SGD."""
    network = untouched(AlexNet(3, 10, widths=[96, 256, 384, 384, 256], batch_norm=True, padding=0)).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.005, momentum=0.9, weight_decay=0.005)
    loader = DataLoader(train, batch_size=64, shuffle=True)
    seen = 0
    for _ in range(epochs):
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            loss = cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += len(labels)
            watch(network, seen)
    # mistake: no network.eval(), so dropout and the batch's own statistics stay on
    return accuracy(network, DataLoader(test, batch_size=64), device)


def untouched(network: nn.Module) -> nn.Module:
    """With the weights that torch gives its layers, as the tutorials leave them; ours has others in convolutions."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    return network


def accuracy(network: nn.Module, loader: DataLoader[Any], device: torch.device) -> float:
    """In 0..1, in whatever mode the network is."""
    right, total = 0, 0
    with torch.no_grad():
        for images, labels in loader:
            answers: Tensor = network(images.to(device)).argmax(1)
            right += int((answers == labels.to(device)).sum())
            total += len(labels)
    return right / total


TUTORIALS = {"mnist": mnist, "cifar10": cifar10}


def images_of(name: str, data_dir: Path, jpeg: bool = False) -> tuple[Any, Any]:
    """Training and official test images as the tutorial prepares them, one by one.

    Args:
        name: "mnist" or "cifar10".
        jpeg: the second one's are those that benchmarks.jpeg writes.

    Raises:
        UserError: they are not in `data_dir`.
    """
    try:
        if name == "mnist":
            steps = Compose([SIZE, ToTensor(), Normalize(0.5, 0.5)])
            train, test = (datasets.MNIST(str(data_dir), train=part, transform=steps) for part in (True, False))
            return train, test
        train_steps = Compose([SIZE, RandomHorizontalFlip(), ToTensor(), Normalize(*CIFAR)])
        test_steps = Compose([SIZE, ToTensor(), Normalize(*IMAGENET)])  # mistake: not what it was trained with
        if jpeg:
            train = datasets.ImageFolder(str(data_dir / "cifar10-jpeg" / "train"), train_steps)
            test = datasets.ImageFolder(str(data_dir / "cifar10-jpeg" / "test"), test_steps)
            return train, Subset(test, mixed(len(test)).tolist())
        return datasets.CIFAR10(str(data_dir), True, train_steps), datasets.CIFAR10(str(data_dir), False, test_steps)
    except (RuntimeError, OSError) as error:
        folder = data_dir / ("MNIST/raw" if name == "mnist" else "cifar10-jpeg" if jpeg else "cifar-10-batches-py")
        raise UserError(
            f"{folder}: torchvision finds no whole {name} there, and nothing is downloaded here."
        ) from error


def mixed(count: int) -> Tensor:
    """An order of test images, int64 (count,): a folder has them class by class, the genuine files have them mixed.

    It matters only to a network that is scored in training mode, whose batch norm takes the batch's own statistics.
    """
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.published", description=__doc__)
    parser.add_argument("tutorial", choices=TUTORIALS)
    parser.add_argument("--jpeg", action="store_true", help="CIFAR-10 as JPEGs, which benchmarks.jpeg writes")
    parser.add_argument("--images", type=int, help="so many training images, each class by its share; default: all")
    parser.add_argument("--seed", type=int, default=1, help="of the weights, dropout and order")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("published.json"), help="the file for what came of it")
    options = parser.parse_args()
    with explained():
        check_target("--out", options.out, (".json",))
        found = run(options.tutorial, options.images, options.seed, options.data_dir, options.jpeg)
        write_json(options.out, found)
    print(f"{found['accuracy']:.2%} of {found['scored_images']:,} test images after {found['seconds']:,.0f} s")


def run(name: str, images: int | None, seed: int, data_dir: Path, jpeg: bool = False) -> Record:
    """Train and score one tutorial; gives the record of it, with the accuracy in 0..1 and the seconds of training.

    Raises:
        UserError: its images are not there, or not so many.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, test = images_of(name, data_dir, jpeg)
    if images is not None:
        train = Subset(train, stratified(torch.as_tensor(train.targets), images).tolist())
    torch.manual_seed(seed)
    began = ended = time.perf_counter()

    def watch(network: nn.Module, seen: int) -> None:
        nonlocal ended
        ended = time.perf_counter()

    score = TUTORIALS[name](train, test, EPOCHS[name], device, watch)
    data = "cifar10_jpeg" if jpeg else name
    return {
        "seed": seed,
        "data": data,
        "source": "full",
        "images": len(train),
        "epochs": EPOCHS[name],
        "scored_on": data,
        "scored_images": len(test),
        "accuracy": score,
        "val_accuracy": None,
        "val_images": 0,
        "seconds": round(ended - began, 2),
        "interruptions": 0,
        **here(device.type, "16-mixed" if name == "mnist" and device.type == "cuda" else "32-true"),
    }


if __name__ == "__main__":
    main()
