"""The network's layers, the schedules, and one network that learns."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.utils.flop_counter import FlopCounterMode

from src.config.check import check, plain
from src.config.compose import compose, declared
from src.config.schema import TrainConfig
from src.data.augmentation import batch_affine, batch_crop, batch_flip
from src.data.batches import Batch
from src.data.datamodule import DataModule
from src.data.images import ImageSet, Splits
from src.model import schedules
from src.model.alexnet import AlexNet
from src.model.build import build_classifier
from src.model.classifier import Classifier
from src.model.hardware import Hardware, pick_hardware
from src.model.losses import CrossEntropy, focal
from src.model.metrics import LowestRecall
from src.model.network import build_network
from src.model.parameters import Parameters, grouped, trainable
from src.model.predictor import Predictor
from src.model.saved import About, ImageCounts
from src.training.callbacks.log_metrics import LogMetrics
from src.training.callbacks.recorder import RecordAnswers
from tests.test_batches import module

ABOUT = About(
    config={},
    classes=["a", "b"],
    channels=1,
    size=[12, 12],
    images=ImageCounts(train=24, val=24, test=24, sha256=""),
    precision="32-true",
    dataset="made",
    source="full",
    test_set="made",
)
PART = ImageSet(torch.zeros(4, 1, 12, 12, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
SPLITS = Splits(PART, PART, PART, ["a", "b"], "full")
ALEXNET: dict[str, Any] = {}
ALEXNET_BN: dict[str, Any] = {"widths": [96, 256, 384, 384, 256], "batch_norm": True, "padding": 0}


def configure(overrides: list[str]) -> TrainConfig:
    fixed = ["++dataset.image_size=227", "++dataset.mean=[0.5]", "++dataset.std=[0.5]"]
    return check(compose("train", [*fixed, *overrides]).values, TrainConfig)


def parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize(
    ("options", "channels", "convolutions", "maps"),
    [
        (ALEXNET, 1, [7_808, 307_392, 663_936, 884_992, 590_080], [56, 27, 13, 13, 13]),
        (ALEXNET, 3, [23_296, 307_392, 663_936, 884_992, 590_080], [56, 27, 13, 13, 13]),
        (ALEXNET_BN, 1, [11_712, 614_656, 885_120, 1_327_488, 884_992], [55, 27, 13, 13, 13]),
        (ALEXNET_BN, 3, [34_944, 614_656, 885_120, 1_327_488, 884_992], [55, 27, 13, 13, 13]),
    ],
)
def test_layers_have_the_shapes_of_the_paper(
    options: dict[str, Any], channels: int, convolutions: list[int], maps: list[int]
) -> None:
    network = AlexNet(channels, 10, **options).eval()
    shapes: list[torch.Size] = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.MaxPool2d):
            layer.register_forward_hook(lambda layer, inputs, output: shapes.append(output.shape[1:]))
    widths = options.get("widths", [64, 192, 384, 256, 256])
    with torch.inference_mode():
        images = torch.zeros(2, channels, 227, 227)
        assert network.features(images).shape == (2, 256, 6, 6)
        shapes.clear()
        assert network(images).shape == (2, 10)
    sides = iter([maps[0], 27, maps[1], 13, *maps[2:], 6])
    kept = iter([widths[0], widths[0], widths[1], widths[1], *widths[2:], widths[4]])
    assert [tuple(shape) for shape in shapes[:8]] == [
        (width, side, side) for width, side in zip(kept, sides, strict=True)
    ]
    assert [tuple(shape) for shape in shapes[8:]] == [(4096,), (4096,), (10,)]
    found = [parameters(layer) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert found == convolutions
    assert parameters(network.classifier) == 37_752_832 + 16_781_312 + 40_970
    norms = 2 * sum(widths) if options else 0
    assert parameters(network) == sum(convolutions) + norms + 54_575_114


@pytest.mark.parametrize(("options", "channels", "gigaflops"), [(ALEXNET, 1, 3.94), (ALEXNET_BN, 3, 6.58)])
def test_training_on_one_image_costs_the_arithmetic_of_the_design(
    options: dict[str, Any], channels: int, gigaflops: float
) -> None:
    network = AlexNet(channels, 10, **options)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(2, channels, 227, 227)).sum().backward()
    assert counter.get_total_flops() / 2e9 == pytest.approx(gigaflops, rel=0.01)


@pytest.mark.parametrize(("padding", "smallest"), [(0, 67), (2, 63)])
def test_images_are_taken_down_to_the_size_that_leaves_a_map_and_smaller_ones_refused(
    padding: int, smallest: int
) -> None:
    network = AlexNet(1, 10, widths=[1] * 5, padding=padding, hidden=1)
    assert network.features(torch.zeros(1, 1, smallest, smallest)).shape[-2:] == (1, 1)
    for size in (smallest, 112, 227, 256):
        assert network(torch.zeros(2, 1, size, size)).shape == (2, 10)
    with pytest.raises(ValueError, match=f"image_size={smallest - 1}: .*images of {smallest} pixels a side and more"):
        network(torch.zeros(1, 1, smallest - 1, smallest - 1))


@pytest.mark.parametrize("size", [112, 227, 256])
def test_a_map_of_another_size_is_pooled_as_torchvisions_alexnet_pools_it(size: int) -> None:
    theirs = torchvision.models.alexnet(num_classes=10).eval()
    ours = AlexNet(3, 10).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs(images), atol=1e-5)


def rates(schedule: Any, steps: int = 100, **options: Any) -> list[float]:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = schedule(optimizer, steps, **options)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_constant_rate_stays() -> None:
    assert set(rates(schedules.constant)) == {1.0}


@pytest.mark.parametrize("schedule", [schedules.cosine, schedules.one_cycle])
def test_rate_rises_to_the_optimizers_own_and_falls_to_the_final_one(schedule: Any) -> None:
    found = rates(schedule, warmup=0.2, final=0.1)
    assert found[:20] == sorted(found[:20])
    assert found[20] == max(found) == 1.0
    assert found[20:] == sorted(found[20:], reverse=True)
    assert found[-1] == pytest.approx(0.1)


def test_step_falls_at_its_milestones() -> None:
    found = rates(schedules.step, milestones=[0.5, 0.8], gamma=0.1)
    assert (found[49], found[50], found[79], found[80]) == (1.0, 0.1, 0.1, pytest.approx(0.01))


def flipped_cropped_turned(images: Tensor, labels: Tensor, generator: Generator) -> Batch:
    images, labels = batch_crop(*batch_flip(images, labels, generator), generator, 2)
    return batch_affine(images, labels, generator, 10.0, 0.1, 0.1)


def adam(weights: Parameters) -> torch.optim.Optimizer:
    return torch.optim.Adam([weight for _, weight in weights], lr=2e-3)


def build(seed: int = 1, augment: bool = False, dropout: float = 0.0) -> tuple[Classifier, DataModule]:
    labels = torch.arange(24) % 3
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (24, 1, 12, 12), generator=generator, dtype=torch.uint8)
    part = ImageSet(pixels, labels)
    data = module(
        splits=Splits(part, part, part, list("abc"), "full"),
        batch_size=8,
        seed=seed,
        mean=[0.5],
        std=[0.3],
        **({"augmentation": flipped_cropped_turned} if augment else {}),
    )
    torch.manual_seed(0)
    network = AlexNet(1, 3, widths=[8] * 5, hidden=32, dropout=dropout)
    about = ABOUT.model_copy(update={"classes": list("abc")})
    classifier = Classifier(network, cross_entropy, {}, adam, schedules.constant, about, seed=seed)
    return classifier, data


def trainer(epochs: int, **options: Any) -> L.Trainer:
    never: Any = SimpleNamespace(best_step=None)
    return L.Trainer(
        callbacks=[RecordAnswers(Path(), never), LogMetrics()],
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )


def test_it_learns_random_labels_by_heart() -> None:
    classifier, data = build()
    run = trainer(epochs=40)
    run.fit(classifier, data)
    assert float(run.callback_metrics["train/acc"]) == 1.0
    assert run.test(classifier, data, verbose=False)[0]["test/acc"] == 1.0


def weights_after(seed: int) -> torch.Tensor:
    classifier, data = build(seed, augment=True, dropout=0.5)
    torch.manual_seed(torch.seed() % 1000)  # whatever was drawn before must not matter
    trainer(epochs=2).fit(classifier, data)
    return torch.cat([weight.detach().flatten() for weight in classifier.network.parameters()])


def test_order_augmentation_and_dropout_are_functions_of_the_seed() -> None:
    assert torch.equal(weights_after(1), weights_after(1))
    assert not torch.equal(weights_after(1), weights_after(2))


def test_metrics_are_those_of_the_whole_epoch() -> None:
    classifier, data = build()
    found = trainer(epochs=1).test(classifier, data, verbose=False)[0]
    classifier.eval()
    part = data.splits.test
    with torch.inference_mode():
        logits = classifier(data.prepare(part.images))
    assert found["test/acc"] == pytest.approx(float((logits.argmax(1) == part.labels).float().mean()))
    assert found["test/loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, part.labels)), rel=1e-5)


def test_only_the_training_loss_is_smoothed() -> None:
    classifier, data = build()
    classifier.loss = CrossEntropy([8, 8, 8], label_smoothing=0.3)
    batch = data.prepare(data.splits.train.images[:8]), data.splits.train.labels[:8]
    classifier.eval()
    with torch.inference_mode():
        logits = classifier(batch[0])
        smooth = nn.functional.cross_entropy(logits, batch[1], label_smoothing=0.3)
        plain = nn.functional.cross_entropy(logits, batch[1])
    classifier.log = lambda *_, **__: None  # type: ignore[method-assign]
    assert torch.allclose(classifier._step(batch, "train")["loss"], smooth)
    assert torch.allclose(classifier._step(batch, "val")["loss"], plain)


@pytest.mark.parametrize(("name", "fused"), [("adamw", True), ("adam", True), ("sgd", True), ("rmsprop", False)])
def test_fused_implementation_is_taken_where_torch_has_one(name: str, fused: bool) -> None:
    config = configure([f"optimizer={name}", "++model.widths=[1,1,1,1,1]"])
    classifier = build_classifier(config, Hardware("cpu", "32-true"), ABOUT, SPLITS)
    optimizer = classifier._optimizer(trainable(classifier))
    assert bool(optimizer.defaults.get("fused")) == fused
    assert optimizer.param_groups[0]["lr"] == config.optimizer.lr


@pytest.mark.parametrize("name", ["StepLR", "ExponentialLR", "CosineAnnealingLR", "OneCycleLR"])
def test_a_schedule_of_torchs_is_taken_as_it_is(name: str) -> None:
    options = {"StepLR": "step_size=2", "ExponentialLR": "gamma=0.5", "CosineAnnealingLR": "T_max=4"}
    more = f"++scheduler.{options.get(name, 'max_lr=0.1')}"
    words = ["optimizer=sgd", f"++scheduler._target_=torch.optim.lr_scheduler.{name}", more, "scheduler=constant"]
    config = configure([*words, "++model.widths=[1,1,1,1,1]"])
    classifier = build_classifier(config, Hardware("cpu", "32-true"), ABOUT, SPLITS)
    optimizer = classifier._optimizer(trainable(classifier))
    schedule = classifier._scheduler(optimizer, 10)
    assert type(schedule).__name__ == name
    rates = []
    for _ in range(4):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert len(set(rates)) > 1, "it moves"


def test_loss_is_the_mean_over_images_also_where_the_last_batch_is_smaller() -> None:
    classifier, data = build()
    data.config = data.config.model_copy(update={"batch_size": 20})  # of 24
    found = trainer(epochs=1).test(classifier, data, verbose=False)[0]
    classifier.eval()
    part = data.splits.test
    with torch.inference_mode():
        losses = cross_entropy(classifier(data.prepare(part.images)), part.labels, reduction="none")
    assert found["test/loss"] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert abs(float((losses[:20].mean() + losses[20:].mean()) / 2 - losses.mean())) > 1e-4 * found["test/loss"]


def test_warm_up_rises_in_a_line_from_nothing_or_from_the_initial_rate() -> None:
    line = [(at + 1) / 21 for at in range(20)]
    assert rates(schedules.cosine, warmup=0.2)[:20] == pytest.approx(line)
    assert rates(schedules.one_cycle, warmup=0.2, initial=0.1)[:20] == pytest.approx([0.1 + 0.9 * at for at in line])


def test_the_shortest_runs_begin_with_small_steps() -> None:
    """One epoch of the packaged digits in 32 steps: Adam's first ones, as large as the rate, would kill ReLUs."""
    assert rates(schedules.cosine, steps=32, **configure([]).scheduler.arguments())[0] < 0.15


def test_each_process_drops_out_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for rank in (0, 1):
        monkeypatch.setattr(Classifier, "global_rank", rank)
        classifier, data = build(dropout=0.5)
        trainer(epochs=1, limit_train_batches=1, limit_val_batches=0).fit(classifier, data)
        found.append(torch.cat([weight.detach().flatten() for weight in classifier.network.parameters()]))
    assert not torch.equal(*found)


@pytest.mark.parametrize(
    ("gpu", "device", "bfloat16", "accelerator", "precision"),
    [
        ("cuda", "auto", True, "cuda", "16-mixed"),
        ("cuda", "gpu", False, "cuda", "16-mixed"),
        ("cuda", "cpu", True, "cpu", "bf16-mixed"),
        ("mps", "auto", True, "mps", "32-true"),
        (None, "auto", True, "cpu", "bf16-mixed"),
        (None, "auto", False, "cpu", "32-true"),
    ],
)
def test_precision_that_auto_comes_to_is_the_fastest_of_the_device(
    gpu: str | None, device: str, bfloat16: bool, accelerator: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu == "cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: gpu == "mps")
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: bfloat16, raising=False)
    found = pick_hardware(device, "auto")
    assert (found.accelerator, found.precision, found.note) == (accelerator, precision, None)
    assert pick_hardware(device, "32-true").precision == "32-true", "what is asked for counts"


def test_convolutions_begin_with_the_variance_of_he_and_both_dropouts_are_those_asked_for() -> None:
    torch.manual_seed(0)
    network = AlexNet(3, 10, hidden=1, dropout=0.3)
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            inputs = layer.in_channels * layer.kernel_size[0] ** 2
            assert float(layer.weight.detach().std()) == pytest.approx((2 / inputs) ** 0.5, rel=0.03)
            assert not layer.bias.any()  # type: ignore[union-attr]
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.3, 0.3]


@pytest.mark.parametrize(
    ("precision", "clip", "fused"),
    [("16-mixed", 1.0, False), ("16-mixed", None, True), ("bf16-mixed", 1.0, False), ("32-true", 1.0, True)],
)
def test_a_fused_optimizer_gives_way_where_gradients_of_mixed_precision_are_clipped(
    precision: str, clip: float | None, fused: bool
) -> None:
    config = configure([f"++trainer.gradient_clip_val={clip or 'null'}", "++model.widths=[1,1,1,1,1]"])
    classifier = build_classifier(config, Hardware("cuda", precision), ABOUT, SPLITS)
    assert bool(classifier._optimizer(trainable(classifier)).defaults["fused"]) is fused


@pytest.mark.parametrize(("monitor", "mode"), [("val/loss", "min"), ("val/acc", "max")])
def test_a_plateau_is_one_of_what_is_monitored(monitor: str, mode: str) -> None:
    config = configure(["scheduler=reducelronplateau", f"monitor={monitor}", "++model.widths=[1,1,1,1,1]"])
    classifier = build_classifier(config, Hardware("cpu", "32-true"), ABOUT, SPLITS)
    schedule: Any = classifier._scheduler(classifier._optimizer(trainable(classifier)), 10)
    assert schedule.mode == mode


def test_accuracy_is_that_of_all_images_however_few_a_class_has() -> None:
    classifier, _ = build()
    classifier.forward = lambda images: images  # type: ignore[method-assign]
    classifier.log = lambda *_, **__: None  # type: ignore[method-assign]
    logits = torch.eye(3)[[0, 0, 0, 0]]
    classifier._step((logits, torch.tensor([0, 0, 0, 1])), "test")
    assert float(classifier._metrics("test")["acc"].compute()) == 0.75


def test_the_gamma_of_the_focal_loss_is_that_of_its_paper() -> None:
    logits, labels = torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([1, 1])
    right = logits.softmax(1)[[0, 1], labels]
    assert float(focal(logits, labels)) == pytest.approx(float((-((1 - right) ** 2) * right.log()).mean()))


def test_the_lowest_recall_is_of_the_classes_that_were_there() -> None:
    metric = LowestRecall(4)
    metric.update(torch.tensor([0, 3, 1, 1]), torch.tensor([0, 0, 1, 1]))  # 3 was answered, 2 and 3 were never true
    assert float(metric.compute()) == 0.5


def test_each_step_of_each_epoch_has_a_seed_of_its_own_for_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds, (classifier, data) = list[int](), build()
    monkeypatch.setattr("src.model.classifier.torch.manual_seed", seeds.append)
    trainer(epochs=2, limit_val_batches=0).fit(classifier, data)
    assert len(set(seeds)) == len(seeds) == 2 * 3


def test_a_mixed_image_counts_as_the_class_that_it_has_most_of() -> None:
    classifier, _ = build()
    classifier.forward = lambda images: images  # type: ignore[method-assign]
    outputs = classifier._step((torch.eye(3)[[0, 1]], torch.tensor([[0.6, 0.4, 0.0], [0.2, 0.3, 0.5]])), "train")
    assert outputs["classes"].tolist() == [0, 2]
    assert float(classifier._metrics("train")["acc"].compute()) == 0.5


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.bfloat16), ("32-true", torch.float32)])
def test_half_precision_is_what_products_are_computed_in(precision: str, dtype: torch.dtype) -> None:
    with Hardware("cpu", precision).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_of_two_patterns_that_match_a_weight_the_first_counts() -> None:
    options = ["optimizer.groups=[{match: bias, lr: 0.5}, {match: classifier, lr: 0.25}]", "optimizer=sgd"]
    network = AlexNet(1, 2, widths=[1] * 5, hidden=1)
    first, second, others = grouped(trainable(network), configure(declared(options)).optimizer)
    assert [group["lr"] for group in (first, second)] == [0.5, 0.25]
    assert [len(group["params"]) for group in (first, second, others)] == [8, 3, 5]
    assert "lr" not in others


def test_a_checkpoint_says_height_before_width_and_a_predictor_reads_so(tmp_path: Path) -> None:
    part = ImageSet(torch.zeros(4, 1, 12, 20, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    config = configure(["++model.widths=[1,1,1,1,1]", "++model.hidden=4"])
    about = About.of(config, Splits(part, part, part, ["a", "b"], "full"), "32-true", "")
    assert about.size == [12, 20]
    predictor = Predictor(build_network(config.model, 1, 2), config, about, Hardware("cpu", "32-true"))
    Image.new("L", (400, 240)).save(tmp_path / "wide.png")
    assert predictor.read(tmp_path / "wide.png").pixels.shape == (1, 12, 20)


@pytest.mark.parametrize(("fit", "white"), [("crop", 12), ("pad", 4), ("stretch", 4), (None, 12)])
def test_a_predictor_fits_files_as_its_training_did_and_an_older_checkpoint_crops(
    tmp_path: Path, fit: str | None, white: int
) -> None:
    overrides = ["dataset=image_folder", "++dataset.channels=1", "++model.widths=[1,1,1,1,1]", "++model.hidden=4"]
    values = plain(configure([*overrides, f"++dataset.fit={fit or 'crop'}"]))
    if fit is None:
        del values["dataset"]["fit"]
    config = check(values, TrainConfig, frozenset())
    predictor = Predictor(build_network(config.model, 1, 2), config, ABOUT, Hardware("cpu", "32-true"))
    pixels = np.zeros((12, 36), np.uint8)
    pixels[:, 12:24] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    found = predictor.read(tmp_path / "wide.png").pixels
    assert int((found[0, 6] > 200).sum()) == white
    assert int((found[0, :, 6] > 200).sum()) == (4 if fit == "pad" else 12)
