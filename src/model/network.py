"""The network of a config: built, tried, compiled, and with the weights of a checkpoint."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch.utilities.model_summary.model_summary import ModelSummary
from torch import nn

from src.config.errors import UserError
from src.config.schema import Component, TrainConfig
from src.model import init
from src.model.classifier import Classifier
from src.model.components import resolve, told
from src.model.hardware import Hardware
from src.model.provenance import way_back
from src.model.saved import Checkpoint


def build_network(model: Component, in_channels: int, num_classes: int) -> nn.Module:
    """The network of a config; raises UserError if its class or function refuses the arguments, or gives none."""
    refused = told(f"model._target_={model.target}: ", TypeError, AttributeError)
    with refused, told("", ValueError, RuntimeError, AssertionError):
        network = resolve(model)(in_channels=in_channels, num_classes=num_classes, **model.arguments())
        if not isinstance(network, nn.Module):
            raise UserError(f"model._target_={model.target}: that is no network (torch.nn.Module).")
        return network.to(memory_format=torch.channels_last)


def preferred_size(model: Component) -> int:
    """The side in pixels of the images that a network was designed for, as its class or function says."""
    size = getattr(resolve(model), "image_size", 227)
    return size(**model.arguments()) if callable(size) else size


def compile_network(classifier: Classifier, hardware: Hardware) -> None:
    """Let torch compile the network at its first step; on a CUDA GPU it is then replayed as one CUDA graph."""
    mode = "reduce-overhead" if hardware.accelerator == "cuda" else None
    classifier.network.compile(mode=mode, dynamic=False)  # an epoch's last batch has one size of its own


def summarize(classifier: Classifier, num_classes: int) -> ModelSummary:
    """Every layer with its output shape; raises UserError if images don't fit, or the answer isn't a logit a class."""
    fits = told("dataset.image_size: ", AssertionError)
    with fits, told("", ValueError), told("dataset.image_size, or the network: ", RuntimeError):
        summary = ModelSummary(classifier, max_depth=-1)
    shape = summary.out_sizes[summary.layer_names.index("network")]
    if shape != [1, num_classes]:
        raise UserError(f"the network answers with shape {shape}; expected {[1, num_classes]}, one logit a class.")
    return summary


def try_network(config: TrainConfig) -> None:
    """Summarize the network with images that nobody has read: colour or grey must fit, where the config doesn't say.

    Raises UserError as `summarize`. Each is tried on torch's meta device, which computes no values, and what fails
    there on the CPU; what fails otherwise there is left to the run, for it is a bug.
    """
    unused: Any = SimpleNamespace(classes=range(10))
    channels = [len(config.dataset.mean)] if config.dataset.mean else [3, 1]
    for number, device in (attempts := list(product(channels, ["meta", "cpu"]))):
        try:
            with torch.device(device):
                network = build_network(config.model, number, 10)
                init.freeze(network, config.init.freeze)
                classifier = Classifier(network, unused, {}, unused, unused, unused).to(device)
                size = config.dataset.image_size or preferred_size(config.model)
                classifier.example_input_array = torch.zeros(1, number, size, size)
                summarize(classifier, 10)
            return
        except Exception as error:
            if isinstance(error, UserError) and (number, device) == attempts[-1]:
                raise


def load_weights(network: nn.Module, saved: Checkpoint) -> None:
    """Put a checkpoint's weights into its network; raises UserError if they are another network's."""
    try:
        network.load_state_dict(saved.state_dict)
    except RuntimeError as error:
        theirs = f"checkpoint={saved.path}: its weights are not those of {saved.config.model.target} as it is now"
        raise UserError(f"{theirs}.\n{way_back(saved.config.model.target, saved.about.git)}") from error
