"""What a new run starts from: weights that exist, and layers that are not trained."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from src.config.cli import need
from src.config.errors import UserError
from src.config.files import check_weights
from src.config.problems import nearest
from src.config.schema import InitConfig
from src.model.saved import unpickle

WRAPPERS = {"network", "module", "model", "_orig_mod"}  # attributes under which other modules hold a whole network


class Loaded(NamedTuple):
    """What became of each layer, by its path, and of those that only the file has; `sha256` is the file's."""

    layers: dict[str, str]
    sha256: str


def load(network: nn.Module, init: InitConfig) -> Loaded | None:
    """Put each layer of the file into the network whose names and shapes fit; None if no file is named.

    Raises UserError if the file is missing, damaged or more than tensors, if nothing fits, if a layer that is to be
    frozen does not, or if a name is unknown.
    """
    own = network.state_dict()
    _check_names("skip", init.skip, network, list(own))
    if init.weights is None:
        if init.skip:
            raise UserError(f"init.skip=[{','.join(init.skip)}]: there are no init.weights to leave them out of.")
        return None
    theirs = _read(init.weights)
    while not own.keys() & theirs.keys():
        first, *others = {name.partition(".")[0] for name in theirs}
        if others or first not in WRAPPERS:
            break
        theirs = {name.partition(".")[2]: value for name, value in theirs.items()}
    layers: dict[str, list[str]] = {}
    for name in own:
        layers.setdefault(name.rpartition(".")[0] or name, []).append(name)
    rows = {layer: _load_layer(own, theirs, names, init) for layer, names in layers.items()}
    if not any(outcome.startswith("loaded") for outcome in rows.values()):
        one, other = (f"{name} ({_shape(side[name])})" for side in (theirs, own) for name in list(side)[:1])
        raise UserError(f"init.weights={init.weights}: no weight fits; the file has {one} ..., the network {other} ...")
    for layer, outcome in rows.items():
        if not outcome.startswith("loaded") and _is_within(layer, init.freeze):
            left = f"{layer} was not loaded ({outcome}), so that it would stay at its first, random weights"
            raise UserError(f"init.freeze=[{','.join(init.freeze)}]: {left}. Name only layers that are loaded.")
    rows |= {name.rpartition(".")[0] or name: "only in the file" for name in theirs if name not in own}
    with Path(init.weights).open("rb") as file:
        return Loaded(rows, hashlib.file_digest(file, "sha256").hexdigest())


def _load_layer(own: dict[str, Tensor], theirs: dict[str, Tensor], names: list[str], init: InitConfig) -> str:
    """Load a layer whole or not at all, and say what became of it."""
    wanted = [name for name in names if not _is_within(name, init.skip)]
    # older files lack the last one, and nothing is computed from it
    absent = [name for name in wanted if name not in theirs and not name.endswith("num_batches_tracked")]
    there = [name for name in wanted if name in theirs]
    if not wanted or not there:
        return "not in the file" if wanted else "left out"
    if absent:
        return f"misfits: the file has no {absent[0].rpartition('.')[2]}"
    for name in there:
        if theirs[name].shape != own[name].shape:
            return f"misfits: {_shape(theirs[name])} in the file, {_shape(own[name])} here"
    for name in there:
        own[name].copy_(theirs[name])
    left = [name.rpartition(".")[2] for name in names if name not in wanted]
    return f"loaded, but not its {' and '.join(left)}" if left else "loaded"


def freeze(network: nn.Module, names: list[str]) -> None:
    """Leave layers out of training: no gradients, no dropout, and normalization by the statistics that they have.

    Raises UserError if a name is unknown, or if nothing is left to train.
    """
    weights = dict(network.named_parameters())
    _check_names("freeze", names, network, list(weights))
    for name, weight in weights.items():
        if _is_within(name, names):
            weight.requires_grad_(False)
    for name, layer in network.named_modules():
        if name in names:
            layer.eval()  # after a validation, Lightning gives each layer the mode back that it had
    if names and not any(weight.requires_grad for weight in weights.values()):
        raise UserError(f"init.freeze=[{','.join(names)}]: nothing is left to train. Leave a layer out.")


def _read(weights: str) -> dict[str, Tensor]:
    check_weights(weights)
    if weights.endswith(".safetensors"):
        need("safetensors", "timm", f"init.weights={weights}: this file")
    content = unpickle(Path(weights), f"init.weights={weights}: it")
    state = content if isinstance(content, dict) else {}
    state = next((state[key] for key in ("state_dict", "model", "model_state_dict") if key in state), state)
    tensors = state.items() if isinstance(state, dict) else ()
    if found := {name: value for name, value in tensors if isinstance(name, str) and isinstance(value, Tensor)}:
        return found
    raise UserError(f"init.weights={weights}: it holds no weights by name, as a state_dict has them.")


def _check_names(key: str, names: list[str], network: nn.Module, weights: list[str]) -> None:
    known = [*weights, *(name for name, _ in network.named_modules() if name)]
    for name in set(names) - set(known):
        parts = ", ".join(name for name, _ in network.named_children())
        raise UserError(f"init.{key}=[{name}]: no layer has that name.{nearest(name, known)} There are: {parts}.")


def _is_within(name: str, layers: list[str]) -> bool:
    return any(f"{name}.".startswith(f"{layer}.") for layer in layers)


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "one number"
