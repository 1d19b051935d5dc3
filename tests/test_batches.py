"""The order of images, and what the network is given."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision.transforms.v2.functional as reference
from torch import Generator

from src.config.compose import configure
from src.config.errors import UserError
from src.config.schema import DatasetConfig, TrainConfig
from src.data.batches import BatchOrder, check_shared_memory, step_seed
from src.data.datamodule import DataModule, fits, used
from src.data.images import ImageSet, Splits
from src.data.preparation import batch_normalize, batch_resize
from src.data.statistics import measure


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def bytes_(count: int, channels: int = 3, side: int = 8) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, side, side), generator=seeded(9), dtype=torch.uint8)


@pytest.mark.parametrize(("side", "size"), [(28, 227), (32, 227), (32, 223), (300, 227), (28, 28)])
def test_resize_agrees_with_torchvision(side: int, size: int) -> None:
    images = torch.rand(3, 3, side, side, generator=seeded())
    expected = reference.resize(images, [size, size], antialias=True)
    assert torch.allclose(batch_resize(images, size), expected, atol=1e-5)


def test_normalize_agrees_with_torchvision() -> None:
    images = bytes_(4)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    expected = reference.normalize(images.float() / 255, mean, std)
    found = batch_normalize(images.float(), torch.tensor(mean), torch.tensor(std))
    assert torch.allclose(found, expected, atol=1e-5)


def indices(order: BatchOrder) -> list[int]:
    return [index for _, batch in order for index in batch.tolist()]


class TestOrder:
    def test_epoch_holds_each_image_once_in_another_order(self) -> None:
        order = BatchOrder(103, 10, seed=1)
        first = indices(order)
        order.set_epoch(1)
        second = indices(order)
        assert sorted(first) == sorted(second) == list(range(103))
        assert first != second
        assert len(order) == 11

    def test_it_is_a_function_of_seed_and_epoch(self) -> None:
        one, same, other = BatchOrder(50, 8, 1), BatchOrder(50, 8, 1), BatchOrder(50, 8, 2)
        assert indices(one) == indices(same) != indices(other)

    def test_without_a_seed_it_is_the_order_on_disk(self) -> None:
        assert indices(BatchOrder(7, 3, None)) == list(range(7))

    @pytest.mark.parametrize("seed", [1, None])
    def test_processes_share_without_overlap(self, seed: int | None) -> None:
        shares = [indices(BatchOrder(101, 8, seed, rank, 3)) for rank in range(3)]
        together = [index for share in shares for index in share]
        assert len(set(together)) == len(together) == (99 if seed else 101)

    def test_step_seeds_differ_by_each_argument(self) -> None:
        seeds = {
            step_seed(*arguments)
            for arguments in [(1, 0, 0, "a"), (2, 0, 0, "a"), (1, 1, 0, "a"), (1, 0, 1, "a"), (1, 0, 0, "b")]
        }
        assert len(seeds) == 5
        assert step_seed(1, 2, 3, "a") == step_seed(1, 2, 3, "a")


def module(**changes: Any) -> DataModule:
    """Six images a batch of 20, of three channels, or what `changes` say of the config or the splits."""
    part = ImageSet(bytes_(20, side=28), torch.arange(20) % 4)
    options: dict[str, Any] = {
        "splits": Splits(part, part, part, list("abcd"), "full"),
        "batch_size": 6,
        "num_workers": 0,
        "seed": 1,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "image_size": 227,
    }
    options |= changes
    options["dataset"] = DatasetConfig.model_construct(**options)
    chosen = {key: options[key] for key in ("augmentation",) if key in options}
    return DataModule(options["splits"], TrainConfig.model_construct(**options), **chosen)


def test_batches_are_bytes_fetched_by_one_indexing_call() -> None:
    part = ImageSet(bytes_(20, side=28), torch.arange(20) % 4)
    calls = []

    class Counting(torch.Tensor):
        def __getitem__(self, index: Any) -> Any:
            calls.append(index)
            return super().__getitem__(index)

    counted = ImageSet(part.images.as_subclass(Counting), part.labels)
    data = module(splits=Splits(counted, counted, counted, list("abcd"), "full"))
    batches = list(data.train_dataloader())
    assert [len(labels) for _, labels in batches] == [6, 6, 6, 2]
    assert all(images.dtype == torch.uint8 for images, _ in batches)
    assert len(calls) == 4, "one call a batch, none an image"


def test_what_the_network_sees_is_resized_and_normalized() -> None:
    data = module()
    images = data.splits.train.images
    seen = data.prepare(images)
    expected = reference.normalize(
        reference.resize(images.float() / 255, [227, 227], antialias=True), [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    )
    assert seen.shape == (20, 3, 227, 227)
    assert torch.allclose(seen, expected, atol=1e-4)


def test_processes_whose_batches_do_not_fit_into_shared_memory_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    images = ImageSet(bytes_(20, side=100), torch.zeros(20, dtype=torch.int64))
    monkeypatch.setattr("src.data.batches.SHARED", tmp_path)
    for free, workers in ((10**6, 0), (3 * 10**6, 2)):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        check_shared_memory(images, 8, workers)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(
        UserError, match=r"num_workers=2: their batches need 1.5 MiB .* 1.0 MiB free. Take num_workers=0"
    ):
        check_shared_memory(images, 8, 2)


def test_mean_and_std_are_those_of_the_pixels() -> None:
    images = bytes_(50)
    mean, std = measure(ImageSet(images, torch.zeros(50)))
    pixels = images.double() / 255
    assert mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-4)
    assert std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=1e-4)


@pytest.mark.parametrize(("height", "width"), [(300, 100), (100, 300), (240, 227)])
def test_a_side_that_shrinks_is_smoothed_also_where_the_other_grows(height: int, width: int) -> None:
    images = torch.rand(2, 1, height, width, generator=seeded())
    expected = reference.resize(images, [227, 227], antialias=True)
    assert torch.allclose(batch_resize(images, 227), expected, atol=1e-5)


def test_only_the_epoch_in_which_a_run_goes_on_begins_late() -> None:
    unbroken, resumed = BatchOrder(10, 3, 1), BatchOrder(10, 3, 1, start=(2, 3))
    for epoch, left_out in ((2, 9), (3, 0)):
        unbroken.set_epoch(epoch)
        resumed.set_epoch(epoch)
        assert indices(resumed) == indices(unbroken)[left_out:]


def test_validation_and_test_are_their_own_images_in_their_own_order() -> None:
    train, valid, test = (ImageSet(bytes_(count, side=28), torch.arange(count) % 4) for count in (20, 14, 9))
    data = module(splits=Splits(train, valid, test, list("abcd"), "full"))
    for part, loader in (valid, data.val_dataloader()), (test, data.test_dataloader()):
        assert torch.cat([labels for _, labels in loader]).tolist() == part.labels.tolist()
        assert torch.equal(torch.cat([images for images, _ in loader]), part.images)


def test_a_channel_that_is_the_same_everywhere_is_not_divided_by_nothing() -> None:
    images = bytes_(10)
    images[:, 1] = 51
    mean, std = measure(ImageSet(images, torch.zeros(10)))
    assert (mean[1], std[1]) == (0.2, 1e-4)
    seen = batch_normalize(images.float(), torch.tensor(mean), torch.tensor(std))
    assert float(seen[:, 1].abs().max()) < 1e-2


def test_images_lie_on_a_gpu_if_they_take_less_than_half_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    gpu = torch.device("cuda", 0)
    assert [fits(nbytes, gpu) for nbytes in (499, 500)] == [True, False]
    assert fits(10**15, torch.device("cpu"))
    assert not fits(1, torch.device("mps"))


@pytest.mark.parametrize(
    ("processes", "limits", "counts"),
    [
        (1, {}, (21, 14, 9)),
        (2, {}, (20, 14, 9)),  # the odd image waits for another epoch of training, and is scored
        (1, {"train": 0.8, "val": 1.0, "test": 1}, (16, 14, 4)),  # of 6 batches Lightning takes 4, not 4.8
        (2, {"train": 0.5, "test": 1}, (8, 14, 8)),
    ],
)
def test_images_that_are_used_are_those_of_all_processes(
    processes: int, limits: dict[str, float], counts: tuple[int, int, int]
) -> None:
    train, valid, test = (ImageSet(bytes_(count), torch.arange(count) % 4) for count in (21, 14, 9))
    asked = [f"trainer.limit_{split}_batches={limit}" for split, limit in limits.items()]
    found = used(Splits(train, valid, test, list("abcd"), "full"), configure(["batch_size=4", *asked]), processes)
    assert tuple(found.values()) == counts


def test_processes_that_fetch_batches_stay_for_the_whole_run() -> None:
    assert module(num_workers=2).train_dataloader().persistent_workers
    assert not module(num_workers=0).train_dataloader().persistent_workers
    assert 0 < module(num_workers=2).train_dataloader().timeout < 60, "one that hangs is told within a minute"
