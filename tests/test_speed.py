"""The fast path computes the same thing, and does each thing as often as it must: counts, no times."""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.v2 import functional as reference

from benchmarks.project import flops_per_image, matmul_rate
from src.config.cli import importing
from src.data.images import ImageSet, Source, Splits
from src.data.readers import read_mnist_sample
from src.data.splitting import split
from src.model.alexnet import AlexNet
from tests.conftest import ROOT, SHORT, Outcome, only_run, write_idx
from tests.test_batches import bytes_, module, seeded
from tests.test_model import build, flipped_cropped_turned, trainer

Door = Callable[..., Outcome]
WAITS = {"aten._local_scalar_dense", "aten.nonzero", "aten._unique2", "aten.equal", "aten.masked_select"}


class Calls(TorchDispatchMode):
    """Counts the operations that torch is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count[str(func).rpartition(".")[0]] += 1
        return func(*args, **(kwargs or {}))

    @property
    def waits(self) -> int:
        return sum(count for name, count in self.count.items() if name in WAITS)


class TestSameAnswer:
    @pytest.mark.parametrize("variant", [{}, {"widths": [96, 256, 384, 384, 256], "batch_norm": True, "padding": 0}])
    @pytest.mark.parametrize(("precision", "loss", "angle"), [("float32", 1e-5, 5e-3), ("bfloat16", 0.02, 0.15)])
    def test_one_step_against_float32_nchw(
        self, variant: dict[str, Any], precision: str, loss: float, angle: float
    ) -> None:
        torch.manual_seed(0)
        slow = AlexNet(1, 10, hidden=32, dropout=0.0, **variant)
        fast = AlexNet(1, 10, hidden=32, dropout=0.0, **variant)
        fast.load_state_dict(slow.state_dict())
        fast = fast.to(memory_format=torch.channels_last)
        test = read_mnist_sample().test
        assert test is not None
        digits = test[torch.arange(0, 500, 20)]
        grain = bytes_(len(digits), side=28)[:, :1] // 4  # on pixels that are all 0, a pool takes any
        images, labels = digits.images // 4 * 3 + grain, digits.labels
        data = module(mean=[0.5], std=[0.3])

        plain = reference.resize(images.float() / 255, [227, 227], antialias=True)
        expected = cross_entropy(slow(reference.normalize(plain, [0.5], [0.3])), labels)
        expected.backward()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            found = cross_entropy(fast(data.prepare(images)), labels)
        found.backward()

        assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=loss)
        for (name, one), other in zip(slow.named_parameters(), fast.parameters(), strict=True):
            assert one.grad is not None
            assert other.grad is not None
            if one.grad.norm() > 1e-4:  # the bias before a batch norm has no gradient but rounding
                # a pool that rounding ties goes another way, so bfloat16's 0.4 % a number grow on the way back
                away = 1 - torch.cosine_similarity(one.grad.flatten(), other.grad.flatten(), dim=0)
                assert float(away) < angle, name
                assert float(other.grad.norm() / one.grad.norm()) == pytest.approx(1, abs=angle), name

    def test_images_on_the_device_give_the_same_batches(self) -> None:
        held, placed = module(), module()
        placed._placed = placed.splits.to(torch.device("cpu"))
        for one, other in zip(held.train_dataloader(), placed.train_dataloader(), strict=True):
            assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
    def test_images_lie_on_the_gpu_and_nothing_is_transferred_in_a_step(self) -> None:
        classifier, data = build()
        run = trainer(epochs=1)
        run.fit(classifier, data)
        images, labels = next(iter(data.train_dataloader()))
        assert images.is_cuda
        assert labels.is_cuda


class TestCounts:
    def test_no_step_waits_for_the_device(self) -> None:
        def waits(batches: int) -> int:
            classifier, data = build(augment=True, dropout=0.5)
            classifier._optimizer = partial(torch.optim.AdamW, fused=True)
            run = trainer(epochs=1, limit_train_batches=batches, limit_val_batches=1)
            with Calls() as calls:
                run.fit(classifier, data)
            assert calls.count["aten.convolution"] >= 5 * batches
            return calls.waits

        assert waits(3) == waits(1)

    def test_callbacks_and_loggers_wait_only_when_they_log(self, door: Door, in_tmp: Path, rng: Any) -> None:
        write_idx(in_tmp / "digits/MNIST/raw", rng, train=100)

        def waits(batches: int) -> int:
            with Calls() as calls:
                outcome = door(
                    *(
                        "train",
                        "dataset=mnist",
                        "dataset.verify=false",
                        "data_dir=digits",
                        f"hydra.run.dir=run{batches}",
                    ),
                    *(f"trainer.limit_train_batches={batches}", "trainer.log_every_n_steps=3", *SHORT),
                )
            assert outcome.code == 0, outcome.err
            return calls.waits

        looks = 9 // 3 - 3 // 3  # at the losses, each time that something is logged
        assert waits(9) == waits(3) + looks

    def test_preparing_a_batch_takes_as_many_calls_for_many_images_as_for_few(self) -> None:
        def operations(count: int) -> Counter[str]:
            data = module(batch_size=count, augmentation=flipped_cropped_turned)
            with Calls() as calls:
                images, labels = next(iter(data.train_dataloader()))
                data.prepare(data.augmentation(images, labels, seeded())[0])
            assert len(images) == count
            return calls.count

        assert operations(20) == operations(2)
        assert sum(operations(20).values()) < 80

    def test_no_pixel_is_copied_when_sets_are_cut(self) -> None:
        whole = ImageSet(bytes_(100), torch.arange(100) % 5)
        splits = split(Source(whole, list("abcde"), "full"), 0.2, seed=1)
        parts = (splits.train, splits.valid, splits.test)
        assert {key for part in parts for key in Splits(part, part, part, [], "").stores} == set(splits.stores)
        assert splits.nbytes == whole.nbytes
        moved = splits.to(torch.device("meta"))
        assert len({id(part.store) for part in (moved.train, moved.valid, moved.test)}) == 1

    @pytest.mark.skipif(sys.platform != "linux", reason="asks Linux whose a page of memory is")
    def test_loader_workers_hold_no_copy(self) -> None:
        part = ImageSet(torch.ones(200_000, 1, 32, 32, dtype=torch.uint8), torch.zeros(200_000, dtype=torch.int64))
        data = module(splits=Splits(part, part, part, list("abcd"), "full"), num_workers=2)
        batches: Any = iter(data.train_dataloader())
        for _ in range(50):
            next(batches)
        for worker in batches._workers:
            pages = Path(f"/proc/{worker.pid}/smaps_rollup").read_text()
            own = sum(int(size) for size in re.findall(r"^Private_\w+:\s+(\d+) kB", pages, re.MULTILINE)) * 1024
            assert own < part.nbytes / 2

    @pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is Linux's")
    def test_memory_of_one_step_serves_the_next(self) -> None:
        code = """
import resource, sys, torch
from src.config.process import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for step in range(28):
    if step == 16:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 * 2**20)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 12)
"""

        def faults(word: str) -> int:
            return int(subprocess.check_output([sys.executable, "-c", code, word], cwd=ROOT, text=True))

        assert faults("keep") < 1000 < 10_000 < faults("default")  # 64 MiB are 16,384 pages


class TestLimit:
    def test_operations_of_an_image_are_those_of_the_papers_layers(self) -> None:
        image = torch.zeros(1, 1, 227, 227)
        network = AlexNet(1, 10)
        # output pixels x filter x channels in x out, a multiplication and an addition each
        forward = 2 * (
            56 * 56 * 11 * 11 * 64
            + 27 * 27 * 5 * 5 * 64 * 192
            + 13 * 13 * 3 * 3 * (192 * 384 + 384 * 256 + 256 * 256)
            + 9216 * 4096
            + 4096 * 4096
            + 4096 * 10
        )
        assert flops_per_image(network, image, training=False) == forward
        first = 2 * 56 * 56 * 11 * 11 * 64  # needs no gradient of its input
        assert flops_per_image(network, image, training=True) == 3 * forward - first

    def test_counting_leaves_the_network_alone(self) -> None:
        network = AlexNet(3, 10, widths=[4] * 5, hidden=8, batch_norm=True)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        assert flops_per_image(network, torch.zeros(1, 3, 227, 227), training=True)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert all(weight.grad is None for weight in network.parameters())

    def test_network_with_tied_weights_is_counted_once_used_twice(self) -> None:
        class Tied(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.one = self.other = nn.Linear(4, 4, bias=False)

            def forward(self, images: torch.Tensor) -> torch.Tensor:
                return self.other(self.one(images.flatten(1)))

        assert flops_per_image(Tied(), torch.zeros(1, 1, 2, 2), training=False) == 2 * 2 * 16

    def test_rate_of_products_counts_a_multiplication_and_an_addition_by_the_best_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        times = iter([9.0, 2.0, 1.0, 0.5, 4.0])
        monkeypatch.setattr("benchmarks.project.timeit", lambda *_, **__: next(times))
        assert matmul_rate(torch.device("cpu"), "32-true", patience=1.0) == 2 * 2048**3 / 0.5


def test_profile_writes_a_trace_and_a_table_of_costs(door: Door, in_tmp: Path, rng: Any) -> None:
    write_idx(in_tmp / "data/MNIST/raw", rng, train=100)
    outcome = door("train", "dataset=mnist", "dataset.verify=false", "trainer=profile", *SHORT)
    assert outcome.code == 0, outcome.err
    folder = only_run(in_tmp) / "profile"
    (trace,) = folder.glob("fit-costs-*training_step*.json")
    events = json.loads(trace.read_text())["traceEvents"]
    names = Counter(event["name"] for event in events if event.get("ph") == "X")
    assert names["aten::convolution_backward"] == 5 * 3, "three steps of five convolutions"
    assert "aten::convolution_backward" in (folder / "fit-costs.txt").read_text()
    assert "/profile, *.json opens in" in outcome.out


def test_front_doors_collect_no_garbage_while_they_import() -> None:
    code = """
import gc, sys
passes = []
gc.callbacks.append(lambda phase, info: passes.append("torch" in sys.modules and phase == "start"))
from src.config.cli import importing
with importing():
    import lightning
print(sum(passes), gc.isenabled())
"""
    found = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert found.split() == ["0", "True"]


def test_later_jobs_of_a_sweep_keep_nothing_of_the_job_before() -> None:
    frozen = gc.get_freeze_count()
    with importing():
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


def test_bar_draws_no_more_than_five_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    from src.training.callbacks.log_metrics import LogMetrics
    from src.training.callbacks.progress import ProgressBar

    bar, drawn = ProgressBar(LogMetrics()), []
    monkeypatch.setattr(L.pytorch.callbacks.RichProgressBar, "on_train_batch_end", lambda *_: drawn.append(1))
    clock = iter(x / 100 for x in range(100, 300))
    monkeypatch.setattr("src.training.callbacks.progress.time.perf_counter", lambda: next(clock))
    run = type("Run", (), {"is_last_batch": False})()
    module = type("Module", (), {"means": lambda self: torch.zeros(2)})()
    for step in range(200):
        bar.on_train_batch_end(run, module, None, None, step)
    assert len(drawn) == 10
