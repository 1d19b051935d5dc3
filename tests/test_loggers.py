"""W&B and MLflow: what a run tells them, and that each run has its own, whatever becomes of it. No network."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna import TrialPruned

from src.config import errors
from src.config.check import check
from src.config.compose import compose
from src.config.errors import Stopped, UserError, need
from src.config.schema import CONFIGS, TrainConfig
from src.model.classifier import Classifier
from src.training.trackers import IDS, Trackers, _ending
from tests.conftest import ROOT, SHORT, Outcome, only_run, results_of

Door = Callable[..., Outcome]


class Power(Exception):
    """It fails."""


@pytest.fixture
def options(images_folder: Path) -> list[str]:
    more = ["seed=3", "trainer.max_epochs=2", "callbacks.checkpoint_steps=2", "report=false"]
    return ["dataset=image_folder", f"data_dir={images_folder}", *SHORT, *more]  # 6 batches an epoch


@pytest.fixture(autouse=True)
def offline(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No network, no key, nothing in the home; wandb forgets in the end what it has read from the environment."""
    import wandb

    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(in_tmp / "home"))
    monkeypatch.setenv("NETRC", str(in_tmp / "netrc"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    wandb.teardown()


def at_step(patch: pytest.MonkeyPatch, step: int, do: Callable[[], object]) -> None:
    """Have a training step do this first, counted from 1."""
    original, calls = Classifier.training_step, iter(range(1, 1_000_000))

    def counted(*arguments: Any) -> Any:
        if next(calls) == step:
            do()
        return original(*arguments)

    patch.setattr(Classifier, "training_step", counted)


def fail() -> None:
    raise Power


class Sent:
    """What the process that writes one `.wandb` file meant for the server.

    The file is a log of LevelDB's: blocks of 32 KiB, of records with a checksum, a length and whether they are whole.
    """

    def __init__(self, path: Path) -> None:
        from wandb.proto import wandb_internal_pb2

        messages: Any = wandb_internal_pb2
        data, place, text = path.read_bytes(), 7, b""
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.id, self.project, self.exit_code = "", "", None
        while place + 7 <= len(data):
            if 32768 - place % 32768 < 7:
                place += 32768 - place % 32768
                continue
            _, length, part = struct.unpack("<IHB", data[place : place + 7])
            text += data[place + 7 : place + 7 + length]
            place += 7 + length
            if part in (1, 4):  # whole, or its last part
                self._add(messages.Record.FromString(text))
                text = b""

    def _add(self, record: Any) -> None:
        kind = record.WhichOneof("record_type")
        if kind == "run":
            self.id, self.project, self.name = record.run.run_id, record.run.project, record.run.display_name
        if kind == "config":
            self.config |= {item.key: json.loads(item.value_json) for item in record.config.update}
        if kind == "summary":
            self.summary |= {item.key or item.nested_key[0]: item.value_json for item in record.summary.update}
        if kind == "history":
            items = record.history.item
            self.history.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
        if kind == "exit":
            self.exit_code = record.exit.exit_code

    def values(self, name: str) -> list[float]:
        return [row[name] for row in self.history if name in row]


def sent(run: Path) -> list[Sent]:
    """Of each process that worked on a run, the first one first."""
    import wandb

    wandb.teardown()  # its own process may still be writing
    return [Sent(path) for path in sorted((run / "wandb").glob("offline-run-*/*.wandb"))]


def tracked(folder: Path, experiment: str = "image_folder") -> tuple[Any, list[Any]]:
    """A client of the store below logs/, and the experiment's runs, the first one first."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/logs/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return client, client.search_runs([found.experiment_id], order_by=["attributes.start_time"])


class TestWandb:
    def test_gets_curves_config_and_scores_and_no_word_is_lost_on_the_terminal(
        self, door: Door, options: list[str], in_tmp: Path
    ) -> None:
        outcome = door("train", *options, "logger=wandb")
        assert (outcome.code, outcome.err) == (0, "")
        run = only_run(in_tmp)
        assert not (run / "tensorboard").exists()
        assert not (in_tmp / "wandb").exists()
        [found] = sent(run)
        assert (found.name, found.project, found.exit_code) == (run.name, "image_folder", 0)
        assert len(found.values("val/acc")) == len(found.values("train/loss")) == 2
        assert found.values("trainer/global_step") == sorted(found.values("trainer/global_step"))
        assert found.config["optimizer"]["lr"] == 3e-4
        assert found.config["seed"] == 3
        results = results_of(run)
        assert float(found.summary["best/val/acc"]) == results["val"]["accuracy"]
        assert float(found.summary["best/test/acc"]) == results["test"]["accuracy"]
        assert "tensorboard --logdir" not in outcome.out

    def test_each_run_of_a_sweep_has_its_own_also_after_one_that_failed(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WANDB_PROJECT", "mine")
        with monkeypatch.context() as patch:
            at_step(patch, 8, fail)
            sweep = [*options, "logger=[tensorboard,wandb]", "seed=1,2", "hydra.sweep.dir=logs/s"]
            assert door("train", "-m", *sweep).code == 1
        [first], [second] = sent(in_tmp / "logs/s/seed-1"), sent(in_tmp / "logs/s/seed-2")
        assert first.id != second.id
        assert (first.project, first.name) == ("mine", "seed-1")
        assert (first.exit_code, second.exit_code) == (1, 0)
        assert (first.config["seed"], second.config["seed"]) == (1, 2)
        assert (len(first.values("val/acc")), len(second.values("val/acc"))) == (1, 2)
        assert (in_tmp / "logs/s/seed-2/tensorboard").exists()

    def test_without_a_key_it_neither_asks_nor_waits_nor_leaves_anything(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("WANDB_MODE")
        outcome = door("train", *options, "logger=wandb", "hydra.run.dir=r")
        assert outcome.code == 2
        assert outcome.err == (
            "error: logger=wandb: No API key configured. Set WANDB_MODE=offline, or WANDB_API_KEY and a network.\n"
        )
        assert not (in_tmp / "r").exists()


class TestMLflow:
    def test_gets_curves_parameters_and_scores(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
        outcome = door("train", *options, "logger=mlflow")
        assert (outcome.code, outcome.err) == (0, "")
        run = only_run(in_tmp)
        client, [found] = tracked(in_tmp, "mine")
        assert (found.info.status, found.info.run_name) == ("FINISHED", run.name)
        assert [point.step for point in client.get_metric_history(found.info.run_id, "val/acc")] == [5, 11]
        assert len(client.get_metric_history(found.info.run_id, "train/loss")) == 2
        assert found.data.params["optimizer.lr"] == "0.0003"
        assert found.data.params["model.name"] == "alexnet"
        results = results_of(run)
        assert found.data.metrics["best/val/acc"] == results["val"]["accuracy"]
        assert found.data.metrics["best/test/loss"] == pytest.approx(results["test"]["loss"])

    def test_its_database_is_whole_or_not_there(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(uri: str) -> None:
            Path(uri.removeprefix("sqlite:///")).write_text("half")
            raise Power

        monkeypatch.setattr("mlflow.MlflowClient", killed)
        assert door("train", *options, "logger=mlflow", "hydra.run.dir=r").code == 2
        assert [path.name for path in (in_tmp / "logs").iterdir()] == [".mlflow.lock"]

    def test_one_that_does_not_answer_at_the_start(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        outcome = door("train", *options, "logger=mlflow", "hydra.run.dir=r")
        assert outcome.code == 2
        assert outcome.err.startswith("error: logger=mlflow: API request to http://127.0.0.1:9/")
        assert outcome.err.endswith(" failed. Set MLFLOW_TRACKING_URI to a server that answers, or unset it.\n")
        assert not (in_tmp / "r").exists()


class TestBoth:
    def test_a_run_that_goes_on_does_so_in_the_same_runs_also_with_more_epochs(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            at_step(patch, 10, lambda: os.kill(os.getpid(), signal.SIGTERM))
            words = ["logger=[wandb,mlflow]", "scheduler=constant"]
            assert door("train", *options, *words).code == 143
        run = only_run(in_tmp)
        _, [before] = tracked(in_tmp)
        assert (before.info.status, before.data.params["seed"]) == ("KILLED", "3")
        assert "best/val/acc" not in before.data.metrics
        lookalike = run / "wandb/run-1/files/config.yaml"  # which W&B writes in a run that is online
        lookalike.parent.mkdir(parents=True)
        lookalike.touch()

        assert door("train", "resume=last", "trainer.max_epochs=3").code == 0
        client, [after] = tracked(in_tmp)
        assert after.info.run_id == before.info.run_id
        assert after.info.status == "FINISHED"
        assert [point.step for point in client.get_metric_history(after.info.run_id, "val/acc")] == [5, 11, 17]
        assert after.data.params["trainer.max_epochs"] == "2", "a parameter stays what it was"
        first, second = sent(run)
        assert first.id
        assert first.id == second.id
        assert (first.exit_code, second.exit_code) == (143, 0)
        assert [len(one.values("val/acc")) for one in (first, second)] == [1, 2]
        assert (first.config["trainer"]["max_epochs"], second.config["trainer"]["max_epochs"]) == (2, 3)
        assert "best/val/acc" in second.summary

    @pytest.mark.slow
    def test_of_two_processes_only_the_first_one_writes(self, options: list[str], in_tmp: Path) -> None:
        words = [
            "logger=[wandb,mlflow]",
            "trainer=ddp",
            "devices=2",
            "trainer.max_epochs=1",
            "hydra.run.dir=logs/r",
        ]
        command = [sys.executable, "-m", "src.train", *options, *words]
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert len(sent(in_tmp / "logs/r")) == 1
        _, [found] = tracked(in_tmp)
        assert found.info.status == "FINISHED"

    def test_how_a_run_ended_is_told(self) -> None:
        assert _ending(None) == ("FINISHED", 0, "success")
        assert _ending(Stopped(signal.SIGTERM)) == ("KILLED", 143, "failed")
        assert _ending(TrialPruned()) == ("KILLED", 0, "success")
        assert _ending(Power()) == ("FAILED", 1, "failed")

    @pytest.mark.parametrize("name", ["wandb", "mlflow"])
    def test_a_package_that_is_not_installed(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setattr(
            errors, "find_spec", lambda package: None if package == name else SimpleNamespace(origin="there")
        )
        for more in (f"logger={name}",), (f"logger=[tensorboard,{name}]",), ("-m", f"logger={name}", "seed=1,2"):
            outcome = door("train", *options, *more)
            assert outcome.code == 2
            assert f"error: logger={name} needs {name}, which is not installed: pip install" in outcome.err
            assert f'"alexnet-template[{name}]"' in outcome.err
            assert not (in_tmp / "logs").exists()
        assert door("tune", *options, "batch_size=4,8", f"logger={name}").code == 2
        assert not (in_tmp / "logs").exists()

    def test_ids_of_a_stranger_are_words(self, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        known: list[str | None] = []

        def begin(self: Trackers, component: object, id: str | None) -> SimpleNamespace:
            known.append(id)
            return SimpleNamespace(version="x")

        monkeypatch.setattr(Trackers, "_wandb", begin)
        config = check(compose("train", ["logger=[tensorboard,wandb]"]).values, TrainConfig)
        for text in '{"wandb": "../../x", "mlflow": 3}', "[]", "{", '{"wandb": null}', '{"wandb": "y"}':
            (in_tmp / IDS).write_text(text)
            Trackers(config, in_tmp).open()
        assert known == [None, None, None, None, "y"]

    def test_what_ships_and_what_to_install_for_it(self, door: Door) -> None:
        with pytest.raises(UserError, match="nothing_like_it, which is not installed"):
            need("nothing_like_it", "wandb", "a test")
        shipped = {"csv", "tensorboard", "wandb", "mlflow", "comet", "aim"}
        assert {path.stem for path in (CONFIGS / "logger").glob("*.yaml")} == shipped
        for name, package in {"comet": "comet_ml", "aim": "aim"}.items():
            if find_spec(package) is None:
                outcome = door("train", f"logger={name}")
                assert outcome.code == 2
                assert package in outcome.err
                assert "nstall" in outcome.err


class TestAny:
    """A logger of one's own, and what the run's own table takes of what is logged."""

    def test_it_is_given_its_place_and_its_id_and_told_how_the_run_ended(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (in_tmp / "diary.py").write_text(DIARY)
        monkeypatch.syspath_prepend(in_tmp)
        words = ["logger.diary._target_=diary.Diary", "hydra.run.dir=logs/r"]
        with monkeypatch.context() as patch:
            at_step(patch, 10, lambda: os.kill(os.getpid(), signal.SIGTERM))
            assert door("train", *options, *words).code == 143
        assert door("train", *options, *words).code == 0
        lines = [json.loads(line) for line in (in_tmp / "logs/r/diary.txt").read_text().splitlines()]
        assert [line["begin"] for line in lines if "begin" in line] == [None, "abc"]
        assert [line["end"] for line in lines if "end" in line][-1] == "success"
        assert "failed" in [line["end"] for line in lines if "end" in line]
        assert sum("val/acc" in line for line in lines) == 2
        assert [line["name"] for line in lines if "name" in line] == ["r", "r"]

    def test_the_table_holds_what_was_learned_and_no_timings(
        self, door: Door, options: list[str], in_tmp: Path
    ) -> None:
        words = ["callbacks.rate._target_=lightning.pytorch.callbacks.LearningRateMonitor"]
        words += ["callbacks.device._target_=lightning.pytorch.callbacks.DeviceStatsMonitor", "logger=csv"]
        words += ["callbacks.device.cpu_stats=true", "trainer.log_every_n_steps=1"]
        assert door("train", *options, *words, "hydra.run.dir=r").code == 0
        epochs, steps = ((in_tmp / "r" / name).read_text().split("\n")[0] for name in ("metrics.csv", "steps.csv"))
        assert epochs == "epoch,step,train/acc,train/loss,val/acc,val/loss"
        assert steps == "step,train/learning_rate"


DIARY = """
import json
from pathlib import Path

from lightning.pytorch.loggers import Logger


class Diary(Logger):
    version = "abc"

    def __init__(self, save_dir: str, name: str, id: str | None = None) -> None:
        super().__init__()
        self._path = Path(save_dir, "diary.txt")
        self._write({"begin": id, "name": name})

    name = property(lambda self: "diary")

    def _write(self, row):
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\\n")

    def log_metrics(self, metrics, step=None):
        self._write({key: float(value) for key, value in metrics.items()})

    def log_hyperparams(self, params):
        self._write(dict(params))

    def finalize(self, status):
        self._write({"end": status})
"""
