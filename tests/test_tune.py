"""Searches: spaces in Hydra's notation, totals, kills, sharing, pruning, what is found."""

from __future__ import annotations

import csv
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from filelock import FileLock
from matplotlib.text import Text
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from PIL import Image

from src.config.check import check
from src.config.cli import Arguments
from src.config.compose import compose, written
from src.config.errors import UserError
from src.config.folder import LOCK
from src.config.schema import TrainConfig, TuneConfig
from src.results.figures.canvas import save
from src.sweeps.best import save_best
from src.sweeps.grid import Definition
from src.sweeps.search import Search
from src.sweeps.study import ask, leave_out, open_storage, open_study, read_space, real_trials, save_pictures
from tests.conftest import NARROW, Outcome, results_of, write_results
from tests.processes import Command, killed_after_a_validation
from tests.test_resume import at_call, send

Door = Callable[..., Outcome]
SEARCH = Path("logs/tune/s")


@pytest.fixture
def options(images_folder: Path) -> list[str]:
    narrow = [text for text in NARROW if not text.startswith("batch_size")]
    return ["dataset=image_folder", f"data_dir={images_folder}", *narrow, "trainer.max_epochs=2", "name=s"]


def trials(in_tmp: Path) -> list[dict[str, str]]:
    with (in_tmp / SEARCH / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(in_tmp: Path) -> dict[str, set[str]]:
    """Each trial's folder with the names of the checkpoints in it."""
    folders = sorted((in_tmp / SEARCH).glob("trial-*"))
    return {folder.name: {path.name for path in folder.glob("checkpoints/*")} for folder in folders}


class TestSpace:
    def test_hydras_notation(self) -> None:
        texts = {
            "a": "choice(adamw, sgd)",
            "b": "interval(0.0, 0.5)",
            "c": "tag(log, interval(1e-4, 1e-2))",
            "d": "range(16, 65, 16)",
            "e": "int(interval(1, 9))",
            "f": "1,2.5,true",
            "g": "choice([1,2],[3,4])",
        }
        assert read_space(texts) == {
            "a": CategoricalDistribution(["adamw", "sgd"]),
            "b": FloatDistribution(0.0, 0.5),
            "c": FloatDistribution(1e-4, 1e-2, log=True),
            "d": IntDistribution(16, 64, step=16),
            "e": IntDistribution(1, 9),
            "f": CategoricalDistribution(["1", "2.5", "True"]),
            "g": CategoricalDistribution(["[1,2]", "[3,4]"]),
        }

    def test_a_point_as_a_config(self) -> None:
        varied = ["optimizer.lr=interval(0.1, 1.0)", "optimizer=adamw,sgd", "compile=true,false"]
        config = Search(Arguments("tune", ("search=null", *varied))).compose(
            {"optimizer.lr": 0.25, "optimizer": "sgd", "compile": "true"}
        )
        assert (config.optimizer.name, config.optimizer.lr, config.compile) == ("sgd", 0.25, True)

    @pytest.mark.parametrize(
        "text", ["3", "choice()", "glob(*)", "interval(1", "range(5, 5)", "tag(log, interval(-1.0, 1.0))"]
    )
    def test_what_is_no_range_is_refused_by_its_key(self, text: str) -> None:
        with pytest.raises(UserError, match=r"^seed="):
            read_space({"seed": text})

    def test_unseen_points_until_there_are_none(self) -> None:
        config = check(compose("tune", ["sampler=random", "n_trials=99"]).values, TuneConfig)
        space = read_space({"a": "1,2,3", "b": "range(0, 2)"})
        study, points = optuna.create_study(), []
        while (trial := ask(study, space, config)) is not None:
            points.append(tuple(trial.params.values()))
        assert len(points) == len(set(points)) == 6


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna's take a second a search."""
    monkeypatch.setattr("src.sweeps.search.save_pictures", lambda *_: None)


def test_trials_are_runs_that_leave_the_test_set_alone_and_the_best_is_an_experiment(
    door: Door, options: list[str], in_tmp: Path
) -> None:
    outcome = door("tune", *options, "n_trials=3", "batch_size=choice(4,8)", "optimizer=adamw,sgd")
    assert outcome.code == 0, outcome.err
    rows = trials(in_tmp)
    assert len(rows) == 3
    for row in rows:
        run = in_tmp / SEARCH / row["run"]
        config = OmegaConf.load(run / "config.yaml")
        assert str(config.batch_size) == row["batch_size"]
        assert str(config.optimizer.lr) == row["optimizer.lr"]
        assert config.optimizer.name == row["optimizer"]
        results = results_of(run)
        assert results["test"] is None
        assert str(results["val"]["accuracy"]) == row["val_accuracy"]
    best = max(rows, key=lambda row: float(row["val_accuracy"]))
    command = f"python -m src.train --config-dir {SEARCH} experiment=best"
    assert f"train with the best:\n  {command}\n" in outcome.out
    again = door("train", "--config-dir", str(SEARCH), "experiment=best", options[1], "device=cpu", "hydra.run.dir=r")
    assert again.code == 0, again.err
    assert results_of(in_tmp / "r")["val"]["accuracy"] == float(best["val_accuracy"])
    assert results_of(in_tmp / "r")["test"]["images"] == 6
    for name in ("history", "importances", "parallel"):
        if len({row["val_accuracy"] for row in rows}) > 1:
            assert (in_tmp / SEARCH / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("without_pictures")
class TestSearch:
    def test_an_experiment_is_the_base_of_another(self, door: Door, images_folder: Path, in_tmp: Path) -> None:
        options = ["experiment=quick", *NARROW, "trainer.limit_train_batches=2", "trainer.limit_val_batches=2"]
        short = ["trainer.max_epochs=1", "search=null", "model.dropout=interval(0.1,0.4)", "n_trials=1", "name=s"]
        outcome = door("tune", *options, *short)
        assert outcome.code == 0, outcome.err
        limits = ["trainer.limit_test_batches=2", "device=cpu"]
        outcome = door("train", "--config-dir", str(SEARCH), "experiment=best", *limits, "hydra.run.dir=r")
        assert outcome.code == 0, outcome.err
        found, wanted = (
            OmegaConf.load(in_tmp / "r/config.yaml"),
            OmegaConf.load(in_tmp / SEARCH / "trial-000/config.yaml"),
        )
        for config in (found, wanted):
            config.test = config.report = config.trainer.limit_test_batches = None
        assert found == wanted

    def test_killed_at_any_trial_it_ends_with_the_trials_of_one_that_was_not(
        self, door: Door, options: list[str], in_tmp: Path
    ) -> None:
        options = [*options, "callbacks.checkpoint_steps=1", "n_trials=3", "pruner=null"]
        killed_search = killed_after_a_validation(in_tmp / SEARCH / "trial-001", "src.tune", *options)
        assert killed_search.returncode == -signal.SIGKILL, killed_search.stderr
        first = (in_tmp / SEARCH / "trial-000/results.json").stat().st_mtime_ns
        report = door("report", str(SEARCH))
        assert report.code == 0, report.err
        assert "2 runs: 1 finished, 1 interrupted" in report.out
        assert "experiment=best" not in report.out, "there is no such file yet"
        assert [row["state"] for row in trials(in_tmp)] == ["finished", "interrupted"]
        outcome = door("tune", *options)
        assert outcome.code == 0, outcome.err
        assert (in_tmp / SEARCH / "trial-000/results.json").stat().st_mtime_ns == first, "it was repeated"
        assert results_of(in_tmp / SEARCH / "trial-001")["train"]["interruptions"] == 1
        killed = trials(in_tmp)
        assert door("tune", *options).code == 0
        assert trials(in_tmp) == killed, "n_trials is the total"
        assert door("tune", *options, "name=whole").code == 0
        (in_tmp / SEARCH).rename(in_tmp / "killed")
        (in_tmp / "logs/tune/whole").rename(in_tmp / SEARCH)
        whole = trials(in_tmp)
        for row in (*killed, *whole):
            row.pop("seconds")
        assert killed == whole

    def test_two_processes_share_the_trials(self, options: list[str], in_tmp: Path) -> None:
        both = [Command("src.tune", *options, "n_trials=5") for _ in range(2)]
        said = [process.communicate() for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        shares = [out.count(": validation accuracy ") + out.count("pruned at epoch") for out, _ in said]
        assert sum(shares) == 5
        assert min(shares) > 0, "one has done all"
        study = optuna.load_study(study_name="s", storage=open_storage(in_tmp / SEARCH, None))
        points = [tuple(trial.params.values()) for trial in study.trials]
        assert len(points) == len(set(points)) == 5

    def test_no_point_is_repeated_and_a_small_space_ends(self, door: Door, options: list[str], in_tmp: Path) -> None:
        small = ["search=null", "batch_size=4,8", "loss.label_smoothing=0.0,0.1", "sampler=random"]
        outcome = door("tune", *options, *small, "n_trials=9")
        assert outcome.code == 0, outcome.err
        points = {(row["batch_size"], row["loss.label_smoothing"]) for row in trials(in_tmp)}
        assert len(points) == len(trials(in_tmp)) == 4

    def test_a_poor_trial_is_pruned_at_a_validation_and_its_weights_go(
        self, door: Door, options: list[str], in_tmp: Path
    ) -> None:
        rates = ["search=null", "optimizer.lr=5.9e-3,6e-3,1e-9", "pruner.n_startup_trials=1", "sampler.seed=1"]
        outcome = door("tune", *options, *rates, "batch_size=4", "n_trials=3", "trainer.max_epochs=12")
        assert outcome.code == 0, outcome.err
        pruned = [row for row in trials(in_tmp) if row["state"] == "pruned"]
        assert pruned, outcome.out
        for row in pruned:
            assert int(row["epochs"]) < 12
            assert not list((in_tmp / SEARCH / row["run"] / "checkpoints").glob("*"))

    def test_only_the_best_trial_keeps_its_weights(self, door: Door, options: list[str], in_tmp: Path) -> None:
        few = [*options, "search=null", "batch_size=4", "pruner=null", "sampler=random"]
        rates = "optimizer.lr=1e-9,2e-9,3e-9,1e-3"  # of which three leave the same network: their scores are equal
        for n_trials in (3, 4):  # taken up again for more
            outcome = door("tune", *few, rates, f"n_trials={n_trials}")
            assert outcome.code == 0, outcome.err
            rows = trials(in_tmp)
            assert len(rows) == n_trials
            best = max(rows, key=lambda row: float(row["val_accuracy"]))["run"]  # of equal ones the first
            assert weights(in_tmp) == {
                row["run"]: {"best.ckpt", "last.ckpt"} if row["run"] == best else set() for row in rows
            }
        bare = SEARCH / next(row["run"] for row in rows if row["run"] != best)
        checkpoint = bare / "checkpoints/best.ckpt"
        for words in (["report", str(bare)], ["eval", f"checkpoint={checkpoint}"]):
            outcome = door(*words)
            assert outcome.code == 2
            assert outcome.err.startswith(f"error: checkpoint={checkpoint}: it does not exist.")
            assert len(outcome.err.splitlines()) == 1
        assert door("tune", *few, rates, "n_trials=2", "keep_weights=true", "name=all").code == 0
        (in_tmp / SEARCH).rename(in_tmp / "best_only")
        (in_tmp / "logs/tune/all").rename(in_tmp / SEARCH)
        assert sorted(map(len, weights(in_tmp).values())) == [1, 2]
        assert all("best.ckpt" in names for names in weights(in_tmp).values())

    def test_a_failed_trial_is_told_and_the_others_go_on(self, door: Door, options: list[str], in_tmp: Path) -> None:
        outcome = door("tune", *options, "search=null", "optimizer.lr=1e-3,1e30", "n_trials=2", "batch_size=8")
        assert outcome.code == 0, outcome.err
        assert sorted(row["state"] for row in trials(in_tmp)) == ["failed", "finished"]
        assert "the loss is NaN or infinite" in next(row["error"] for row in trials(in_tmp) if row["state"] == "failed")
        assert "the loss is NaN or infinite" in outcome.err

    def test_a_signal_stops_it_and_says_how_to_go_on(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            at_call(patch, "training_step", 2, send(signal.SIGTERM))
            outcome = door("tune", *options, "n_trials=1")
        assert outcome.code == 143
        assert "To continue the search, and its last trial: the same command." in outcome.err
        assert door("tune", *options, "n_trials=1").code == 0
        assert [row["state"] for row in trials(in_tmp)] == ["finished"]

    def test_a_database_and_a_journal_cut_in_the_middle_of_a_line(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for more in (["storage=sqlite:///trials.db"], []):
            assert door("tune", *options, *more, "n_trials=1", f"name=n{len(more)}").code == 0
        assert (in_tmp / "trials.db").exists()
        journal = in_tmp / "logs/tune/n0/study.journal"
        with journal.open("a") as file:
            file.write('{"op_code": 4, "wor')  # as a kill leaves it
        (journal.parent / "study.journal.lock").touch()  # likewise
        monkeypatch.setattr("src.sweeps.study.GRACE", 1)
        outcome = door("tune", *options, "n_trials=2", "name=n0")
        assert outcome.code == 0, outcome.err
        study = optuna.load_study(study_name="n0", storage=open_storage(journal.parent, None))
        assert len(study.trials) == 2

    def test_a_database_that_is_locked_is_waited_for(self, in_tmp: Path) -> None:
        storage = open_storage(in_tmp, "sqlite:///trials.db")
        assert isinstance(storage, RDBStorage)
        with storage.engine.connect() as connection:
            assert connection.exec_driver_sql("pragma busy_timeout").scalar() == 120_000

    def test_one_that_stays_locked_ends_the_search_in_a_sentence(
        self, door: Door, options: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def locked(*_: object) -> None:
            raise StorageInternalError from RuntimeError("database is locked\n(Background on this error at: ...)")

        monkeypatch.setattr("src.sweeps.search.ask", locked)
        outcome = door("tune", *options, "storage=sqlite:///trials.db", "n_trials=1")
        assert outcome.code == 2
        assert outcome.err == "error: storage=sqlite:///trials.db: database is locked. The same command goes on.\n"


@pytest.mark.usefixtures("without_pictures")
class TestWrong:
    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["n_trials=0"], "n_trials=0: expected"),
            (["n_trails=3"], "n_trails: there is no such key. Did you mean n_trials?"),
            (["optimizer.rl=interval(0.1,0.2)"], "optimizer.rl: there is no such key"),
            (["optimizer=adamw,adamm"], "optimizer=adamm: there is no such optimizer. Did you mean adam"),
            (["search=fast"], "search=fast: there is no such search"),
            (["sampler.seeds=3"], "sampler.seeds: there is no such key. Did you mean sampler.seed?"),
            (["search=null"], "search: there is nothing to vary"),
            (["devices=2"], "each trial of a search has one"),
            (["storage=nothing://x"], "storage=nothing://x"),
            (["storage=a.db"], "storage=a.db: expected an address, such as sqlite:///a.db."),
            (["storage=nothing://me:se@cret@x"], "storage=nothing://me:***@x: "),
            (["storage=nothing://x?password=secret"], "storage=nothing://x?password=***: "),
            (["search.seed=choice(1,2)"], "search.seed=choice(1,2): what varies is a key of train. Write seed=choice("),
            (["sampler=random,tpe"], "sampler=random,tpe: what varies is a key of train. Name one value."),
            (["seed=range(5,1)"], "error: seed=range(5,1): there is no number in that range."),
            (["optimizer.lr=interval(1,0.1)"], "error: optimizer.lr=interval(1,0.1): expected two finite numbers, the"),
            (["optimizer.lr=tag(log,interval(0,1))"], "interval(0,1)): expected numbers above 0"),
            (["name=a/b"], "name=a/b: expected"),
            (["loss.label_smoothing=interval(0.5,1.5)"], "loss.label_smoothing=1.5: expected a number between 0 and 1"),
            (["-m"], "a search takes KEY=VALUE"),
        ],
    )
    def test_request(self, door: Door, options: list[str], in_tmp: Path, words: list[str], sentence: str) -> None:
        outcome = door("tune", *options, *words)
        assert outcome.code == 2
        assert sentence in outcome.err
        assert "Traceback" not in outcome.err
        assert not list(in_tmp.glob("logs/tune/*"))

    def test_another_search_of_the_same_name(self, door: Door, options: list[str]) -> None:
        assert door("tune", *options, "n_trials=1").code == 0
        fixed = door("tune", *options, "n_trials=1", "model.dropout=0.1")
        assert fixed.code == 2
        assert "was begun with model.dropout=0.5, and this command says model.dropout=0.1" in fixed.err
        space = door("tune", *options, "n_trials=1", "batch_size=4,8")
        assert space.code == 2
        assert (
            "was begun with search.batch_size=choice(32, 64, 128), and this command says search.batch_size=4,8"
            in space.err
        )


class TestSeeds:
    @pytest.fixture
    def scores(self, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, int], float]:
        """Of four trials by their rate and seed: the best by one seed is not the best by more, nor is one of fewer."""
        base = check(compose("train", []).values, TrainConfig)

        def composed(search: Search, point: dict[str, Any]) -> TrainConfig:
            rate = base.optimizer.model_copy(update={"lr": point.get("optimizer.lr")})
            return base.model_copy(update={"optimizer": rate, "seed": point.get("seed", 1)})

        monkeypatch.setattr(Search, "compose", composed)  # takes longest
        monkeypatch.setattr("src.sweeps.search.save_pictures", lambda *_: None)
        first = {("0.1", 1): 0.9, ("0.2", 1): 0.8, ("0.3", 1): 0.7, ("0.4", 1): 0.75}
        again = {("0.1", 2): 0.5, ("0.2", 2): 0.8, ("0.4", 2): 0.7}
        return first | again | {(rate, 3): score for (rate, _), score in again.items()}

    def search(self, scores: dict[tuple[str, int], float], stop_at: int = 99, **more: int) -> tuple[list[str], bool]:
        """The folders of the runs that a search begins, each of which comes to its score at once, and whether it ended;
        it is killed as it begins the one that is named."""
        begun: list[str] = []

        def train(config: TrainConfig, folder: Path, command: str, callbacks: object) -> float:
            begun.append(folder.name)
            if len(begun) > stop_at:
                raise KeyboardInterrupt
            score = scores[f"{config.optimizer.lr}", config.seed]
            write_results(folder, score, seed=config.seed, test=False)
            for name in ("best.ckpt", "last.ckpt"):
                (folder / "checkpoints").mkdir(exist_ok=True)
                (folder / "checkpoints" / name).touch()
            return score

        words = ["search=null", "name=s", "sampler=random", *(f"{key}={value}" for key, value in more.items())]
        with suppress(KeyboardInterrupt):
            return begun, Search(Arguments("tune", (*words, "optimizer.lr=0.1,0.2,0.3,0.4", "n_trials=4"))).run(train)
        return begun, False

    def rates(self, in_tmp: Path) -> dict[str, str]:
        runs = Definition.read(in_tmp / SEARCH).runs
        return {name: options[0].partition("=")[2] for name, options in runs.items()}

    def test_the_best_three_are_run_again_and_the_best_is_so_by_all_seeds(
        self, in_tmp: Path, scores: dict[tuple[str, int], float], capsys: pytest.CaptureFixture[str]
    ) -> None:
        begun, ended = self.search(scores, n_seeds=3)
        assert ended
        rates = self.rates(in_tmp)
        again = [name for name in begun if "seed" in name]
        assert begun[4:] == again, "after all trials"
        assert sorted((rates[name], name[-6:]) for name in again) == [
            (rate, f"seed-{seed}") for rate in ("0.1", "0.2", "0.4") for seed in (2, 3)
        ]
        best = next(name for name, rate in rates.items() if rate == "0.2")
        text = (in_tmp / SEARCH / "experiment/best.yaml").read_text()
        assert f"# validation accuracy 80.00 % in {best} of 4\n" in text
        assert "lr: 0.2\n" in text
        assert "seed" not in text
        assert {name for name, kept in weights(in_tmp).items() if kept} == {best}
        assert "train with the best:" in capsys.readouterr().out
        assert self.search(scores, n_seeds=3) == ([], True), "none is repeated"
        assert self.search(scores) == ([], True)
        assert text == (in_tmp / SEARCH / "experiment/best.yaml").read_text()

    @pytest.mark.parametrize("stop_at", [2, 4, 6])
    def test_killed_at_any_it_ends_with_the_runs_of_one_that_was_not(
        self, in_tmp: Path, scores: dict[tuple[str, int], float], stop_at: int
    ) -> None:
        begun, ended = self.search(scores, stop_at, n_seeds=2)
        assert not ended
        kept = {self.rates(in_tmp)[name] for name, names in weights(in_tmp).items() if names}
        if stop_at > 3:
            assert kept == ({"0.1", "0.2", "0.4"} if stop_at == 4 else {"0.2", "0.4"}), "each that may become the best"
        more, ended = self.search(scores, n_seeds=2)
        assert ended
        assert more[0] == begun[-1]
        assert len({*begun, *more}) == 4 + 3
        assert not {*begun[:-1]} & {*more}

    def test_what_another_process_runs_is_left_to_it(self, in_tmp: Path, scores: dict[tuple[str, int], float]) -> None:
        self.search(scores)
        best = next(name for name, rate in self.rates(in_tmp).items() if rate == "0.1")
        folder = in_tmp / SEARCH / f"{best}-seed-2"
        folder.mkdir()
        with FileLock(folder / LOCK):
            begun, _ = self.search(scores, n_seeds=2)
            assert len(begun) == 2
            assert folder.name not in begun
        assert self.search(scores, n_seeds=2)[0] == [folder.name]

    def test_trials_of_other_processes_are_awaited(
        self, in_tmp: Path, scores: dict[tuple[str, int], float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun, _ = self.search(scores, 3, n_seeds=2)
        other = FileLock(in_tmp / SEARCH / begun[-1] / LOCK)
        other.acquire()
        monkeypatch.setattr("src.sweeps.search.time.sleep", lambda _: other.release())  # it is killed
        more, ended = self.search(scores, n_seeds=2)
        assert ended
        assert [more[0], len(more)] == [begun[-1], 4], "and its trial is taken up before the best are chosen"

    def test_one_that_fails_is_told_and_stops_no_other(
        self, in_tmp: Path, scores: dict[tuple[str, int], float], capsys: pytest.CaptureFixture[str]
    ) -> None:
        begun, ended = self.search({key: score for key, score in scores.items() if key != ("0.2", 2)}, n_seeds=2)
        assert ended
        assert len(begun) == 7
        assert [row["state"] for row in trials(in_tmp)].count("failed") == 1
        assert "KeyError" in capsys.readouterr().err
        assert self.search(scores, n_seeds=2)[0] == []

    def test_a_search_over_seeds_is_refused(self, in_tmp: Path) -> None:
        with pytest.raises(UserError, match=r"^n_seeds=3: the search varies seed itself\. Leave out one of both\.$"):
            Search(Arguments("tune", ("search=null", "seed=1,2", "n_seeds=3")))

    def test_each_has_the_seed_of_its_folder_in_its_command(self, in_tmp: Path) -> None:
        search = Search(Arguments("tune", ("search=null", "seed=5", "optimizer.lr=0.1,0.2", "n_seeds=3")))
        assert search.compose({"optimizer.lr": 0.1, "seed": 6}).seed == 6
        overrides = written(search._overrides({"optimizer.lr": 0.1, "seed": 6}))
        assert overrides == ["test=false", "report=false", "optimizer.lr=0.1", "seed=6"]


@pytest.mark.parametrize(("mode", "direction"), [("min", "MINIMIZE"), ("max", "MAXIMIZE")])
def test_a_study_looks_for_what_the_monitor_calls_better(in_tmp: Path, mode: str, direction: str) -> None:
    config = check(compose("tune", ["name=s"]).values, TuneConfig)
    assert open_study(in_tmp, config, mode).direction.name == direction


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_each_trial_of_a_seeded_search_is_at_a_point_of_its_own_and_the_same_in_each_search(sampler: str) -> None:
    config = check(compose("tune", [f"sampler={sampler}", "++sampler.seed=3", "n_trials=4"]).values, TuneConfig)
    space, searches = read_space({"a": "interval(0.0, 1.0)"}), []
    for _ in range(2):
        study, points = optuna.create_study(), []
        while (trial := ask(study, space, config)) is not None:
            points.append(trial.params["a"])
            study.tell(trial, 0.5)
        searches.append(points)
        assert len(study.trials) == 4, "none was drawn twice and left out"
    assert searches[0] == searches[1]
    assert len(set(searches[0])) == 4


def test_the_experiment_of_the_best_has_what_was_found_and_nothing_of_this_machine(in_tmp: Path) -> None:
    fixed = ["experiment=quick", "optimizer=sgd", "trainer.max_epochs=3", "num_workers=2", "device=cpu", "logger=csv"]
    search = Search(Arguments("tune", (*fixed, "search=null", "optimizer.lr=0.1,0.2", "name=s")))
    search.folder.mkdir(parents=True)
    save_best(
        search.folder, search._overrides({"optimizer.lr": "0.2"}), "validation accuracy 50.00 % in trial-001 of 4"
    )
    text = (search.folder / "experiment/best.yaml").read_text()
    assert "# validation accuracy 50.00 % in trial-001 of 4" in text
    found = yaml.safe_load(text)
    assert found.pop("defaults") == ["quick", {"override /optimizer": "sgd"}, {"override /logger": "csv"}]
    assert found == {"trainer": {"max_epochs": 3}, "optimizer": {"lr": 0.2}}


def test_the_pictures_of_a_search_have_whole_words_and_say_what_was_monitored(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: dict[str, set[str]] = {}

    def look(figure: Any, path: Path) -> None:
        save(figure, path)
        words[path.stem] = {word.get_text() for word in figure.findobj(Text)}

    monkeypatch.setattr("src.results.figures.canvas.save", look)
    study, keys = optuna.create_study(direction="maximize"), ["loss.label_smoothing", "model.dropout"]
    for score in (0.5, 0.75):
        study.tell(study.ask({key: FloatDistribution(0.0, 0.5) for key in keys}), score)
    save_pictures(study, in_tmp, "val/acc")
    assert {"0", "1", "validation accuracy", "70.0 %"} <= words["history"]
    assert "0.5" not in words["history"]
    for name in ("importances", "parallel"):
        assert {"validation accuracy", *keys} <= words[name]
        pixels = np.asarray(Image.open(in_tmp / f"{name}.png").convert("L"))
        assert min(pixels[0].min(), pixels[-1].min(), pixels[:, 0].min(), pixels[:, -1].min()) == 255, "none is cut"


def test_a_trial_that_is_left_out_or_waits_is_none_that_counts() -> None:
    study = optuna.create_study()
    kept, repeated = study.ask(), study.ask()
    study.enqueue_trial({"a": 1})
    leave_out(study, repeated)
    assert [trial.number for trial in real_trials(study)] == [kept.number]
