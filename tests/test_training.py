"""One run from Python, what it writes down, and how several processes of one agree to stop."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import distributed

from src.config.check import as_yaml, check
from src.config.compose import compose, configure, declared
from src.config.errors import Stopped, UserError
from src.config.folder import Run as Begun
from src.config.process import Interrupts
from src.config.schema import Components, TrainConfig
from src.data.images import ImageSet, Splits
from src.model.hardware import Hardware
from src.model.provenance import git_revision
from src.model.saved import FORMAT, Checkpoint, load
from src.results.intervals import percent
from src.results.outcome import Outcome as Results
from src.training.callbacks.log_metrics import GradientNorm, LogMetrics
from src.training.callbacks.progress import EpochLines, estimate
from src.training.callbacks.recorder import RecordAnswers
from src.training.checkpoints import Checkpoints
from src.training.logs import CSVLogger, RunLogs
from src.training.position import Position
from src.training.resume import to_resume
from src.training.run import train
from src.training.saving import Saved
from src.training.trackers import Trackers, hyperparameters
from src.training.trainer import build_trainer
from tests.conftest import SHORT, Once, Outcome, write_folder, write_results

Door = Callable[..., Outcome]


def composed() -> TrainConfig:
    return check(compose("train", declared(["dataset=image_folder", "data_dir=images", *SHORT])).values, TrainConfig)


@pytest.fixture
def config(images_folder: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """Composed by hand, as a notebook does it."""
    monkeypatch.setattr("sys.argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    return composed()


@pytest.fixture(scope="session")
def finished(once: Once) -> Path:
    def make() -> None:
        write_folder(Path("images"), classes=2, count=30)
        train(composed(), Path.cwd() / "run", command="the command")

    return once("training", make) / "run"


@pytest.fixture
def run(finished: Path, config: TrainConfig, in_tmp: Path) -> Path:
    return shutil.copytree(finished, in_tmp / "run")


class TestFromPython:
    def test_a_config_and_a_folder_are_all_it_takes(
        self, config: TrainConfig, in_tmp: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        accuracy = train(config, in_tmp / "run", command="the command")
        outcome = Results.read(in_tmp / "run")
        assert accuracy == outcome.val.accuracy is not None
        assert outcome.command == load(in_tmp / "run" / outcome.checkpoint).about.command == "the command"
        assert train(config, in_tmp / "run") == accuracy, "begun again, it is finished"
        assert "This run is finished" in capfd.readouterr().out

    def test_what_the_caller_names_is_what_may_change(self, config: TrainConfig, run: Path) -> None:
        more = config.model_copy(update={"resume": str(run), "seed": 9})
        train(more, run)  # nobody said seed=9
        with pytest.raises(UserError, match="was begun with seed=1, and this command says seed=9"):
            train(more, run, named=["seed=9"])


class TestWrittenDown:
    def test_a_folder_that_was_moved_works(self, door: Door, run: Path, in_tmp: Path) -> None:
        from src.serving.web import describe_score

        moved = in_tmp / "elsewhere" / "sent"
        moved.parent.mkdir()
        shutil.move(run, moved)
        outcome = Results.read(moved)
        assert outcome.checkpoint == "checkpoints/best.ckpt"
        assert outcome.test is not None
        accuracy = percent(outcome.test.accuracy, interval=outcome.test.accuracy_interval)
        assert describe_score(moved / outcome.checkpoint).startswith(f"Accuracy {accuracy} on 6 images")
        report, scored = door("report", str(moved)), door("eval", f"checkpoint={moved}/{outcome.checkpoint}")
        assert (report.code, scored.code) == (0, 0), report.err + scored.err
        assert (moved / "report.html").exists()
        assert not run.exists(), "nothing was made where it came from"

    @pytest.mark.parametrize("path", ["/etc/hostname", "../best.ckpt", "checkpoints/../../best.ckpt"])
    def test_a_record_names_no_checkpoint_elsewhere(self, run: Path, path: str) -> None:
        text = (run / "results.json").read_text()
        (run / "results.json").write_text(text.replace('"checkpoints/best.ckpt"', f'"{path}"'))
        with pytest.raises(UserError, match=r"results.json is damaged, or no record of a run: checkpoint: "):
            Results.read(run)

    def test_a_record_without_newer_keys_or_with_unknown_ones_is_read(self, run: Path) -> None:
        text = (run / "results.json").read_text()
        assert '"images_per_second"' in text
        (run / "results.json").write_text(text.replace('"images_per_second"', '"unknown"'))
        assert Results.read(run).train.images_per_second is None


class TestCheckpoint:
    def changed(self, run: Path, change: Callable[[dict[str, Any]], object]) -> Path:
        content = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
        change(content)
        torch.save(content, run / "changed.ckpt")
        return run / "changed.ckpt"

    @pytest.mark.parametrize("field", ["dark_background", "command", "versions", "git"])
    def test_one_without_a_field_that_came_later_loads(self, run: Path, field: str) -> None:
        assert not getattr(load(self.changed(run, lambda content: content["about"].pop(field))).about, field)

    def test_one_with_a_field_of_a_later_version_loads(self, run: Path) -> None:
        assert load(self.changed(run, lambda content: content["about"].update(later=1))).about.channels == 3

    def test_another_format_is_named(self, run: Path) -> None:
        path = self.changed(run, lambda content: content["about"].update(format=3))
        with pytest.raises(UserError, match=rf"it has format 3, and this version reads format {FORMAT}\."):
            load(path)

    def test_another_program_is_said_only_of_another_program(self, run: Path) -> None:
        with pytest.raises(UserError, match="another program wrote it"):
            load(self.changed(run, lambda content: content.pop("about")))
        with pytest.raises(UserError, match="it is damaged, for a part of it is missing or wrong"):
            load(self.changed(run, lambda content: content["about"].pop("images")))


class Run:
    """As much of Lightning's trainer as Checkpoints asks, of a run of two processes."""

    world_size, accumulate_grad_batches, global_step = 2, 1, 0

    class strategy:
        root_device = torch.device("cpu")

        @staticmethod
        def reduce(*arguments: Any, **options: Any) -> None:
            raise AssertionError("a step waits for the other processes")


class Counted(Checkpoints):
    """Writes nothing."""

    saved = written = 0

    def _save(self, trainer: Any, **before: bool) -> None:
        self.saved += 1
        self._saved_at = time.monotonic()

    def _write(self, *_: Any, **__: Any) -> None:
        self.written += 1


class TestStopping:
    @pytest.fixture(autouse=True)
    def processes(self) -> Iterator[None]:
        """A group of this process alone; what it is asked is what it answers."""
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
        yield
        distributed.destroy_process_group()

    @pytest.fixture
    def begun(self, config: TrainConfig, in_tmp: Path) -> Any:
        checkpoints: Any = Counted(in_tmp, config, RunLogs(in_tmp, Components()), Interrupts())
        checkpoints._saved_at = time.monotonic()
        checkpoints.on_train_start(Run, None)
        return checkpoints

    def test_a_step_reads_what_the_step_before_has_asked(self, begun: Any) -> None:
        begun.on_train_batch_start(Run, None, None, 0)
        begun._interrupts.received = 15
        begun.on_train_batch_start(Run, None, None, 1)
        assert begun.saved == 0
        with pytest.raises(Stopped, match="SIGTERM"):
            begun.on_train_batch_start(Run, None, None, 2)
        assert begun.saved == 1

    def test_a_wish_to_save_is_served_once(self, begun: Any) -> None:
        begun._saved_at = -math.inf
        for step in range(5):
            begun.on_train_batch_start(Run, None, None, step)
        assert begun.saved == 1
        begun._answer()


class TestBest:
    def ended(self, checkpoints: Any, step: int, score: float) -> None:
        state = type("state", (), {"fn": "fit"})
        run = type("Run", (), {"callback_metrics": {"val/acc": score}, "global_step": step, "state": state})
        checkpoints.on_validation_epoch_end(run)

    @pytest.mark.parametrize(("mode", "scores"), [("max", [0.5, 0.4, 0.5, 0.7]), ("min", [0.5, 0.6, 0.5, 0.2])])
    def test_a_later_validation_must_be_better_and_not_only_as_good(
        self, config: TrainConfig, in_tmp: Path, mode: str, scores: list[float]
    ) -> None:
        asked = config.model_copy(update={"monitor_mode": mode})
        checkpoints: Any = Counted(in_tmp, asked, RunLogs(in_tmp, Components()), Interrupts())
        found = []
        for number, score in enumerate(scores):
            self.ended(checkpoints, number, score)
            found.append((checkpoints.best_step, checkpoints.best_score, checkpoints.written))
        assert found == [(0, 0.5, 1), (0, 0.5, 1), (0, 0.5, 1), (3, scores[3], 2)]

    def test_one_that_is_no_number_is_never_the_best(self, config: TrainConfig, in_tmp: Path) -> None:
        checkpoints: Any = Counted(in_tmp, config, RunLogs(in_tmp, Components()), Interrupts())
        self.ended(checkpoints, 1, math.nan)
        assert checkpoints.best_step is None
        self.ended(checkpoints, 2, 0.1)
        self.ended(checkpoints, 3, math.nan)
        assert checkpoints.best_step == 2


def moved(monkeypatch: pytest.MonkeyPatch, clock: str, start: float) -> list[float]:
    """The time of that clock, which the test moves on."""
    now = [start]
    monkeypatch.setattr(clock, lambda: now[0])
    return now


class TestRate:
    """Images a second, by a clock that the test moves on."""

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        return moved(monkeypatch, "src.training.callbacks.log_metrics.time.perf_counter", 0.0)

    def batches(self, metrics: LogMetrics, clock: list[float], seconds: list[float], processes: int = 1) -> None:
        run: Any = type("Run", (), {"is_last_batch": False, "world_size": processes})
        for spent in seconds:
            clock[0] += spent
            metrics.on_train_batch_end(run, None, {}, (None, torch.zeros(4)))

    def test_images_of_all_processes_count_and_the_first_two_steps_do_not(self, clock: list[float]) -> None:
        metrics = LogMetrics()
        metrics.on_train_epoch_start()
        self.batches(metrics, clock, [60, 60], processes=3)
        assert metrics.rate is None
        self.batches(metrics, clock, [2, 2], processes=3)
        assert metrics.rate == metrics.running == 6.0

    def test_time_of_validations_and_between_epochs_is_left_out(self, clock: list[float]) -> None:
        metrics = LogMetrics()
        metrics.on_train_epoch_start()
        self.batches(metrics, clock, [1, 1, 1])
        clock[0] += 100  # of a validation within the epoch
        metrics.on_validation_end()
        self.batches(metrics, clock, [1])
        clock[0] += 100  # of a checkpoint
        metrics.on_train_epoch_start()
        self.batches(metrics, clock, [2, 2])
        assert metrics.running == 2.0
        assert metrics.rate == 16 / 6


@pytest.mark.parametrize(
    ("seconds", "epochs", "device", "said"),
    [
        (240, 4, "cpu", "about 4 min for 4 epochs on this machine"),
        (90, 1, "cpu", "about 90 s for 1 epoch on this machine"),
        (7 * 3600, 30, "cpu", "about 7 h for 30 epochs; for a laptop: trainer.max_epochs=2 (28 min)"),
        (7 * 3600, 30, "cuda", "about 7 h for 30 epochs on this machine"),
        (7 * 3600, 12.5, "cpu", "about 7 h for 12.5 epochs on this machine"),  # of a run that goes on
    ],
)
def test_the_steps_tell_how_long_a_run_takes_and_what_a_laptop_can_do(
    seconds: float, epochs: float, device: str, said: str
) -> None:
    run: Any = SimpleNamespace(max_epochs=int(epochs), strategy=SimpleNamespace(root_device=torch.device(device)))
    assert estimate(seconds, epochs, run) == said


def test_how_long_a_run_takes_is_told_once_after_a_few_seconds_of_counted_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, lines = moved(monkeypatch, "src.training.callbacks.progress.time.perf_counter", 0.0), EpochLines()
    counts = {"estimated_stepping_batches": 60, "global_step": 10, "accumulate_grad_batches": 2}
    device = SimpleNamespace(root_device=torch.device("cpu"))
    run: Any = SimpleNamespace(max_epochs=3, num_training_batches=40, strategy=device, **counts)
    lines.on_train_start(run, SimpleNamespace(monitor="val/acc"))
    for seconds in (60, 60, 2, 2, 2, 9):  # the first two are not counted
        clock[0] += seconds
        lines.on_train_batch_end(run)
    head, *told = capsys.readouterr().out.splitlines()
    assert "train loss" in head
    assert told == ["about 3 min for 2.5 epochs on this machine"], "100 batches of 2 s are left"


@pytest.mark.parametrize(
    ("position", "said"),
    [
        (Position(1, 0, 24, 24), "epoch 2 of 4, batch 1 of 24"),
        (Position(0, 24, 24, 24, validate=True), "epoch 1 of 4, the validation after batch 24 of 24"),
        (Position(4, 0, 96, 96, finished=True), "its end"),
    ],
)
def test_where_a_run_goes_on_is_said_with_what_there_is_in_all(position: Position, said: str) -> None:
    assert position.of_all(configure(["trainer.max_epochs=4", "batch_size=100"]), 2301) == said


class TestTime:
    """When a run is saved or stopped, by a clock that the test moves on."""

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        return moved(monkeypatch, "src.training.checkpoints.time.monotonic", 1000.0)

    def begun(self, config: TrainConfig, in_tmp: Path, **trainer: Any) -> Any:
        asked = config.model_copy(update={"trainer": config.trainer.model_copy(update=trainer)})
        checkpoints: Any = Counted(in_tmp, asked, RunLogs(in_tmp, Components()), Interrupts())
        checkpoints._saved_at = time.monotonic()
        checkpoints.on_train_start(type("Alone", (Run,), {"world_size": 1}), None)
        return checkpoints

    def test_max_time_is_in_days_hours_minutes_and_seconds(
        self, config: TrainConfig, in_tmp: Path, clock: list[float]
    ) -> None:
        checkpoints = self.begun(config, in_tmp, max_time="01:02:03:04")
        given = 24 * 3600 + 2 * 3600 + 3 * 60 + 4
        clock[0] = checkpoints._saved_at = 1000 + given
        checkpoints.on_train_batch_start(Run, None, None, 3)
        clock[0] += 1
        with pytest.raises(Stopped, match=r"Stopped by trainer\.max_time") as stopped:
            checkpoints.on_train_batch_start(Run, None, None, 4)
        assert stopped.value.code == 124

    def test_a_checkpoint_is_due_after_minutes_and_not_seconds(
        self, config: TrainConfig, in_tmp: Path, clock: list[float]
    ) -> None:
        checkpoints = self.begun(config, in_tmp)
        assert config.callbacks.checkpoint_minutes == 10
        for second, saved in ((599, 0), (601, 1), (1200, 1), (1202, 2)):
            clock[0] = 1000.0 + second
            checkpoints.on_train_batch_start(Run, None, None, 3)
            assert checkpoints.saved == saved, second


@pytest.mark.parametrize(
    ("options", "benchmark"),
    [([], True), (["trainer.deterministic=true"], False), (["trainer.benchmark=false"], False)],
)
def test_kernels_are_tried_out_on_a_gpu_unless_the_run_is_to_be_deterministic(
    options: list[str], benchmark: bool, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("src.training.trainer.L.Trainer", lambda **more: given.update(more))
    build_trainer(configure(options), Hardware("cuda", "16-mixed"), in_tmp, [])
    assert given["benchmark"] is benchmark
    assert (given["num_sanity_val_steps"], given["use_distributed_sampler"]) == (0, False)


@pytest.mark.parametrize(("changed", "added", "modified"), [("", "", False), ("src", "", True), ("", "src", True)])
def test_code_is_modified_where_a_file_has_changed_or_come(
    changed: str, added: str, modified: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"rev-parse": "1a2b", "diff": changed, "ls-files": added}
    monkeypatch.setattr("src.model.provenance._git", lambda word, *_: said[word])
    found = git_revision()
    assert found is not None
    assert (found.revision, found.modified) == ("1a2b", modified)


def test_answers_of_all_processes_stand_in_the_order_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = list("abcdefg")
    part = ImageSet(torch.zeros(7, 1, 1, 1, dtype=torch.uint8), torch.arange(7))
    logits, order = torch.eye(7), [torch.tensor([0, 2, 4, 6]), torch.tensor([1, 3, 5])]
    never: Any = SimpleNamespace(best_step=None)
    recorder, loader = (
        RecordAnswers(Path(), never),
        SimpleNamespace(sampler=[(0, indices) for indices in order[0].split(3)]),
    )
    run: Any = SimpleNamespace(testing=True, world_size=2, test_dataloaders=loader, loggers=[])
    run.datamodule = SimpleNamespace(splits=Splits(part, part, part, classes, "full"))

    def gather(found: list[Any], mine: Any) -> None:
        found[:] = [mine, (order[1], logits[order[1]])]

    monkeypatch.setattr(distributed, "all_gather_object", gather)
    for _, indices in loader.sampler:
        recorder.on_test_batch_end(run, None, {"logits": logits[indices]})  # type: ignore[arg-type]
    recorder.on_test_epoch_end(run)
    assert recorder.answers is not None
    assert torch.equal(recorder.answers.logits, logits)
    assert recorder.answers.accuracy == 1.0


def test_what_trackers_compare_runs_by_are_all_numbers_words_and_truth_values() -> None:
    found = hyperparameters(configure(["batch_size=7", "optimizer.lr=0.5", "compile=true", "dataset.mean=[0.5]"]))
    assert (found["batch_size"], found["optimizer.lr"], found["compile"], found["seed"]) == (7, 0.5, True, 1)
    assert found["model.name"] == "alexnet"
    assert not {"dataset.mean", "resume", "model.widths"} & found.keys()


class TestTable:
    """metrics.csv: a row for each epoch, and for each other step at which something is validated."""

    LOGGED = (
        (4, {"epoch": 0, "val/loss": 0.75}),
        (9, {"epoch": 0, "val/loss": 0.5}),
        (9, {"epoch": 0, "train/loss": 0.1 + 0.2}),
        (14, {"epoch": 1, "val/loss": 0.25}),
        (19, {"epoch": 1, "train/loss": 0.25}),
        (19, {"epoch": 2, "val/loss": 0.25}),
        (20, {"epoch": 2, "test/loss": 0.5}),
    )
    ROWS = (
        "epoch,step,train/loss,val/loss\n0,4,,0.75\n0,9,0.30000000000000004,0.5\n1,14,,0.25\n1,19,0.25,\n2,19,,0.25\n"
    )

    def log(self, table: CSVLogger, first: int = 0, last: int | None = None) -> None:
        for step, metrics in self.LOGGED[first:last]:
            table.log_metrics(metrics, step)
            table.log_metrics({"train/learning_rate": 0.1}, step)

    def test_an_epoch_is_one_row_and_no_validation_is_lost(self, tmp_path: Path) -> None:
        self.log(CSVLogger(tmp_path / "t.csv"))
        assert (tmp_path / "t.csv").read_text() == self.ROWS

    @pytest.mark.parametrize("saved", range(7))
    @pytest.mark.parametrize("more", range(3))
    def test_after_a_kill_it_has_the_same_bytes(self, tmp_path: Path, saved: int, more: int) -> None:
        before, after = (CSVLogger(tmp_path / "t.csv") for _ in range(2))
        self.log(before, 0, saved)
        rows = before.rows
        self.log(before, saved, saved + more)  # since the checkpoint, and lost
        after.cut(rows)
        self.log(after, saved)
        assert (tmp_path / "t.csv").read_text() == self.ROWS

    def test_what_is_logged_by_step_has_a_table_of_its_own(self, tmp_path: Path) -> None:
        self.log(CSVLogger(tmp_path / "t.csv", by_step=True), 0, 2)
        assert (tmp_path / "t.csv").read_text() == "step,train/learning_rate\n4,0.1\n9,0.1\n"


@pytest.mark.parametrize(("finished", "interruptions"), [(False, 3), (True, 2)])
def test_time_and_interruptions_of_the_sessions_before_are_counted_on(
    config: TrainConfig, in_tmp: Path, finished: bool, interruptions: int
) -> None:
    position = Position(2, 0, 8, 8, finished=finished)
    saved = Saved(
        position=position,
        logs={},
        best_score=0.5,
        best_step=4,
        best_measured={"val/acc": 0.5},
        interruptions=2,
        seconds=50.0,
        should_stop=False,
    )
    resumed: Any = SimpleNamespace(**dict(saved), content={}, finished=lambda config: finished)
    checkpoints = Checkpoints(in_tmp, config, RunLogs(in_tmp, Components()), Interrupts(), resumed)
    assert (checkpoints.seconds, checkpoints.interruptions) == (50.0, interruptions)
    assert (checkpoints.best_score, checkpoints.best_step, checkpoints.best_measured) == (0.5, 4, {"val/acc": 0.5})


@pytest.mark.parametrize(("every", "name"), [(1, "best.ckpt"), (5, "last.ckpt")])
def test_the_test_is_of_the_best_weights_or_of_the_last_where_nothing_was_validated(
    config: TrainConfig, in_tmp: Path, every: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested: list[Path] = []

    def told(path: Path, config: TrainConfig) -> Checkpoint:
        tested.append(path)
        return load(path, config)

    monkeypatch.setattr("src.training.session.load", told)
    asked = config.trainer.model_copy(update={"check_val_every_n_epoch": every, "limit_train_batches": 1})
    train(config.model_copy(update={"trainer": asked}), in_tmp / "run")
    assert tested == [in_tmp / "run/checkpoints" / name]
    assert Results.read(in_tmp / "run").checkpoint == f"checkpoints/{name}"


@pytest.mark.parametrize("wanted", [3, 2])
def test_a_run_may_end_at_the_epoch_that_it_has_behind_it_but_not_before(
    config: TrainConfig, in_tmp: Path, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (in_tmp / "checkpoints").mkdir()
    (in_tmp / "checkpoints/last.ckpt").touch()
    there = SimpleNamespace(position=Position(3, 0, 12, 12), path=in_tmp / "checkpoints/last.ckpt")
    monkeypatch.setattr("src.training.resume._read", lambda path: there)
    asked = config.model_copy(update={"trainer": config.trainer.model_copy(update={"max_epochs": wanted})})
    if wanted == 3:
        assert to_resume(Begun(in_tmp, asked, config)) is there
    else:
        with pytest.raises(UserError, match=r"trainer\.max_epochs=2: .*last\.ckpt has 3 epochs behind it\."):
            to_resume(Begun(in_tmp, asked, config))


def test_the_rate_is_that_of_the_first_group_and_each_named_one_has_its_own() -> None:
    logged: list[tuple[int, dict[str, float]]] = []
    logger = SimpleNamespace(log_metrics=lambda rates, step: logged.append((step, rates)))
    groups = [{"lr": 0.1, "name": "head"}, {"lr": 0.5, "name": "others"}]
    for step in range(4):
        run: Any = SimpleNamespace(global_step=step, log_every_n_steps=2, loggers=[logger])
        LogMetrics().on_before_optimizer_step(run, None, SimpleNamespace(param_groups=groups))  # type: ignore[arg-type]
    rates = {"": 0.1, "/head": 0.1, "/others": 0.5}
    assert logged == [(step, {f"train/learning_rate{name}": rate for name, rate in rates.items()}) for step in (1, 3)]


@pytest.mark.parametrize(("monitor", "value"), [("val/acc", 0.75), ("val/loss", 0.125)])
def test_a_finished_run_that_is_asked_for_again_gives_what_it_gave(
    config: TrainConfig, in_tmp: Path, monitor: str, value: float
) -> None:
    mode = "max" if monitor == "val/acc" else "min"
    asked = config.model_copy(update={"monitor": monitor, "monitor_mode": mode})
    write_results(in_tmp / "run", value, monitor=monitor, mode=mode)
    (in_tmp / "run/config.yaml").write_text(as_yaml(asked))
    assert train(asked, in_tmp / "run") == value, "a search would choose by it"


def test_of_the_wishes_of_several_processes_the_greatest_is_done_and_of_their_batches_the_fewest(
    config: TrainConfig, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(distributed, "all_reduce", lambda values, op, group, **more: asked.append(op))
    monkeypatch.setattr("src.training.checkpoints.Position.of", lambda *_, **__: Position(0, 3, 3, 3))
    checkpoints: Any = Counted(in_tmp, config, RunLogs(in_tmp, Components()), Interrupts())
    checkpoints._group, checkpoints._deadline = object(), math.inf
    checkpoints._saved_at = time.monotonic()
    checkpoints.on_train_batch_start(Run, None, None, 1)
    fitting = {"state": SimpleNamespace(fn="fit"), "num_val_batches": [4], "num_training_batches": 9, "max_steps": -1}
    checkpoints.on_validation_start(type("Fitting", (Run,), fitting))
    assert asked == [distributed.ReduceOp.MAX, distributed.ReduceOp.MIN]


@pytest.mark.parametrize(("fused", "norm"), [(True, 5.0), (False, 40.0)])
def test_the_gradients_norm_is_that_without_the_scale_of_half_precision(fused: bool, norm: float) -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([24.0, 32.0])  # scaled by 8, which a fused optimizer has yet to take back
    logged: list[dict[str, float]] = []
    run: Any = SimpleNamespace(global_step=1, log_every_n_steps=1)
    run.loggers = [SimpleNamespace(log_metrics=lambda values, step: logged.append(values))]
    run.precision_plugin = SimpleNamespace(scaler=SimpleNamespace(get_scale=lambda: 8.0))
    module: Any = SimpleNamespace(parameters=lambda: [weight])
    optimizer: Any = SimpleNamespace(_step_supports_amp_scaling=fused)
    GradientNorm().on_before_optimizer_step(run, module, optimizer)
    assert logged == [{"train/gradient_norm": norm}]


def test_weights_and_biases_begins_after_all_other_trackers(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def begin(self: Trackers, component: Any, known: str | None) -> Any:
        begun.append(component.target.rpartition(".")[2])
        return SimpleNamespace(version=None)

    for way in ("_begin", "_wandb", "_mlflow"):
        monkeypatch.setattr(Trackers, way, begin)
    Trackers(configure(["logger=[wandb,mlflow]"]), in_tmp).open()
    assert begun == ["MLFlowLogger", "WandbLogger"]
