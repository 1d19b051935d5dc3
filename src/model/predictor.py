"""A trained network with the preparation that its images had in training: pixels in, probabilities out."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from src.config.errors import UserError
from src.config.schema import Device, Precision, TrainConfig, Workers
from src.data import handwriting
from src.data.batches import BatchOrder, make_loader
from src.data.decoding import decode
from src.data.images import ImageSet
from src.data.preparation import Preparation
from src.model.answers import Answers
from src.model.hardware import Hardware, pick_hardware
from src.model.network import build_network, load_weights
from src.model.saved import About, Checkpoint, load

LIGHT = 128  # of 255: the edge of a drawing on light paper is at least this
UNSURE = 0.5  # an answer of less probability is marked so


class Reading(NamedTuple):
    """uint8 (C, H, W) for the network, and what was done to the image."""

    pixels: Tensor
    inverted: bool
    centred: bool


class Predictor:
    """A network in evaluation mode on its device, for uint8 images (B, C, H, W) of any size."""

    def __init__(self, network: nn.Module, config: TrainConfig, about: About, hardware: Hardware) -> None:
        self.config, self.hardware = config, hardware
        self.classes, self.channels, self.dark_background = about.classes, about.channels, about.dark_background
        self.handwritten = about.handwritten
        self.height, self.width = about.size
        self.network = network.to(hardware.torch_device).eval()
        self.preparation = Preparation.of(config.dataset).to(hardware.torch_device)

    @classmethod
    def load(cls, path: str | Path, device: Device = "auto", precision: Precision | None = None) -> Predictor:
        """In the precision of its training unless another is asked for; raises UserError if it can't be read."""
        return cls.of(load(path), device, precision)

    @classmethod
    def of(cls, saved: Checkpoint, device: Device = "auto", precision: Precision | None = None) -> Predictor:
        hardware = pick_hardware(device, precision or saved.about.precision)
        network = build_network(saved.config.model, saved.about.channels, len(saved.about.classes))
        load_weights(network, saved)
        if changed := saved.about.changed_network:
            hardware = replace(hardware, note=f"{hardware.note or ''} {changed}.".strip())
        return cls(network, saved.config, saved.about, hardware)

    def prepare(self, images: Tensor) -> Tensor:
        """float32 (B, C, image_size, image_size), as the network sees them, on its device."""
        if images.shape[1] != self.channels:
            raise UserError(f"images of {images.shape[1]} channels: the network takes {self.channels}.")
        return self.preparation(images.to(self.hardware.torch_device)).contiguous(memory_format=torch.channels_last)

    def logits(self, images: Tensor) -> Tensor:
        """float32 (B, num_classes), on its device."""
        with torch.inference_mode(), self.hardware.autocast():
            # the plain forward: a compiled one would be compiled again for this batch size
            return self.network.forward(self.prepare(images)).float()

    def __call__(self, images: Tensor) -> Tensor:
        """Probabilities, float32 (B, num_classes), on the CPU."""
        return self.logits(images).cpu().softmax(1)

    def answer(self, images: ImageSet, split: str, batch_size: int = 128, workers: Workers = "auto") -> Answers:
        """What it says of labelled images; `split` names them in pictures. Raises UserError if one can't be read."""
        logits = []
        for batch in make_loader(images, BatchOrder(len(images), batch_size, None), workers):
            if isinstance(batch, UserError):
                raise batch
            logits.append(self.logits(batch[0]))
        return Answers(images, torch.cat(logits).cpu(), self.classes, split)  # the device is waited for once

    def saliency(self, images: Tensor, classes: Tensor) -> Tensor | None:
        """Where in each image the network saw the class int64 (B,): Grad-CAM (Selvaraju et al. 2017) of the last
        convolution's maps, as they are after its activation: before it most of a map is below zero, and nothing would
        be left. float32 (B, H, W) in 0..1 at the images' size; None where there is no convolution."""
        layer = last_feature_maps(self.network, self.prepare(images[:1]))
        if layer is None:
            return None
        with warnings.catch_warnings():  # of a progress bar that a notebook has no widgets for
            warnings.simplefilter("ignore")
            from captum.attr import LayerAttribution, LayerGradCam
        maps = LayerGradCam(self.network.forward, layer).attribute(
            self.prepare(images), target=classes.to(self.hardware.torch_device), relu_attributions=True
        )
        maps = LayerAttribution.interpolate(maps.detach().float(), images.shape[-2:], "bilinear")[:, 0].cpu()
        return maps / maps.amax((1, 2), keepdim=True).clamp(min=1e-12)

    def read(self, file: Path, invert: bool | None = None, centre: bool | None = None) -> Reading:
        """An image file. None inverts what is drawn dark on light, if the network has learned light on dark, and
        centres a character in what is not of the trained size, if it has learned handwriting."""
        if centre or (centre is None and self.handwritten):
            grey = decode(file, 1, None)[0].numpy()
            if (centre or grey.shape != (self.height, self.width)) and (reading := self.centre(grey, invert)):
                return reading
        pixels = decode(file, self.channels, (self.width, self.height), self.config.dataset.fit)
        if invert is None:
            edge = torch.cat([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], dim=1)
            invert = self.dark_background and float(np.median(edge)) >= LIGHT
        return Reading(255 - pixels if invert else pixels, invert, False)

    def centre(self, grey: np.ndarray, invert: bool | None = None) -> Reading | None:
        """The handwritten character in uint8 (H, W) of any size; None if there is none."""
        if (found := handwriting.centre(grey, invert)) is None:
            return None
        pixels = decode(Image.fromarray(found[1]), self.channels, (self.width, self.height))
        return Reading(pixels, found[0], True)


def last_feature_maps(network: nn.Module, images: Tensor) -> nn.Module | None:
    """The last convolution that a pass over `images` comes through, or the last of the layers after it that keep its
    shape, as normalization and activation do."""
    passed: list[tuple[nn.Module, torch.Size]] = []

    def record(layer: nn.Module, _: object, output: Tensor) -> None:
        if not list(layer.children()):
            passed.append((layer, output.shape))

    with torch.inference_mode(), register_module_forward_hook(record):
        network.forward(images)
    last = max((index for index, (layer, _) in enumerate(passed) if isinstance(layer, nn.Conv2d)), default=None)
    if last is None:
        return None
    return [layer for layer, _ in takewhile(lambda item: item[1] == passed[last][1], passed[last:])][-1]


def first_filters(network: nn.Module) -> Tensor:
    """The kernels of the first convolution, float (N, C, h, w); N is 0 where there is no such layer."""
    kernels = (layer.weight.detach().float().cpu() for layer in network.modules() if isinstance(layer, nn.Conv2d))
    return next(kernels, torch.zeros(0, 1, 1, 1))
