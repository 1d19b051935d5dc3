"""The batches of a run for Lightning: from its images to what the network sees."""

from __future__ import annotations

import lightning as L
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from src.config.errors import UserError
from src.config.schema import TrainConfig
from src.data.batches import Augment, Batch, BatchOrder, RandomCut, make_loader, step_seed
from src.data.images import ImageSet, Splits
from src.data.preparation import Preparation


class DataModule(L.LightningDataModule):
    """Batches of uint8 images, which lie on the GPU where they fit, so that nothing is transferred in a step.

    `start` is where a resumed run goes on, (epoch, batch): Lightning asks for the batches before it knows that.
    """

    step = 0  # of the training batch that comes next, counted over the run; a resumed run sets it

    def __init__(
        self,
        splits: Splits,
        config: TrainConfig,
        start: tuple[int, int] = (0, 0),
        augmentation: Augment = lambda images, labels, _: (images, labels),
        cut: RandomCut | None = None,
    ) -> None:
        super().__init__()
        self.splits, self.config, self._start, self.augmentation, self.cut = splits, config, start, augmentation, cut
        self._placed = splits  # where batches are fetched from
        self.preparation = Preparation.of(config.dataset)

    def setup(self, stage: str) -> None:
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        there = device == self._placed.train.store.device
        # what is cut at random is fetched image by image, which processes do sooner than a GPU
        if self.splits.in_memory and not there and not self.cut and fits(self.splits.nbytes, device):
            self._placed = self.splits.to(device)

    def train_dataloader(self) -> DataLoader:
        return self._loader(self._placed.train, self.config.seed)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self._placed.valid, None)

    def test_dataloader(self) -> DataLoader:
        return self._loader(self._placed.test, None)

    def _loader(self, images: ImageSet, seed: int | None) -> DataLoader:
        trainer, device = self.trainer, images.store.device
        rank, replicas, here = (trainer.global_rank, trainer.world_size, trainer.num_devices) if trainer else (0, 1, 1)
        order = BatchOrder(len(images), self.config.batch_size, seed, rank, replicas, device, self._start)
        pin = trainer is not None and trainer.strategy.root_device.type == "cuda" and device.type == "cpu"
        cut = self.cut if seed is not None else None
        return make_loader(images, order, self.config.num_workers, here, pin, cut)

    def on_before_batch_transfer(self, batch: Batch | UserError, dataloader_idx: int) -> Batch:
        if isinstance(batch, UserError):
            raise batch
        return batch

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """uint8 (B, C, H, W) -> float32 (B, C, image_size, image_size), augmented in training."""
        if isinstance(batch, Tensor):  # the example of a model's summary
            return batch
        images, labels = batch
        if self.trainer and self.trainer.training:
            seed = step_seed(self.config.seed, self.step, self.trainer.global_rank, "augmentation")
            images, labels = self.augmentation(images, labels, Generator(images.device).manual_seed(seed))
            self.step += 1
        return self.prepare(images), labels

    def state_dict(self) -> dict[str, list[int]]:
        """What is known to be broken, by where it lies in the store of each split."""
        masks = {split: images.broken for split, images in self.splits.parts.items() if images.broken is not None}
        return {split: mask.nonzero().flatten().tolist() for split, mask in masks.items() if mask.any()}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        for split, rows in state.items():
            if (mask := self.splits.parts[split].broken) is not None:
                mask[rows] = True

    def replaced(self) -> dict[str, int]:
        """How many images of each split were broken, and others of their class taken; all processes call it."""
        assert self.trainer
        strategy, counts = self.trainer.strategy, dict[str, int]()
        for split, images in self.splits.parts.items():
            if images.broken is not None:
                found = strategy.reduce(images.broken.int().to(strategy.root_device), reduce_op="sum")
                images.broken.copy_(found > 0)
                counts[split] = images.replaced
        return counts

    def prepare(self, images: Tensor) -> Tensor:
        """Images as the network sees them."""
        if self.preparation.mean.device != images.device:
            self.preparation.to(images.device)
        return self.preparation(images).contiguous(memory_format=torch.channels_last)


def used(splits: Splits, config: TrainConfig, replicas: int) -> dict[str, int]:
    """How many images of each split an epoch takes in all processes: ``trainer.limit_*_batches`` may leave some out.

    Raises UserError if such a limit leaves nothing.
    """
    counts, steps = dict.fromkeys(("train", "val", "test"), 0), config.trainer.max_steps
    for split in counts:
        limit, seed = getattr(config.trainer, f"limit_{split}_batches"), config.seed if split == "train" else None
        for rank in range(replicas):
            order = BatchOrder(len(splits.parts[split]), config.batch_size, seed, rank, replicas)
            batches = int(limit * len(order)) if isinstance(limit, float) else limit or len(order)
            if not batches and (split != "test" or config.test):
                key = f"trainer.limit_{split}_batches"
                raise UserError(f"{key}={limit}: that is less than one of {len(order)} batches. Take a whole number.")
            if split == "train" and steps and steps > 0:
                batches = min(batches, steps * (config.trainer.accumulate_grad_batches or 1))
            counts[split] += min(batches * config.batch_size, len(order.share))
    return counts


def fits(nbytes: int, device: torch.device) -> bool:
    """Whether data of this size may lie on `device` for good: half of what is free there is left to the network."""
    return device.type == "cpu" or (device.type == "cuda" and nbytes < torch.cuda.mem_get_info(device)[0] / 2)
