"""A plain loop on our path: what Lightning is compared with, and what changes of one thing are tried on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from benchmarks.cases import Case
from benchmarks.parts import parts, waiter
from benchmarks.turns import PhaseOver, Turns


def plain(case: Case, data: str, device_name: str, turns: Turns, **changes: Any) -> None:
    """A plain loop on our path: our batches, network and optimizer, no Trainer; `changes` of one thing each."""
    import torch
    from torch.nn.functional import cross_entropy

    from src.model.hardware import keep_freed_memory

    hardware, datamodule, classifier = parts(case, data, device_name)
    device = torch.device("cuda" if hardware.accelerator == "cuda" else "cpu")
    turns.wait = waiter(device)
    if hardware.accelerator == "cpu" and changes.get("keep_memory", True):
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

    with suppress(PhaseOver):
        for images, labels in batches(datamodule, datamodule.train_dataloader(), device, training=True):
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
        for images, labels in batches(datamodule, datamodule.test_dataloader(), device, training=False):
            with cast:
                right += (network(images).argmax(1) == labels).sum()
            turns.done(len(labels))
    with suppress(PhaseOver):  # the data path alone
        turns.begin()
        for _, labels in batches(datamodule, datamodule.train_dataloader(), device, training=True):
            turns.done(len(labels))


def batches(datamodule: Any, loader: Any, device: Any, training: bool) -> Iterator[Any]:
    """Batches without end, as the network sees them; for training drawn and augmented as in a run of ours."""
    import torch

    from src.data.batches import step_seed

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
