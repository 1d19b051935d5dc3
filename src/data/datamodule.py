"""From images in memory to batches as the network sees them."""

from __future__ import annotations

from typing import Literal

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from src.config.schema import AugmentationConfig
from src.data.augmentation import batch_affine, batch_crop, batch_flip
from src.data.images import ImageSet, Splits
from src.data.order import Batch, Batches, BatchOrder, step_seed
from src.data.preparation import Preparation


class DataModule(L.LightningDataModule):
    """Batches of uint8 images, each fetched by one indexing call; all else is done to them on the device.

    Images that leave most of a GPU's memory free lie there as a whole, so that nothing is transferred in a step.

    Args:
        mean, std: per channel, of pixels in 0..1.
        image_size: side in pixels of what the network sees.
        scored: the images that a test runs on; a training run leaves it alone.
        start: (epoch, batch) that a resumed run goes on at. Lightning asks for the batches before it knows that.
    """

    step = 0  # of the training batch that comes next, counted over the run; a resumed run sets it

    def __init__(
        self,
        splits: Splits,
        *,
        batch_size: int,
        num_workers: int,
        seed: int,
        mean: list[float],
        std: list[float],
        image_size: int,
        augmentation: AugmentationConfig,
        scored: Literal["test", "val", "train"] = "test",
        start: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.splits = splits
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.preparation = Preparation(mean, std, image_size)
        self.augmentation = augmentation
        self._placed = splits  # where batches are fetched from
        self.scored, self._start = scored, start

    def setup(self, stage: str) -> None:
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if device != self._placed.train.store.device and fits(self.splits.nbytes, device):
            self._placed = self.splits.to(device)

    def train_dataloader(self) -> DataLoader:
        return self._loader(self._placed.train, self.seed)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self._placed.valid, None)

    def test_dataloader(self) -> DataLoader:
        return self._loader(self._placed.named(self.scored), None)

    @property
    def scored_images(self) -> ImageSet:
        """Those that a test runs on."""
        return self.splits.named(self.scored)

    def _loader(self, images: ImageSet, seed: int | None) -> DataLoader:
        rank, replicas = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        device = images.store.device
        onto_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        workers = self.num_workers if device.type == "cpu" else 0  # what lies on the device needs no fetching
        return DataLoader(
            Batches(images),
            sampler=BatchOrder(len(images), self.batch_size, seed, rank, replicas, device, self._start),
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=onto_gpu and device.type == "cpu",
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """uint8 (B, C, H, W) -> float32 (B, C, image_size, image_size), augmented in training."""
        images, labels = batch
        generator = None
        if self.trainer is not None and self.trainer.training:
            seed = step_seed(self.seed, self.step, self.trainer.global_rank, "augmentation")
            self.step += 1
            generator = torch.Generator(images.device).manual_seed(seed)
        return self.prepare(images, generator), labels

    def prepare(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images as the network sees them; with a generator, augmented by its draws."""
        augmentation = self.augmentation
        if generator is not None and augmentation.flip:
            images = batch_flip(images, generator)
        if generator is not None and augmentation.crop:
            images = batch_crop(images, augmentation.crop, generator)
        if generator is not None and (augmentation.degrees or augmentation.translate or augmentation.scale):
            amounts = augmentation.degrees, augmentation.translate, augmentation.scale
            images = batch_affine(images.float().contiguous(), *amounts, generator)
        if self.preparation.mean.device != images.device:
            self.preparation.to(images.device)
        return self.preparation(images).contiguous(memory_format=torch.channels_last)


def fits(nbytes: int, device: torch.device) -> bool:
    """Whether data of this size may lie on `device` for good: half of what is free there is left to the network."""
    if device.type == "cpu":
        return True
    return device.type == "cuda" and nbytes < torch.cuda.mem_get_info(device)[0] / 2


def measure(images: ImageSet) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, of pixels in 0..1."""
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for indices in torch.arange(len(images)).split(1000):  # bincount makes eight bytes of each pixel
        pixels, _ = images.fetch(indices)
        counts += torch.stack([torch.bincount(channel.reshape(-1), minlength=256) for channel in pixels.unbind(1)])
    levels = torch.arange(256, dtype=torch.float64) / 255
    weights = counts.double() / counts.sum(1, keepdim=True)
    mean = weights @ levels  # (C,)
    std = (weights @ levels.square() - mean.square()).clamp(min=0).sqrt()
    return [round(value, 4) for value in mean.tolist()], [max(round(value, 4), 1e-4) for value in std.tolist()]
