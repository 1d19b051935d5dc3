"""The two tutorials as they are published: python -m benchmarks.published mnist --images 4000 --seed 1

Their mistakes are marked where they stand; docs/lessons.md says what each does.
"""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets, transforms
from torchvision.datasets.utils import extract_archive
from torchvision.transforms import Compose, Normalize, RandomHorizontalFlip, Resize, ToTensor

from benchmarks.cases import NARROW
from src.model.alexnet import AlexNet
from src.results.intervals import percent

EPOCHS = {"mnist": 5, "cifar10": 20}
SIZE = Resize((227, 227))
CIFAR = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def mnist(train: Dataset[Any], epochs: int, device: torch.device) -> nn.Module:
    """AlexNet trained on MNIST with AdamW and, on a GPU, mixed precision."""
    network, optimizer = network_of("mnist", device)
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    loader = DataLoader(train, batch_size=128, num_workers=2)  # mistake: not shuffled
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
    return network.eval()


def cifar10(train: Dataset[Any], epochs: int, device: torch.device) -> nn.Module:
    """AlexNet with batch norm trained on CIFAR-10 with SGD."""
    network, optimizer = network_of("cifar10", device)
    loader = DataLoader(train, batch_size=64, shuffle=True)
    for _ in range(epochs):
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            loss = cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network  # mistake: no network.eval(), so dropout and the batch's own statistics stay on


def network_of(name: str, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A tutorial's network with the weights that torch gives its layers, and its optimizer as torch makes it."""
    if name != "cifar10":
        network = AlexNet(1 if name == "mnist" else 3, 10, **NARROW)
    else:
        network = AlexNet(3, 10, **{"widths": [96, 256, 384, 384, 256]} | NARROW, batch_norm=True, padding=0)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()  # ours has other weights there
    weights = network.to(device).parameters()
    if name != "cifar10":
        return network, torch.optim.AdamW(weights, lr=1e-3)
    return network, torch.optim.SGD(weights, lr=0.005, momentum=0.9, weight_decay=0.005)


def accuracy(network: nn.Module, test: Dataset[Any], batch_size: int, device: torch.device) -> float:
    """In 0..1, in whatever mode the network is."""
    batches = DataLoader(test, batch_size, num_workers=2)
    with torch.no_grad():
        right = [network(images.to(device)).argmax(1).cpu() == labels for images, labels in batches]
    return float(torch.cat(right).double().mean())


def images_of(name: str, data_dir: Path, jpeg: bool = False) -> tuple[Any, Any]:
    """Training and official test images as the tutorial prepares them, photos as torchvision's examples do; `jpeg`:
    those of benchmarks.jpeg. Raises RuntimeError or OSError if there are none in `data_dir`."""
    if name == "mnist":
        for packed in (data_dir / "MNIST" / "raw").glob("*.gz"):
            extract_archive(str(packed))  # torchvision would do so only as it downloads them
        steps = Compose([SIZE, ToTensor(), Normalize(0.5, 0.5)])
        return datasets.MNIST(str(data_dir), True, steps), datasets.MNIST(str(data_dir), False, steps)
    if name == "image_folder":
        steps = [transforms.RandomResizedCrop(227), RandomHorizontalFlip()], [Resize(227), transforms.CenterCrop(227)]
        made = (Compose([*some, ToTensor(), Normalize(*IMAGENET)]) for some in steps)
        return tuple(map(datasets.ImageFolder, (data_dir / "train", data_dir / "test"), made))
    train_steps = Compose([SIZE, RandomHorizontalFlip(), ToTensor(), Normalize(*CIFAR)])
    test_steps = Compose([SIZE, ToTensor(), Normalize(*IMAGENET)])  # mistake: not what it was trained with
    if jpeg:
        folder = data_dir / "cifar10-jpeg"
        test = datasets.ImageFolder(folder / "test", test_steps)
        return datasets.ImageFolder(folder / "train", train_steps), Subset(test, mixed(len(test)).tolist())
    return datasets.CIFAR10(str(data_dir), True, train_steps), datasets.CIFAR10(str(data_dir), False, test_steps)


def mixed(count: int) -> Tensor:
    """An order of test images, int64 (count,): a folder has them class by class, which changes what a network answers
    in training mode, whose batch norm takes the batch's own statistics; the genuine files have them mixed."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def main() -> None:
    from benchmarks import project, records  # not above: the speed of the tutorials is measured without them

    parser = records.arguments("published", __doc__)
    parser.add_argument("tutorial", choices=EPOCHS)
    parser.add_argument("--jpeg", action="store_true", help="CIFAR-10 as JPEGs, which benchmarks.jpeg writes")
    parser.add_argument("--epochs", type=int, help="of training; default: the tutorial's")
    parser.add_argument("--images", type=int, help="so many training images, each class by its share; default: all")
    options = parser.parse_args()
    name, epochs = options.tutorial, options.epochs or EPOCHS[options.tutorial]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with project.explained():
        project.check_target("--out", options.out, (".json",))
        try:
            train, test = images_of(name, options.data_dir, options.jpeg)
        except (RuntimeError, OSError) as error:  # torchvision's
            message = f"--data-dir {options.data_dir}: {name} is not there, and nothing is downloaded here: {error}"
            raise project.UserError(message) from error
        if options.images is not None:
            train = Subset(train, project.stratified(torch.as_tensor(train.targets), options.images).tolist())
    torch.manual_seed(options.seed)
    began = time.perf_counter()
    network = (mnist if name == "mnist" else cifar10)(train, epochs, device)
    seconds = round(time.perf_counter() - began, 2)
    score = accuracy(network, test, 128 if name == "mnist" else 64, device)
    data = "cifar10_jpeg" if options.jpeg else name
    record = {"seed": options.seed, "data": data, "source": "full", "images": len(train), "epochs": epochs}
    record |= {"scored_on": data, "scored_images": len(test), "accuracy": score, "val_accuracy": None, "val_images": 0}
    precision = "16-mixed" if name == "mnist" and device.type == "cuda" else "32-true"
    record |= {"seconds": seconds, "interruptions": 0, "precision": precision}
    project.write_json(options.out, record | records.here(project.provenance(), device.type))
    print(f"{percent(score)} of {len(test):,} test images after {seconds:,.0f} s")


if __name__ == "__main__":
    main()
