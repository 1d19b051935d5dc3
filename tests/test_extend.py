"""What docs/extend.md shows goes in as it stands: it is checked, trained, resumed, scored, and trusted rightly."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from src.config.groups import GROUPS
from src.model.classifier import Classifier
from src.results.intervals import shown
from tests.conftest import ROOT, SHORT, Outcome, results_of, train_in, write_folder
from tests.crash import compare

Door = Callable[..., Outcome]
TEXT = (ROOT / "docs" / "extend.md").read_text()
FILES = dict(re.findall(r"^`(mine/\S+)`\n\n```\w+\n(.*?)```", TEXT, re.MULTILINE | re.DOTALL))
COMMANDS = re.findall(r"^    python -m src\.train (--config-dir .*)$", TEXT, re.MULTILINE)
SIZES = re.findall(r"(\d+) lines(?: and| of| and) (\d+) of YAML|No file, and (\d+) lines of YAML", TEXT)


@contextmanager
def files_of_the_page(folder: Path) -> Iterator[Path]:
    """All of them in `folder`, which Python finds, and images beside them."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    write_folder(folder / "images", classes=3, count=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


@pytest.fixture
def mine(in_tmp: Path) -> Iterator[Path]:
    """A folder beside the project with all of the page's files."""
    with files_of_the_page(in_tmp):
        yield in_tmp


@pytest.fixture(scope="module")
def polys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with the loss of the page; not to be written to."""
    with files_of_the_page(tmp_path_factory.mktemp("polys")) as folder:
        return train_in(folder, *words_of(COMMANDS[0]))


def words_of(command: str) -> list[str]:
    """The words of a command of the page, with what makes it short, where it chooses nothing else."""
    words = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", command)]
    named = {word.partition("=")[0] for word in words}
    small = [text for text in SHORT if not (text.startswith(("model.", "dataset.image_size")) and "model" in named)]
    small = [text for text in small if not (text == "callbacks=none" and "callbacks" in named)]
    if "dataset" not in named:
        small += ["dataset=image_folder", "data_dir=images"]
    return [*words[:2], *small, *words[2:]]


def stop_at(patch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Have a signal come in the step of this number."""
    calls, step = iter(range(1, 1_000)), getattr(Classifier, name)

    def stopped(*arguments: Any) -> Any:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    patch.setattr(Classifier, name, stopped)


def said(text: str, title: str) -> list[str]:
    """The words of the command that a door has said after a title, but for `python -m src.DOOR`."""
    line = next(line for line in text.splitlines() if title in line)
    return shlex.split(line.partition(title)[2])[3:]


def name_of(command: str) -> str:
    return command.split()[2].partition("=")[0].replace("/", "_")


@pytest.mark.parametrize("command", COMMANDS, ids=name_of)
def test_a_part_of_ones_own_trains_and_is_scored(door: Door, mine: Path, command: str) -> None:
    trained = door("train", *words_of(command), "hydra.run.dir=r")
    assert trained.code == 0, trained.err
    scored = door("eval", *said(trained.out, "evaluate: "))
    assert scored.code == 0, scored.err
    assert f"accuracy {results_of(mine / 'r')['test']['accuracy']}, " in scored.out


@pytest.mark.parametrize("rooms", [True, False], ids=["network and images", "all others"])
def test_parts_of_ones_own_together_resume_exactly_and_are_reported(
    door: Door, mine: Path, rooms: bool, monkeypatch: pytest.MonkeyPatch, unpainted: None
) -> None:
    parts = [command for command in COMMANDS if (name_of(command) in ("model", "dataset")) == rooms]
    assert len(parts) == (2 if rooms else len(COMMANDS) - 2)
    together = " ".join(["--config-dir mine/configs", *(part.split(maxsplit=2)[2] for part in parts)])
    words = [*words_of(together), "trainer.max_epochs=2"]
    assert door("train", *words, "hydra.run.dir=whole").code == 0
    with monkeypatch.context() as patch:
        stop_at(patch, "training_step", 4)
        stopped = door("train", *words, "hydra.run.dir=killed")
        assert stopped.code == 143
    going_on = door("train", *said(stopped.err.replace(":\n", ": "), "To continue: "))
    assert going_on.code == 0, going_on.err
    compare(mine / "whole", mine / "killed")
    scored = door("eval", *said(going_on.out, "evaluate: "))
    assert scored.code == 0, scored.err
    assert f"accuracy {results_of(mine / 'whole')['test']['accuracy']}, " in scored.out
    again = door("report", "--config-dir", "mine/configs", "killed")
    assert (again.code, again.out.strip()) == (0, "killed/report.html"), again.err
    words = ["--config-dir", "mine/configs", "checkpoint=killed/checkpoints/best.ckpt", "input=images"]
    assert door("predict", *words).code == 0


def test_each_group_has_an_example_and_its_size_is_what_the_page_says() -> None:
    shown = {Path(name).parts[2] for name in FILES if name.startswith("mine/configs/")}
    assert shown >= {group.partition("/")[0] for group in GROUPS} - {"sampler", "pruner"}
    for section in TEXT.split("\n## ")[1:]:
        found = re.search(r"(\d+)\s+lines\s+and\s+(\d+)\s+of\s+YAML|No file, and (\d+)\s+lines\s+of\s+YAML", section)
        if not found:
            continue
        files = dict(re.findall(r"^`(mine/\S+)`\n\n```\w+\n(.*?)```", section, re.MULTILINE | re.DOTALL))
        lines = {".py": 0, ".yaml": 0}
        for name, text in files.items():
            lines[Path(name).suffix] += text.count("\n")
        said = [int(found[1] or 0), int(found[2] or found[3])]
        assert said == list(lines.values()), section.splitlines()[0]
        assert lines[".yaml"] <= 10


@pytest.mark.parametrize(
    ("typo", "sentence"),
    [
        ("loss=poly loss.epsilom=1", "loss.epsilom: there is no such key. Did you mean loss.epsilon?"),
        ("loss=poly loss.epsilon=much", "loss.epsilon=much: expected a number."),
        ("model=perceptron model.hiden=1", "Did you mean model.hidden?"),
        ("dataset=stripes dataset.cuont=1", "Did you mean dataset.count?"),
        ("optimizer=signsgd optimizer.weigth_decay=1", "Did you mean optimizer.weight_decay?"),
        ("scheduler=triangle scheduler.peek=1", "Did you mean scheduler.peak?"),
        (
            "dataset/augmentation=noise dataset.augmentation.noise.levle=1",
            "Did you mean dataset.augmentation.noise.level?",
        ),
        ("metrics=kappa metrics.kappa.wheights=none", "Did you mean metrics.kappa.weights?"),
        ("metrics=kappa monitor=val/kapa", "Did you mean val/kappa?"),
        ("loss=pol", "loss=pol: there is no such loss. Did you mean poly?"),
    ],
)
def test_a_typo_in_ones_own_is_answered(door: Door, mine: Path, typo: str, sentence: str) -> None:
    outcome = door("train", "--config-dir", "mine/configs", *typo.split())
    assert outcome.code == 2
    assert sentence in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_typo_is_answered_before_torch_is_imported(mine: Path) -> None:
    program = (
        "import runpy, sys\n"
        "sys.argv = ['train', '--config-dir', 'mine/configs', 'loss=poly', 'metrics=kappa', 'loss.epsilom=1']\n"
        "try:\n    runpy.run_module('src.train', run_name='__main__')\n"
        "except SystemExit:\n    print('torch' in sys.modules, 'mine.losses' in sys.modules)\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{mine}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", program], cwd=mine, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_a_callback_reads_the_metrics_of_the_epoch_that_has_ended(door: Door, mine: Path) -> None:
    (mine / "reading.py").write_text(
        "from pathlib import Path\n\nimport lightning as L\n\n\nclass Read(L.Callback):\n"
        "    def on_train_epoch_end(self, trainer, module):\n"
        "        with Path('read.txt').open('a') as file:\n"
        "            print(float(trainer.callback_metrics['train/loss']), file=file)\n"
    )
    words = ["dataset=image_folder", "data_dir=images", "+callbacks.read._target_=reading.Read", "hydra.run.dir=r"]
    outcome = door("train", *SHORT, *words, "trainer.max_epochs=2")
    assert outcome.code == 0, outcome.err
    losses = pd.read_csv("r/metrics.csv")["train/loss"].tolist()
    assert [float(line) for line in Path("read.txt").read_text().split()] == pytest.approx(losses)


class TestWhatIsWrongWithOnesOwn:
    """It is said before a file is written."""

    @pytest.mark.parametrize(
        ("text", "words", "sentence"),
        [
            (
                "def part(logits, labels):\n    return logits",
                ["loss._target_=own.part"],
                "it gives a tensor of shape [2, 3]",
            ),
            ("part = 3", ["loss._target_=own.part"], "loss"),
            (
                "class part:\n    pass",
                ["metrics.m._target_=own.part"],
                ".part: that is no metric",
            ),
            (
                "from torchmetrics.classification import MulticlassRecall as part",
                ["metrics.m._target_=own.part", "metrics.m.average=none"],
                "metrics.m: it gives [3] numbers; expected one",
            ),
            ("class part:\n    pass", ["callbacks.c._target_=own.part"], "that is no callback"),
            (
                "from lightning.pytorch import callbacks\n\n\nclass part(callbacks.LearningRateFinder):\n    pass",
                ["callbacks.c._target_=own.part"],
                "Search for it: python -m src.tune",
            ),
            ("class part:\n    pass", ["logger.l._target_=own.part"], ".part is no logger"),
            (
                "def part(in_channels, num_classes):\n    return 3",
                ["model.name=own", "model._target_=own.part"],
                "that is no network",
            ),
        ],
    )
    def test_it_is_refused_in_a_sentence(
        self, door: Door, mine: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: list[str], sentence: str
    ) -> None:
        module = f"own_{abs(hash(text))}"  # a signature is read once
        (mine / f"{module}.py").write_text(f"{text}\n")
        words = [word.replace("=own.part", f"={module}.part") for word in words]
        small = [text for text in SHORT if not (text.startswith("model.") and "model.name=own" in words)]
        if "model.name=own" in words:
            words = [*words, "~model.widths", "~model.hidden", "~model.batch_norm", "~model.padding", "~model.dropout"]
        outcome = door("train", *small, "dataset=image_folder", "data_dir=images", *words, "hydra.run.dir=r")
        assert outcome.code == 2, outcome.err
        assert sentence in outcome.err
        assert "Traceback" not in outcome.err
        assert not (mine / "r").exists()

    @pytest.mark.parametrize(
        ("labels", "words"),
        [
            ("torch.rand(30)", "float32 [30] from"),
            ("torch.zeros(30, 2, dtype=torch.int64)", "int64 [30, 2] from 0 to 0"),
            ("torch.arange(30)", "int64 [30] from 0 to 29"),
        ],
    )
    def test_labels_that_are_no_classes_are_refused(
        self, door: Door, mine: Path, monkeypatch: pytest.MonkeyPatch, labels: str, words: str
    ) -> None:
        source = FILES["mine/data.py"].replace("labels = torch.arange(count) % 2", f"labels = {labels}")
        source = re.sub(r"images = .*\n", "images = torch.zeros(30, 1, 28, 28, dtype=torch.uint8)\n", source)
        (mine / "mine/data.py").write_text(source)
        outcome = door("train", "--config-dir", "mine/configs", "dataset=stripes", *SHORT, "hydra.run.dir=r")
        assert outcome.code == 2
        assert f"dataset=stripes: its labels are torch.{words}" in outcome.err
        assert "expected a class from 0 to 1 of each image" in outcome.err
        assert not (mine / "r").exists()


class TestTrust:
    """A stranger's checkpoint, and his run's folder, name only what this clone names."""

    @pytest.fixture
    def run(self, mine: Path, polys: Path) -> Path:
        return shutil.copytree(polys, mine / "r")

    def test_ones_own_package_is_named_by_a_yaml_or_it_is_not_called(self, door: Door, run: Path) -> None:
        for words in (["resume=r", "trainer.max_epochs=2"], ["resume=r"]):
            outcome = door("train", *words)
            assert outcome.code == 2
            assert "loss._target_=mine.losses.poly: no YAML file here names it" in outcome.err
        assert door("eval", "checkpoint=r/checkpoints/best.ckpt").code == 2
        assert door("eval", "--config-dir", "mine/configs", "checkpoint=r/checkpoints/best.ckpt").code == 0
        named = ["loss._target_=mine.losses.poly", "resume=r", "trainer.max_epochs=2"]
        assert door("train", *named).code == 0, "the command line names it"

    @pytest.mark.parametrize(
        ("group", "value"),
        [
            ("loss", {"_target_": "strange.trap"}),
            ("loss", {"_target_": "torch.hub.load"}),
            ("model", {"name": "x", "_target_": "timm.create_model", "model_name": "hf_hub:a/b"}),
            ("model", {"name": "x", "_target_": "src.model.library.timm", "arch": "hf_hub:a/b", "drop_rate": None}),
            ("callbacks", {"checkpoint_minutes": 1.0, "checkpoint_steps": None, "c": {"_target_": "strange.Trap"}}),
            ("logger", {"l": {"_target_": "strange.Trap"}}),
            ("metrics", {"m": {"_target_": "strange.Trap"}}),
            ("metrics", {"m": {"_target_": "torchmetrics.classification.MulticlassAccuracy", "average": "a.pth"}}),
            ("optimizer", {"name": "x", "_target_": "strange.trap", "lr": 1.0, "weight_decay": 0.0}),
            ("scheduler", {"name": "x", "_target_": "os.system"}),
        ],
    )
    def test_what_a_stranger_names_is_neither_imported_nor_called(
        self, door: Door, run: Path, group: str, value: dict[str, Any]
    ) -> None:
        (run.parent / "strange.py").write_text("from pathlib import Path\n\nPath('trap').touch()\n")
        for name in ("best.ckpt", "last.ckpt"):
            content = torch.load(run / "checkpoints" / name, weights_only=True)
            content["about"]["config"] |= {group: value, "monitor": "val/acc"}
            torch.save(content, run / "checkpoints" / name)
        (run / "config.yaml").write_text(json.dumps(content["about"]["config"]))
        doors = {
            "eval": ["checkpoint=r/checkpoints/best.ckpt"],
            "train": ["resume=r", "trainer.max_epochs=2"],
            "predict": ["checkpoint=r/checkpoints/best.ckpt", "input=images"],
            "export": ["checkpoint=r/checkpoints/best.ckpt", "output=x.pt2", "format=torch_export"],
            "report": ["r"],
        }
        # all but train read a checkpoint by the same function
        for name in doors if value == {"_target_": "strange.trap"} else ("eval", "train"):
            more = [] if name == "report" else ["--config-dir", "mine/configs"]
            outcome = door(name, *more, *doors[name])
            assert outcome.code == 2, outcome
            assert "Traceback" not in outcome.err
        assert not (run.parent / "trap").exists()
        assert "strange" not in sys.modules


class TestMonitor:
    """Everything that is best is best of one thing."""

    @pytest.fixture
    def options(self, images_folder: Path) -> list[str]:
        return ["dataset=image_folder", f"data_dir={images_folder}", *SHORT, "trainer.max_epochs=3"]

    def rows(self, run: Path, key: str) -> list[float]:
        with (run / ("steps.csv" if "rate" in key else "metrics.csv")).open(newline="") as file:
            return [float(row[key]) for row in csv.DictReader(file) if row[key]]

    def test_the_best_checkpoint_is_that_of_the_lowest_loss(self, door: Door, options: list[str], in_tmp: Path) -> None:
        assert door("train", *options, "monitor=val/loss", "metrics=imbalanced", "hydra.run.dir=r").code == 0
        results = results_of(in_tmp / "r")
        losses = self.rows(in_tmp / "r", "val/loss")
        assert results["monitor"] == {"name": "val/loss", "mode": "min", "value": min(losses)}
        best = losses.index(min(losses))
        assert results["val"]["accuracy"] == self.rows(in_tmp / "r", "val/acc")[best]
        assert results["val"]["metrics"]["f1"] == self.rows(in_tmp / "r", "val/f1")[best]
        assert results["test"]["metrics"].keys() == {"f1", "balanced_acc", "lowest_recall"}

    def test_metrics_are_on_the_screen_in_eval_and_in_the_report(
        self, door: Door, options: list[str], in_tmp: Path, unpainted: None
    ) -> None:
        outcome = door("train", *options, "metrics=imbalanced", "monitor=val/f1", "report=true", "hydra.run.dir=r")
        assert outcome.code == 0, outcome.err
        results = results_of(in_tmp / "r")
        score = shown(results["test"]["metrics"]["f1"], results["test"]["intervals"]["f1"])
        assert f"test f1             {score}" in outcome.out
        assert "by validation f1 (" in outcome.out
        assert "val f1" in outcome.out
        scored = door("eval", "checkpoint=r/checkpoints/best.ckpt").out
        for name, value in results["test"]["metrics"].items():
            assert re.search(rf"{name} +{str(value)[:7]}", scored), scored
        page = (in_tmp / "r/report.html").read_text()
        assert "test f1" in page
        assert score.partition(" (")[0] in page

    def test_a_sweep_orders_by_it(self, door: Door, options: list[str], in_tmp: Path, unpainted: None) -> None:
        words = ["monitor=val/loss", "optimizer.lr=1e-5,3e-3", "hydra.sweep.dir=s", "metrics=imbalanced"]
        outcome = door("train", "-m", *options, *words)
        assert outcome.code == 0, outcome.err
        with (in_tmp / "s/summary.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        best = min(rows, key=lambda row: float(row["val_loss"]))
        assert f"train the best setting:\n  {best['command']}\n" in outcome.out
        assert {"val_f1", "test_f1", "val_loss", "val_accuracy"} <= best.keys()
        table = (in_tmp / "s/summary.md").read_text()
        assert "test f1" in table
        assert table.index(best["optimizer.lr"]) < table.index(next(row["optimizer.lr"] for row in rows if row != best))

    def test_a_search_looks_for_it_and_early_stopping_waits_for_it(
        self, door: Door, options: list[str], in_tmp: Path, unpainted: None
    ) -> None:
        words = ["monitor=val/loss", "search=null", "optimizer.lr=1e-5,3e-3", "n_trials=2", "name=s"]
        outcome = door("tune", *options, *words, "callbacks=early_stopping", "callbacks.early_stopping.patience=1")
        assert outcome.code == 0, outcome.err
        with (in_tmp / "logs/tune/s/trials.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        best = min(rows, key=lambda row: float(row["val_loss"]))
        experiment = (in_tmp / "logs/tune/s/experiment/best.yaml").read_text()
        assert f"validation loss {float(best['val_loss']):.4f} in {best['run']} of 2" in experiment
        more = ["monitor=val/loss", "callbacks=early_stopping", "hydra.run.dir=r"]
        assert door("train", *options, *more).code == 0
        content = torch.load(in_tmp / "r/checkpoints/last.ckpt", weights_only=True)
        state = next(state for name, state in content["callbacks"].items() if name.startswith("EarlyStopping"))
        assert "'monitor': 'val/loss'" in next(
            name for name in content["callbacks"] if name.startswith("EarlyStopping")
        )
        assert float(state["best_score"]) == pytest.approx(min(self.rows(in_tmp / "r", "val/loss")))

    def test_a_plateau_of_it_lowers_the_rate_also_after_a_stop_in_validation(
        self, door: Door, options: list[str], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        words = ["scheduler=reducelronplateau", "scheduler.patience=0", "scheduler.threshold=0.9", "batch_size=4"]
        words += ["trainer.log_every_n_steps=1"]
        outcome = door("train", *options, *words, "hydra.run.dir=r")
        assert outcome.code == 0, outcome.err
        rates = self.rows(in_tmp / "r", "train/learning_rate")
        assert rates[0] == pytest.approx(3e-4)
        assert rates[-1] == pytest.approx(3e-5)
        with monkeypatch.context() as patch:
            stop_at(patch, "validation_step", 3)  # of the second validation
            assert door("train", *options, *words, "hydra.run.dir=q").code == 143
        assert door("train", "resume=q").code == 0
        compare(in_tmp / "r", in_tmp / "q")


def test_a_state_that_no_run_could_go_on_from_ends_the_run_at_its_first_checkpoint(
    door: Door, mine: Path, in_tmp: Path
) -> None:
    text = "import lightning as L\n\n\nclass Odd(L.Callback):\n    def state_dict(self):\n        return {'it': L}\n"
    (mine / "odd_callback.py").write_text(text)
    words = ["dataset=image_folder", "data_dir=images", *SHORT, "callbacks.odd._target_=odd_callback.Odd"]
    outcome = door("train", *words, "hydra.run.dir=r")
    assert outcome.code == 1
    assert "the callback Odd has a state that no run could go on from. Give it a state_dict() of" in outcome.err
    assert "Traceback" not in outcome.err


def test_the_five_best_answers_need_five_classes(door: Door, in_tmp: Path, images_folder: Path) -> None:
    write_folder(in_tmp / "six", classes=6, count=12)
    words = ["dataset=image_folder", *SHORT, "metrics=top5"]
    assert door("train", *words, "data_dir=six", "hydra.run.dir=r").code == 0
    results = results_of(in_tmp / "r")
    assert results["test"]["metrics"]["top5"] >= results["test"]["accuracy"]
    outcome = door("train", *words, f"data_dir={images_folder}", "hydra.run.dir=q")
    assert outcome.code == 2
    assert outcome.err.startswith("error: metrics.top5: ")


def test_groups_of_weights_have_rates_of_their_own_and_all_are_logged(
    door: Door, images_folder: Path, in_tmp: Path
) -> None:
    words = [
        "dataset=image_folder",
        f"data_dir={images_folder}",
        *SHORT,
        "scheduler=constant",
        "trainer.log_every_n_steps=1",
    ]
    groups = "optimizer.groups=[{match: '^classifier', lr: 1e-5}, {match: 'features.0', lr: 0.0}]"
    outcome = door("train", *words, groups, "optimizer.decay_bias_and_norm=false", "hydra.run.dir=r")
    assert outcome.code == 0, outcome.err
    content = torch.load(in_tmp / "r/checkpoints/last.ckpt", weights_only=True)
    found = {
        group["name"]: (group["lr"], group["weight_decay"]) for group in content["optimizer_states"][0]["param_groups"]
    }
    assert found == {
        "^classifier": (1e-5, 0.01),
        "^classifier without decay": (1e-5, 0.0),
        "features.0": (0.0, 0.01),
        "features.0 without decay": (0.0, 0.0),
        "others": (3e-4, 0.01),
        "others without decay": (3e-4, 0.0),
    }
    header = (in_tmp / "r/steps.csv").read_text().splitlines()[0]
    assert all(f"train/learning_rate/{name}" in header for name in found)
    outcome = door("train", *words, "optimizer.groups=[{match: nothing, lr: 1.0}]", "hydra.run.dir=q")
    assert outcome.code == 2
    assert "optimizer.groups: 'nothing' matches no weight. One is called classifier.6.bias." in outcome.err


def test_the_best_of_a_search_is_trained_by_the_command_that_it_says(door: Door, mine: Path, unpainted: None) -> None:
    words = [*words_of(COMMANDS[0])[:-1], "search=null", "loss.epsilon=0.1,0.2", "n_trials=2", "name=s"]
    outcome = door("tune", *words)
    assert outcome.code == 0, outcome.err
    again = door("train", *said(outcome.out.replace("best:\n  ", "best: "), "train with the best: "), "hydra.run.dir=r")
    assert again.code == 0, again.err
    assert "mine.losses.poly" in (mine / "r/config.yaml").read_text()


def test_losses_and_metrics_see_single_precision(door: Door, mine: Path) -> None:
    (mine / "single.py").write_text(SINGLE)
    words = ["dataset=image_folder", "data_dir=images", *SHORT, "precision=bf16-mixed", "loss._target_=single.loss"]
    outcome = door("train", *words, "metrics.m._target_=single.Kind", "hydra.run.dir=r")
    assert outcome.code == 0, outcome.err
    assert results_of(mine / "r")["test"]["metrics"] == {"m": 32.0}


SINGLE = """
import torch
from torchmetrics import MeanMetric


def loss(logits, labels):
    assert logits.dtype == torch.float32
    return torch.nn.functional.cross_entropy(logits, labels)


class Kind(MeanMetric):
    higher_is_better = True

    def update(self, logits, labels):
        super().update(float(torch.finfo(logits.dtype).bits))
"""


@pytest.mark.parametrize("name", ["nadam", "adagrad", "radam"])
def test_any_optimizer_of_torchs_goes_by_its_lower_case_name(
    door: Door, images_folder: Path, in_tmp: Path, name: str
) -> None:
    words = ["dataset=image_folder", f"data_dir={images_folder}", *SHORT, f"optimizer={name}", "hydra.run.dir=r"]
    assert door("train", *words).code == 0
    assert results_of(in_tmp / "r")["optimizer"] == name


def test_one_that_takes_no_such_weights_says_so(door: Door, images_folder: Path, in_tmp: Path) -> None:
    words = ["dataset=image_folder", f"data_dir={images_folder}", *SHORT, "optimizer=muon", "hydra.run.dir=r"]
    outcome = door("train", *words)
    assert outcome.code == 2
    assert "optimizer or scheduler: Muon only supports 2D parameters" in outcome.err
    assert not (in_tmp / "r").exists()


class TestLosses:
    def test_classes_are_weighed_by_how_rare_they_are(self) -> None:
        from src.model.losses import CrossEntropy

        logits, labels = torch.randn(8, 3), torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
        weight = torch.tensor([8 / (3 * 4), 8 / (3 * 2), 8 / (3 * 2)])
        expected = torch.nn.functional.cross_entropy(logits, labels, weight)
        assert torch.allclose(CrossEntropy([4, 2, 2], class_weights="balanced")(logits, labels), expected)
        assert torch.allclose(CrossEntropy([4, 2, 2], class_weights=weight.tolist())(logits, labels), expected)
        with pytest.raises(ValueError, match=r"loss\.class_weights has 1 numbers: expected 3, one a class"):
            CrossEntropy([4, 2, 2], class_weights=[1.0])

    def test_focal_is_cross_entropy_where_gamma_is_0_and_takes_shares_of_classes(self) -> None:
        from src.model.losses import focal

        logits, labels = torch.randn(8, 3), torch.randint(0, 3, (8,))
        shares = torch.nn.functional.one_hot(labels, 3).float()
        assert torch.allclose(focal(logits, labels, 0.0), torch.nn.functional.cross_entropy(logits, labels))
        assert torch.allclose(focal(logits, labels), focal(logits, shares))
        assert focal(logits, labels, 2.0) < focal(logits, labels, 1.0)

    @pytest.mark.parametrize("loss", ["cross_entropy", "focal", "label_smoothing"])
    @pytest.mark.parametrize("mix", ["mixup", "cutmix"])
    def test_every_loss_takes_images_that_are_mixed(self, door: Door, images_folder: Path, loss: str, mix: str) -> None:
        words = ["dataset=image_folder", f"data_dir={images_folder}", *SHORT, f"loss={loss}", "trainer.max_steps=2"]
        outcome = door("train", *words, f"dataset/augmentation={mix}", "test=false")
        assert outcome.code == 0, outcome.err


def test_help_of_an_option_shows_its_keys_and_whether_it_takes_others(door: Door, mine: Path) -> None:
    outcome = door("train", "--config-dir", "mine/configs", "--help", "loss=poly", "metrics=kappa")
    assert outcome.code == 0, outcome.err
    assert "loss.epsilon=1.0" in outcome.out
    assert "metrics.kappa.weights=null" in outcome.out
    assert "metrics.kappa: and any other that it takes" in outcome.out


@pytest.mark.slow
def test_the_package_can_be_renamed_by_the_command_of_the_page(tmp_path: Path) -> None:
    command = re.search(r"^    (git mv src mine && .*?) && make train$", TEXT, re.MULTILINE)
    assert command
    yours = {".git", ".venv", "logs", "data"}  # of the clone, beside its own files
    shutil.copytree(ROOT, tmp_path / "p", ignore=lambda at, _: yours if Path(at) == ROOT else {"__pycache__"})
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    for words in ("git init -q && git add -A", command[1], "python -m mine.train --cfg job", SMALL):
        line = words.replace("python", sys.executable, 1) if words.startswith("python") else words
        done = subprocess.run(line, shell=True, cwd=tmp_path / "p", env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "python -m mine.train" in results_of(tmp_path / "p/logs/r")["command"]


SMALL = "python -m mine.train experiment=quick trainer.max_steps=2 trainer.limit_val_batches=1 "
SMALL += "trainer.limit_test_batches=1 'model.widths=[1,1,1,1,1]' model.hidden=8 report=false hydra.run.dir=logs/r"


def test_nothing_but_imports_names_the_package() -> None:
    import ast

    for path in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(path.read_text())
        docs = {
            node.body[0].value
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docs:
                assert not re.search(r"\bsrc[./]", node.value), f"{path}:{node.lineno}"
