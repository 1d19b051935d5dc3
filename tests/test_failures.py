"""What goes wrong on the way: said in words, exit code 1, and the last whole checkpoint still loads."""

from __future__ import annotations

import errno
import http.server
import multiprocessing
import os
import resource
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.datasets import MNIST

from src.config.compose import configure
from src.model.classifier import Classifier
from src.training.failures import explain
from tests.conftest import KEPT, ROOT, SHORT, Outcome, md5_of, results_of, write_folder, write_idx
from tests.processes import Command
from tests.test_resume import assert_same, at_call, content

Door = Callable[..., Outcome]
DOORS = ["train", "eval", "predict", "export", "report", "tune", "demo"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash to start a pipe")
@pytest.mark.parametrize(
    ("door", "to"),
    [
        *((door, "| head -c 1 >&2") for door in DOORS),
        *((door, ">&-") for door in ("train", "tune", "report")),  # the others begin as train does
        *(("train", to) for to in ("> /dev/full", "2>&- >&-")),
    ],
)
def test_who_does_not_listen_gets_no_traceback(door: str, to: str) -> None:
    if to == "> /dev/full" and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    line = f"{shlex.join([sys.executable, '-m', f'src.{door}', '--help'])} {to}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert len(done.stderr) <= 1


@pytest.mark.skipif(os.name != "posix", reason="a pipe of POSIX")
def test_a_run_goes_on_when_its_reader_has_left(
    door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="ascii", buffering=1) as pipe:  # noqa: PTH123 - of a number
        monkeypatch.setattr("sys.stdout", pipe)
        assert door("train", *options, "trainer.max_epochs=1").code == 0
    assert results_of(in_tmp / "r")["test"]


@pytest.fixture
def options(images_folder: Path) -> list[str]:
    more = ["seed=3", "trainer.max_epochs=3", "trainer.log_every_n_steps=1", "callbacks.checkpoint_steps=2", KEPT]
    return ["dataset=image_folder", f"data_dir={images_folder}", *SHORT, *more, "hydra.run.dir=r"]


def failed(outcome: Outcome) -> str:
    assert outcome.code == 1
    errors = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, outcome.err
    assert "Traceback" not in outcome.err
    return errors[0]


class TestNotANumber:
    def spoil(self, monkeypatch: pytest.MonkeyPatch, *calls: int) -> None:
        """The logits of these forward passes, counted from 1, are NaN."""
        original, count = Classifier.forward, iter(range(1, 1_000_000))

        def forward(self: Any, images: torch.Tensor) -> torch.Tensor:
            logits = original(self, images)
            return logits * float("nan") if self.training and next(count) in calls else logits

        monkeypatch.setattr(Classifier, "forward", forward)

    def test_the_run_stops_with_step_and_the_last_good_checkpoint(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.spoil(monkeypatch, 9)
        words = failed(door("train", *options, "optimizer.lr=0.125", "scheduler=constant"))
        assert "the loss is NaN or infinite in step 9." in words
        assert f"The last good checkpoint is {in_tmp}/r/checkpoints/last.ckpt." in words
        assert "a smaller optimizer.lr" in words
        assert content(in_tmp / "r")["position"]["steps"] == 8
        assert all(value.isfinite().all() for value in content(in_tmp / "r")["state_dict"].values())

    def test_a_batch_of_an_accumulated_step_is_named_by_that_step(
        self, door: Door, options: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.spoil(monkeypatch, 3)  # the first of the two batches of step 2
        words = failed(door("train", *options, "trainer.accumulate_grad_batches=2", "scheduler=step"))
        assert "the loss is NaN or infinite in step 2." in words

    def test_a_rate_that_is_too_high_ends_so_too(self, door: Door, options: list[str]) -> None:
        words = failed(door("train", *options, "optimizer=sgd", "optimizer.lr=1e20", "scheduler=constant"))
        assert "the loss is NaN or infinite in step " in words

    def test_no_checkpoint_is_written_after_it_however_seldom_the_loss_is_read(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.spoil(monkeypatch, 3)
        words = failed(door("train", *options, "trainer.log_every_n_steps=1000"))
        assert "in step 3" in words
        assert content(in_tmp / "r")["position"]["steps"] == 2


LIMITED = """
import resource
from pathlib import Path
from src.data.datamodule import DataModule
from src.train import main

def transfer(*arguments, original=DataModule.on_after_batch_transfer):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
    return original(*arguments)

DataModule.on_after_batch_transfer = transfer
main()
"""


def ended(command: Command) -> Outcome:
    out, err = command.communicate()
    return Outcome(command.wait(), out, err)


def make_read_only(run: Path) -> None:
    """As soon as there are two checkpoints."""
    while not (run / "checkpoints/last.previous.ckpt").exists():
        time.sleep(0.05)
    subprocess.run(["mount", "--bind", run, run], check=True)
    while subprocess.run(["mount", "-o", "remount,bind,ro", run], capture_output=True).returncode:
        time.sleep(0.01)  # a file was open there for writing


class TestMachine:
    def test_out_of_memory(self, options: list[str], in_tmp: Path) -> None:
        many, program = write_folder(in_tmp / "many", classes=2, count=150), in_tmp / "limited.py"
        program.write_text(LIMITED)
        words = failed(
            ended(Command(program, *options, f"data_dir={many}", "batch_size=400", "dataset.image_size=227"))
        )
        assert "out of this machine's memory with batch_size=400. Take batch_size=200, and " in words
        assert "trainer.accumulate_grad_batches=2 for the same gradients" in words

    def test_out_of_gpu_memory(self, door: Door, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

        at_call(monkeypatch, "training_step", 2, fail)
        words = failed(door("train", *options, "trainer.accumulate_grad_batches=3"))
        assert "out of the GPU's memory with batch_size=8. Take batch_size=4, and " in words
        assert "trainer.accumulate_grad_batches=6" in words

    def test_disk_full(self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fill() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))

        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        at_call(monkeypatch, "training_step", 7, fill)
        try:
            words = failed(door("train", *options))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert f"{in_tmp}/r can't be written to: " in words
        assert "The last whole checkpoint is " in words
        assert content(in_tmp / "r")["position"]["steps"] == 6
        assert not list((in_tmp / "r").rglob("*.part"))
        monkeypatch.undo()
        monkeypatch.chdir(in_tmp)
        monkeypatch.setattr("sys.argv", ["train"])
        assert door("train", "resume=r").code == 0, "with room again, it goes on"

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
    @pytest.mark.parametrize("fault", ["No space left on device", "Read-only file system"])
    def test_real_file_system(self, options: list[str], in_tmp: Path, fault: str) -> None:
        small = in_tmp / "small"
        small.mkdir()
        size = "size=250k" if "space" in fault else "size=50m"
        if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", small], capture_output=True).returncode:
            pytest.skip("this machine lets nobody mount a file system")
        command = [*options[:-1], f"hydra.run.dir={small}/r", "trainer.max_epochs=100000"]
        try:
            if "Read-only" in fault:
                threading.Thread(target=make_read_only, args=(small / "r",), daemon=True).start()
            words = failed(ended(Command("src.train", *command)))
            assert f"{small}/r can't be written to: {fault}." in words
            assert content(small / "r")["position"]["steps"] > 0
        finally:
            subprocess.run(["umount", "--recursive", small], check=True)

    def test_folder_removed(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        at_call(monkeypatch, "training_step", 5, lambda: shutil.rmtree(in_tmp / "r"))
        words = failed(door("train", *options))
        assert f"{in_tmp}/r can't be written to: No such file or directory." in words
        assert "No checkpoint was written yet." in words

    @pytest.mark.parametrize("method", ["__init__", "training_step"])
    def test_an_error_of_a_file_elsewhere_keeps_its_traceback(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        """As of weights that a network of the user's own reads."""
        at_call(monkeypatch, method, 1, lambda: (in_tmp / "weights.bin").read_bytes())
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HYDRA_FULL_ERROR", "1")
            with pytest.raises(FileNotFoundError, match=r"weights\.bin"):
                door("train", *options)

    def test_only_a_disk_without_room_is_told_of_files_elsewhere(self, in_tmp: Path) -> None:
        config: Any = None
        run, other = in_tmp / "r", in_tmp / "other"
        for number, sentence in ((errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system")):
            assert explain(OSError(number, ""), config, run) == f"{run} can't be written to: {sentence}."
            assert explain(OSError(number, "", str(other)), config, run) == f"{other} can't be written to: {sentence}."
        for number in (errno.EACCES, errno.ENOENT, errno.EIO):
            assert explain(OSError(number, "", str(other)), config, run) is None
            assert explain(OSError(number, ""), config, run) is None
            assert str(run) in str(explain(OSError(number, "", str(run / "metrics.csv")), config, run))

    def test_another_process_of_the_run_dies(
        self, door: Door, options: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail() -> None:
            raise RuntimeError("[/build/gloo/pair.cc:545] Read error [127.0.0.1]:45716: Connection reset by peer")

        at_call(monkeypatch, "training_step", 4, fail)
        words = failed(door("train", *options))
        assert "another process of this run died: Read error" in words
        assert "goes on from it" in words

    def test_a_loader_that_hangs_is_told_after_a_while(self, in_tmp: Path) -> None:
        config: Any = None
        words = str(explain(RuntimeError("DataLoader timed out after 50 seconds"), config, in_tmp))
        assert words.endswith("hangs: DataLoader timed out after 50 seconds. num_workers=0 needs none.")

    def test_a_bug_in_a_process_that_fetches_stays_one(self, in_tmp: Path) -> None:
        config = configure([])
        bug = TypeError("Caught TypeError in DataLoader worker process 0.\nOriginal Traceback: ...")
        assert explain(bug, config, in_tmp) is None

    def test_loader_worker_dies(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert door("train", *options[:-1], "hydra.run.dir=whole").code == 0

        def kill() -> None:
            multiprocessing.active_children()[0].kill()

        with monkeypatch.context() as patch:
            at_call(patch, "training_step", 3, kill)
            words = failed(door("train", *options, "num_workers=2"))
        assert "a process that fetches batches died: " in words
        assert "num_workers=0 needs none" in words
        assert door("train", "resume=r", "num_workers=0").code == 0
        assert_same(in_tmp / "r", in_tmp / "whole")


class Quiet(http.server.SimpleHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""


@pytest.fixture
def mirror(in_tmp: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """The address of a server, the folder that it serves, and what it was asked for."""
    served = in_tmp / "served"
    served.mkdir()
    Quiet.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", served, Quiet.asked
        server.shutdown()


def test_two_runs_started_at_once_share_a_download_and_nothing_else(
    mirror: tuple[str, Path, list[str]], in_tmp: Path, rng: np.random.Generator
) -> None:
    address, served, asked = mirror
    write_idx(served, rng, train=60, gz=True)
    packed = [(name, md5_of(served / name)) for name, _ in MNIST.resources]
    program = in_tmp / "served.py"
    program.write_text(
        "from torchvision.datasets import MNIST\n"
        "from src.train import main\n"
        f"MNIST.mirrors, MNIST.resources = [{address!r}], {packed!r}\n"
        "main()\n"
    )
    command = ["dataset=mnist", "dataset.verify=false", "dataset.source=full", *SHORT]
    for run in [Command(program, *command) for _ in range(2)]:
        assert run.wait() == 0, run.stderr
    # torchvision asks for each of the four files twice, first for where it is redirected to
    assert sorted(Counter(asked).values()) == [2] * 4
    folders = list((in_tmp / "logs").iterdir())
    assert len(folders) == 2
    one, two = (results_of(folder) for folder in folders)
    assert one["test"] == two["test"]
    assert one["dataset"]["sha256"] == two["dataset"]["sha256"]
