"""Wrong requests end in one or two sentences, exit code 2, and before torch is imported."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from src.config.check import check, direction, flat, plain
from src.config.compose import compose, configure, declared, grid, parse
from src.config.errors import UserError
from src.config.folder import is_free
from src.config.groups import command
from src.config.paths import for_shell, option, quoted
from src.config.process import FOLDER
from src.config.schema import CONFIGS, TrainConfig, TuneConfig
from tests.conftest import ROOT, Outcome

Door = Callable[..., Outcome]

WRONG = [
    ("dataset=mnits", "dataset=mnits: there is no such dataset. Did you mean mnist?"),
    ("model=alexnett", "Did you mean alexnet?"),
    ("datset=mnist", "datset: there is no such key. Did you mean dataset?"),
    ("bach_size=3", "bach_size: there is no such key. Did you mean batch_size?"),
    ("+bach_size=3", "bach_size: there is no such key. Did you mean batch_size?"),
    ("++bach_size=3", "bach_size: there is no such key. Did you mean batch_size?"),
    ("optimizer.lrr=1", "optimizer.lrr: there is no such key. Did you mean optimizer.lr?"),
    ("lr=1", "lr: there is no such key. Did you mean optimizer.lr?"),
    ("dropout=.1", "dropout: there is no such key. Did you mean model.dropout?"),
    ("optimizer.momentum=0.9", "optimizer.momentum: there is no such key. There are: name, lr, weight_decay, groups,"),
    ("scheduler.step_size=3", "scheduler.step_size: there is no such key. There are: name, warmup, final."),
    ("n_trials=3", "n_trials: there is no such key. --help shows what can be said."),
    ("sampler=tpe", "sampler: there is no such key."),
    ("hydra.run.dirr=x", "hydra.run.dirr: there is no such key."),
    ("hydra.job.chdir=true", "hydra.job.chdir: a run works in the folder that its paths are seen from."),
    ("-m seed=1,2 hydra.job.chdir=true", "hydra.job.chdir: a run works in the folder that its paths are seen from."),
    ("data_dir=", "data_dir=: expected a value."),
    ("model.name=", "model.name=: expected a value."),
    ("optimizer=", "optimizer=: there is no such optimizer. There are: adadelta, "),
    ("seed=", "seed=: expected a number between 0 and 4294967295."),
    ("trainer.max_epoch=1", "Did you mean trainer.max_epochs?"),
    ("dataset.valid_fraction=1", "dataset.valid_fraction=1: expected a number above 0 and below 1."),
    ("batch_size=0", "batch_size=0: expected a number greater than 0."),
    ("batch_size=many", "batch_size=many: expected a whole number."),
    ("batch_size=1.5", "batch_size=1.5: expected a whole number."),
    ("batch_size=true", "batch_size=true: expected a whole number."),
    ("seed=-1", "seed=-1: expected a number between 0 and"),
    ("seed=1,2", "seed=1,2: several values are a sweep; add -m"),
    ("trainer.max_epochs=null", "trainer.max_epochs=null: expected a whole number."),
    ("device=gup", "device=gup: expected 'auto', 'cpu' or 'gpu'."),
    ("precision=8", "precision=8: expected 'auto'"),
    ("compile=maybe", "compile=maybe: expected true or false."),
    ("model.dropout=1.5", "model.dropout=1.5: expected a number between 0 and 1."),
    ("model.widths=[64,x,1,1,1]", "model.widths.1=x: expected a whole number."),
    ("model.widths=[64,0,1,1,1]", "model.widths.1=0: expected a number greater than 0."),
    ("model._target_=shutil.which", "model._target_=shutil.which: expected a model that takes in_channels and num_cl"),
    ("hydra.run.dir=", "the name of a folder is empty. Name one, such as . for the one at hand."),
    ("--config-dir=", "the name of a folder is empty. Name one, such as . for the one at hand."),
    ("hydra.run.dir=${nope}", "Interpolation key 'nope' not found."),
    (f"hydra.run.dir={'x' * 300}", "File name too long. Name another file or folder."),
    (f"resume={'x' * 300}", "File name too long. Name another file or folder."),
    ("learning_rate=1", "learning_rate: there is no such key. Did you mean optimizer.lr?"),
    ("model._target_=", "model._target_=: expected a dotted path, such as package.module.Name."),
    ("loss._target_=..a", "loss._target_=..a: expected a dotted path, such as package.module.Name."),
    ("model._target_=nopackage.Net", "the package nopackage is not there. Install it, or put its folder's parent on"),
    ("optimizer.learning_rat=1", "optimizer.learning_rat: there is no such key. Did you mean optimizer.lr?"),
    ("optimizer.groups=[{match:a,lrr:1}]", "groups.0.lrr: there is no such key. Did you mean optimizer.groups.0.lr?"),
    ("optimizer.groups=[{match:'(',lr:1}]", "optimizer.groups.0.match=(: expected a regular expression"),
    ("optimizer.fused=true", "optimizer.fused: it is set by this project. Leave it out."),
    ("scheduler=reducelronplateau scheduler.mode=max", "scheduler.mode: it follows monitor and monitor_mode."),
    ("callbacks=early_stopping callbacks.early_stopping.monitor=val/acc", "monitor: it follows monitor and monitor_m"),
    ("optimizer=adagrad optimizer.zzz=true", "optimizer.zzz: there is no such key."),
    ("loss=focl", "loss=focl: there is no such loss. Did you mean focal?"),
    ("loss=focal loss.gama=1", "loss.gama: there is no such key. Did you mean loss.gamma?"),
    ("loss=focal loss.gamma=-1", "loss.gamma=-1: expected a number greater than or equal to 0."),
    ("loss.class_weights=balancd", "loss.class_weights=balancd: expected 'balanced' or a list."),
    (
        "metrics=imbalanced metrics.f1.avrage=micro",
        "metrics.f1.avrage: there is no such key. Did you mean metrics.f1.av",
    ),
    ("metrics.acc=1", "metrics.acc: every run has acc already. Choose another name."),
    ("monitor=val/f2 metrics=imbalanced", "expected one of val/acc, val/loss, val/f1, val/balanced_acc, val/lowest_re"),
    ("monitor_mode=most", "monitor_mode=most: expected 'max' or 'min'."),
    ("optimizer=muonn", "optimizer=muonn: there is no such optimizer. Did you mean muon?"),
    ("scheduler=reducelronplateau scheduler.patiense=1", "Did you mean scheduler.patience?"),
    ("callbacks=early_stopping callbacks.early_stopping.patienc=1", "Did you mean callbacks.early_stopping.patience?"),
    ("callbacks.find._target_=lightning.pytorch.callbacks.LearningRateFinder", "Search for it: python -m src.tune"),
    ("callbacks.x._target_=lightning.pytorch.callbacks.GradientAccumulationScheduler", "accumulate_grad_batches."),
    ("logger.tensorboard.log_grap=true", "Did you mean logger.tensorboard.log_graph?"),
    ("dataset.augmentation.affine.degree=1", "Did you mean dataset.augmentation.affine.degrees?"),
    ("model=torchvision model.arch=resnet19", "model.arch=resnet19: expected an architecture of torchvision"),
    ("model._target_=src.model.none.None", "no module src.model.none"),
    ("model._target_=src.model.alexnet.Nothing", "has no class or function Nothing"),
    ("optimizer.lr=-0.1", "optimizer.lr=-0.1: expected a number greater than 0."),
    ("optimizer.amsgrad=3", "optimizer.amsgrad=3: expected true or false."),
    ("scheduler.warmup=2", "scheduler.warmup=2: expected"),
    ("trainer.limit_train_batches=1.5", "expected a whole number or a number less than or equal to 1."),
    ("trainer.limit_test_batches=0", "trainer.limit_test_batches=0: expected a number greater than 0"),
    ("optimizer.lr=inf", "optimizer.lr=inf: expected a finite number."),
    ("epochs=5", "epochs: there is no such key. Did you mean trainer.max_epochs?"),
    ("trainer.epochs=5", "trainer.epochs: there is no such key. Did you mean trainer.max_epochs?"),
    ("limit=3", "limit: there is no such key. Did you mean dataset.limit?"),
    ("loss.weight=1", "loss.weight: there is no such key. There are: label_smoothing, class_weights."),
    ("model.lr=1", "model.lr: there is no such key. Did you mean optimizer.lr?"),
    ("input=x", "input: there is no such key. --help shows what can be said."),
    ("checkpoint=x", "checkpoint: there is no such key. --help shows what can be said."),
    ("init=x", "init=x: expected its keys one by one, as init.KEY=VALUE."),
    ("model=null", "model=null: expected model=NAME, which --help lists."),
    ("dataset/augmentation=5", "dataset/augmentation=5: expected dataset/augmentation=NAME, which --help lists."),
    ("=5", "=5: the key is missing. Options are written KEY=VALUE."),
    ("модель=1", "модель=1: it can't be read. Options are written KEY=VALUE."),
    ("+seed=3", "seed: it is there already. Leave out the +."),
    ("+loss=focal", "loss: it is there already. Leave out the +."),
    ("~nothing", "nothing: there is no such key."),
    ("hydra=x", "hydra=x: expected keys, such as hydra.run.dir=FOLDER."),
    ("hydra.run=x", "hydra.run=x: expected keys, such as"),
    ("--epochs 7", "--epochs: options are KEY=VALUE: trainer.max_epochs=7. --help shows them."),
    ("--epochs=7", "--epochs=7: options are KEY=VALUE: trainer.max_epochs=7."),
    ("-e 7", "-e: options are KEY=VALUE: trainer.max_epochs=7."),
    ("--lr=0.1", "--lr=0.1: options are KEY=VALUE: optimizer.lr=0.1."),
    ("--batch-size 64 seed=1", "--batch-size: options are KEY=VALUE: batch_size=64."),
    ("--epochs seed=1", "--epochs: options are KEY=VALUE: trainer.max_epochs=VALUE."),
    ("--gpu", "--gpu: options are KEY=VALUE: device=gpu."),
    ("gpu", "gpu: options are KEY=VALUE: device=gpu."),
    ("mnist optimizer.lr=0.1", "mnist: options are KEY=VALUE: dataset=mnist."),
    ("adamw", "adamw: options are KEY=VALUE: optimizer=adamw."),
    ("dataset mnist", "dataset: options are KEY=VALUE: dataset=mnist."),
    ("dataset:mnist", "dataset:mnist: options are KEY=VALUE: dataset=mnist."),
    ("dataset: mnist", "dataset:: options are KEY=VALUE: dataset=mnist."),
    ("dataset = mnist", "dataset: options are KEY=VALUE: dataset=mnist."),
    ("epochs 7", "epochs: options are KEY=VALUE: trainer.max_epochs=7."),
    ("help", "help: options are KEY=VALUE, such as trainer.max_epochs=5. --help shows them."),
    ("batch=64", "batch: there is no such key. Did you mean batch_size?"),
    ("n_epochs=5", "n_epochs: there is no such key. Did you mean trainer.max_epochs?"),
    ("pretrained=true", "pretrained: there is no such key. Did you mean init.weights?"),
    ("gpus=1", "gpus: there is no such key. Did you mean devices?"),
    ("optimizer.learning_rate=1", "optimizer.learning_rate: there is no such key. Did you mean optimizer.lr?"),
    ("model.activation=gelu", "model.activation: there is no such key. There are: name, widths, hidden,"),
    ("model.widths=4", "model.widths=4: expected a list, such as [64,192,384,256,256]."),
    ("dataset.mean=0.5", "dataset.mean=0.5: expected a list, such as [0.5]."),
    ("optimizer.betas=0.9 optimizer=adamw", "optimizer.betas=0.9: expected a list, such as [0.9,0.999]."),
    ("init.freeze=features", "init.freeze=features: expected a list, such as [features]."),
    ("dataset.fit=fill", "dataset.fit=fill: expected 'crop', 'pad' or 'stretch'."),
    ("dataset=MNIST", "dataset=MNIST: there is no such dataset. Did you mean mnist?"),
    ("optimizer=Adam", "optimizer=Adam: there is no such optimizer. Did you mean adam?"),
    ("model=ResNet18", "there is no such model. Did you mean model=torchvision model.arch=resnet18?"),
    (
        "dataset=image_folder",
        "data: there is no such folder. Set data_dir=FOLDER, or dataset.folder=NAME in it, to where",
    ),
    ("dataset=image_folder data_dir=.", ".: it holds no sub-folder. Set data_dir=FOLDER, or dataset.folder=NAME in it"),
    ("-m dataset=image_folder data_dir=nope seed=1,2", "nope: there is no such folder. Set data_dir=FOLDER"),
    ("-e", "-e: options are KEY=VALUE"),
    ("-cn elsewhere", "--config-name would hide the project's configs; "),
    ("-m seed=interval(0,1)", "A sweep takes KEY=A,B"),
    ("-m seed=1,2 --cfg job", "--cfg shows one run's config"),
    ("seed=1 sweep=last", "sweep=last: several runs are a sweep; add -m."),
    ("-m seed=1,2 sweep=last", "sweep=last: there is no sweep below logs/sweep/."),
    ("-m seed=1,2 sweep=nowhere", "sweep=nowhere: that folder has no sweep.yaml."),
    ("-m seed=1,1", "two runs of this sweep would write to seed-1. A value is named twice."),
    ("-cp elsewhere", "--config-dir adds a folder"),
    ("--config-dir nowhere", "--config-dir nowhere: there is no such folder."),
    ("dataset.augmentation=none", "dataset/augmentation=NAME"),
    ("dataset.augmentation.affine.degrees=999", "expected a number between 0 and 180."),
    ("dataset.mean=null dataset.std=[0]", "dataset.std.0=0: expected a number greater than 0."),
    ("model.name=null", "model.name=null: expected a string."),
    ("nonsense", "options are KEY=VALUE, such as"),
    ("no/group=here", "no/group"),
]


@pytest.mark.parametrize(("request_", "sentence"), WRONG)
def test_wrong_request_is_refused_in_a_sentence(door: Door, in_tmp: Path, request_: str, sentence: str) -> None:
    outcome = door("train", *request_.split())
    assert outcome.code == 2
    assert sentence in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert outcome.err.startswith("error: ")
    assert "Traceback" not in outcome.err
    assert not outcome.out
    assert not list(in_tmp.iterdir()), "nothing half-written"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("eval chekpoint=x", "chekpoint: there is no such key. Did you mean checkpoint?"),
        ("predict checkpoint=x inputs=y", "inputs: there is no such key. Did you mean input?"),
        ("predict inputs=y", "error: inputs: there is no such key. Did you mean input?\nerror: checkpoint: a value is"),
        ("export checkpint=x output=y", "error: checkpint: there is no such key. Did you mean checkpoint?\n"),
        ("predict --input x", "--input: options are KEY=VALUE: input=x."),
        ("predict a/b.png checkpoint=x", "a/b.png: options are KEY=VALUE: input=a/b.png."),
        ("predict what", "what: options are KEY=VALUE, such as checkpoint=FILE."),
        ("eval runs/best.ckpt", "runs/best.ckpt: options are KEY=VALUE: checkpoint=runs/best.ckpt."),
        ("eval last", "last: options are KEY=VALUE: checkpoint=last."),
        ("demo ckpt=x", "ckpt: there is no such key. Did you mean checkpoint?"),
        ("tune epochs 7", "epochs: options are KEY=VALUE: trainer.max_epochs=7."),
        ("predict checkpoint= input=y", "checkpoint=: expected a value."),
        ("predict checkpoint=x", "input: a value is needed."),
        ("export checkpoint=x outptu=y", "outptu: there is no such key. Did you mean output?"),
        ("demo prot=8000", "prot: there is no such key. Did you mean port?"),
        ("tune trainer.epochs=3", "trainer.epochs: there is no such key. Did you mean trainer.m"),
        ("report --data-dri=x .", "--data-dri"),
    ],
)
def test_a_typo_in_any_door_is_named(door: Door, words: str, sentence: str) -> None:
    name, *more = words.split()
    outcome = door(name, *more)
    assert outcome.code == 2
    assert sentence in outcome.err
    assert not re.search(r"mean (\w+)\?(.|\n)*\1: a value is needed", outcome.err)


NAMES = ["2026_01_02", "2026-01-02", "1e5", "true", "null", "[a, b]", "{a: 1}", "фото", "caf\udce9", "it's", 'a "b"']
NAMES += ["a,b", "a=b", " a ", "back\\", "$x", "a#b", "~mail", "-x", "???", "last", "a\nb", "a(b)", "%", "'", "é\\'"]
IN_BASH = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash to read a command")


class TestPaths:
    @IN_BASH
    @pytest.mark.parametrize("name", NAMES)
    def test_any_name_is_taken_as_written_and_so_is_the_command_that_says_it(
        self, door: Door, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        seen: list[tuple[str, Path]] = []
        commands: list[str] = []

        def train(config: TrainConfig, folder: Path, command: str, **_: object) -> None:
            seen.append((config.data_dir, folder))
            commands.append(command)

        monkeypatch.setattr("src.train.train", train)
        (in_tmp / name).mkdir()
        folder = "r" if "\udce9" in name else name  # a run's must be text
        assert door("train", f"data_dir={name}", f"hydra.run.dir={folder}").code == 0
        printed = command("train", option("data_dir", Path(name)), option("hydra.run.dir", Path(folder)))
        lines = (f"{commands[0]} {for_shell(option('hydra.run.dir', Path(folder)))}", printed)
        for words in {tuple(in_bash(line)[3:]) for line in lines}:  # mostly the same
            os.environ.pop(FOLDER, None)
            assert door("train", *words).code == 0
        assert {(Path(data_dir), folder) for data_dir, folder in seen} == {(Path(name), in_tmp / folder)}

    @IN_BASH
    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1))
    def test_any_words_come_back_from_the_shell(self, words: list[str]) -> None:
        assert in_bash(" ".join(map(for_shell, words))) == words

    @settings(max_examples=300, deadline=None)
    @given(st.text(min_size=1).filter(lambda text: not re.match(r"['\"~]|.*\$\{|null$|[?]{3}$", text, re.DOTALL)))
    def test_hydra_reads_any_path_as_it_is_written(self, path: str) -> None:
        (word,) = quoted([f"resume={path}"], False, TrainConfig)
        assert parse([word])[0].value() == path
        assert quoted([word], True, TrainConfig) == [word], "once quoted, it stays so"

    @pytest.mark.parametrize("path", ["${", "a${b"])
    def test_what_begins_an_interpolation_and_ends_none_is_refused(self, path: str) -> None:
        with pytest.raises(UserError, match="data_dir: expected a value, not an interpolation"):
            configure([f"data_dir={path}"])

    def test_what_is_left_to_hydra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/home/me")
        words = ["resume=null", "data_dir='a b'", "data_dir=~/x", "seed=1,2", "hydra.run.dir=r/${now:%Y}"]
        assert quoted(words, True, TrainConfig) == [
            *words[:2],
            "data_dir=/home/me/x",
            words[3],
            'hydra.run.dir="r/${now:%Y}"',
        ]
        several = ["data_dir=фото,'a,b',1_0", "data_dir=choice(a,b)", "hydra.sweep.dir=a,b", "storage=a,b"]
        assert quoted(several, True, TrainConfig, TuneConfig) == [
            'data_dir="фото",\'a,b\',"1_0"',
            several[1],
            'hydra.sweep.dir="a,b"',
            'storage="a,b"',
        ]

    def test_a_folder_of_configs_may_have_any_name(self, door: Door, in_tmp: Path) -> None:
        folder = in_tmp / "it's, [x] ${now:%Y}\\/optimizer"
        folder.mkdir(parents=True)
        (folder / "own.yaml").write_text("name: own\n_target_: torch.optim.SGD\nlr: 0.01\n")
        outcome = door("train", "--config-dir", str(folder.parent), "optimizer=own", "--cfg", "job")
        assert outcome.code == 0, outcome.err
        assert "name: own" in outcome.out


def in_bash(line: str) -> list[str]:
    """The words that bash makes of a line."""
    script = f"printf '%s\\0' {line}".encode(errors="surrogateescape")
    return os.fsdecode(subprocess.run(["bash"], input=script, capture_output=True, check=True).stdout).split("\0")[:-1]


def test_keys_of_an_option_that_is_not_named_are_refused_in_one_sentence(door: Door, in_tmp: Path) -> None:
    outcome = door("eval", "checkpoint=best.ckpt", "dataset.folder=photos")
    words = "error: dataset: no option of it is named. Add dataset=NAME, which --help lists.\n"
    assert (outcome.code, outcome.err) == (2, words)


@pytest.mark.parametrize("where", ["[64,64]", "[1,2,3,4,5,6]"])
def test_wrong_number_of_widths_is_refused(door: Door, images_folder: Path, where: str) -> None:
    outcome = door("train", "dataset=image_folder", f"data_dir={images_folder}", f"model.widths={where}")
    assert outcome.code == 2
    assert "5 widths are needed" in outcome.err


def test_every_wrong_job_of_a_sweep_is_found_before_the_first_starts(door: Door, in_tmp: Path) -> None:
    outcome = door("train", "-m", "batch_size=3,-3")
    assert outcome.code == 2
    assert "batch_size=-3" in outcome.err
    assert not list(in_tmp.iterdir())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("batch_sise: 3", "batch_sise: there is no such key. Did you mean batch_size?"),
        ("optimizer: {lr: fast}", "optimizer.lr=fast: expected a number."),
        ("batch_size: [", "a config file is no YAML"),
        ("seed: ${nothing}", "nothing"),
    ],
)
def test_wrong_yaml_file_is_refused(door: Door, in_tmp: Path, text: str, sentence: str) -> None:
    own = in_tmp / "own" / "experiment"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text(f"# @package _global_\n{text}\n")
    outcome = door("train", "--config-dir", str(in_tmp / "own"), "experiment=mine")
    assert outcome.code == 2
    assert sentence in outcome.err
    assert "Traceback" not in outcome.err


def test_full_error_shows_the_traceback(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(UserError, match="batch_size=0"):
        door("train", "batch_size=0")


def test_log_folder_that_cannot_be_written_is_refused(door: Door, in_tmp: Path) -> None:
    (in_tmp / "logs").write_text("a file where the folder should be")
    outcome = door("train")
    assert outcome.code == 2
    assert "logs is a file" in outcome.err


def test_device_that_is_absent_is_refused_and_leaves_nothing(door: Door, in_tmp: Path) -> None:
    import torch

    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("this machine has a GPU, which the request would get")
    outcome = door("train", "device=gpu", "dataset.source=sample")
    assert outcome.code == 2
    assert "device=gpu: this machine has no GPU" in outcome.err
    assert not [path for path in in_tmp.rglob("*") if path.is_file()]
    assert not (in_tmp / "logs").exists() or not list((in_tmp / "logs").iterdir())


def test_declared_key_that_no_yaml_lists_can_be_given(door: Door) -> None:
    outcome = door("train", "optimizer.amsgrad=true", "trainer.limit_train_batches=2", "--cfg", "job")
    assert outcome.code == 0, outcome.err
    assert "amsgrad: true" in outcome.out
    assert "limit_train_batches: 2" in outcome.out


def test_help_names_groups_options_and_examples(door: Door) -> None:
    outcome = door("train", "--help")
    assert outcome.code == 0
    for word in (
        "mnist",
        "alexnet_bn",
        "adamw",
        "valid_fraction",
        "label_smoothing",
        "max_epochs",
        "Examples",
    ):
        assert word in outcome.out
    search = door("tune", "--help").out
    for group in (path.name for path in CONFIGS.iterdir() if path.is_dir()):
        assert f"  {group}=" in search
        assert (f"  {group}=" in outcome.out) == (group not in ("search", "sampler", "pruner"))
    assert "split" in door("eval", "--help").out


LATER = ["-m", "loss=focal,cross_entropy", "loss.gamma=1"]  # is wrong in its second job


WRONG_LINES = [["bach_size=3"], ["epochs", "5"], ["dataset=image_folder", "data_dir=nowhere"], LATER]


def test_torch_is_not_imported_for_help_or_a_wrong_config() -> None:
    lines = [["--help"], ["--cfg", "job"], *WRONG_LINES]
    program = (
        "import runpy, sys\n"
        f"for words in {lines!r}:\n"
        "    sys.argv, code = ['train', *words], 0\n"
        "    try:\n        runpy.run_module('src.train', run_name='__main__')\n"
        "    except SystemExit as exit_:\n        code = exit_.code or 0\n"
        "    print('\\nended with', code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    ends = re.findall(r"^ended with (\d) (\w+)$", done.stdout, re.MULTILINE)
    assert ends == [("2" if line in WRONG_LINES else "0", "False") for line in lines]


def test_config_of_a_checkpoint_is_checked_by_the_same_schema(door: Door) -> None:
    printed = door("train", "--cfg", "job").out
    config = yaml.safe_load(printed)
    assert isinstance(check(config, TrainConfig), TrainConfig)
    config["model"]["_target_"] = "subprocess.Popen"
    with pytest.raises(UserError, match=r"subprocess\.Popen"):
        check(config, TrainConfig)


def test_what_may_change_when_a_run_goes_on_is_this_and_nothing_else() -> None:
    config = flat(plain(configure([])))
    free = {key for key in config if is_free(key, config) and key.split(".")[0] not in ("logger", "callbacks")}
    trainer = {"enable_progress_bar", "log_every_n_steps", "max_epochs", "max_time", "profiler"}
    asked = {"again", "data_dir", "device", "num_workers", "report", "resume", "dataset.on_broken"}
    assert free == {*asked, *(f"trainer.{key}" for key in trainer)}
    changed = {key for key in config if key.startswith("callbacks.") and is_free(key, config)}
    assert changed >= {"callbacks.checkpoint_minutes", "callbacks.checkpoint_steps", "callbacks.samples.count"}


@pytest.mark.parametrize(("metric", "mode"), [("MulticlassF1Score", "max"), ("MulticlassCalibrationError", "min")])
def test_whether_more_is_better_is_what_a_metric_says_of_itself(metric: str, mode: str) -> None:
    values = {"monitor": "val/it", "metrics": {"it": {"_target_": f"torchmetrics.classification.{metric}"}}}
    assert direction(values) == mode
    assert direction(values | {"monitor": "val/acc"}) == "max"
    assert direction(values | {"monitor": "val/loss"}) == "min"
    assert direction(values | {"monitor_mode": "max"}) == "max", "unless it is said otherwise"


def test_slurm_is_asked_for_the_machines_and_gpus_of_the_run() -> None:
    options = ["hydra/launcher=submitit_slurm", "devices=4", "trainer.num_nodes=2"]
    asked = compose("train", declared(options)).whole.hydra.launcher
    assert (asked.nodes, asked.tasks_per_node, asked.gpus_per_node, asked.timeout_min) == (2, 4, 4, 24 * 60)


@pytest.mark.parametrize(("gpus", "jobs"), [(3, 3), (0, os.cpu_count())])
def test_as_many_jobs_run_at_a_time_as_there_are_gpus_or_else_cores(
    gpus: int, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert compose("train", ["hydra/launcher=joblib"]).whole.hydra.launcher.n_jobs == jobs


def test_ctrl_c_before_a_run_began_leaves_as_a_shell_expects_it(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("src.train.train", interrupted)
    outcome = door("train", "hydra.run.dir=r")
    assert (outcome.code, outcome.err) == (130, "Stopped.\n")


@pytest.mark.parametrize(
    "end",
    [
        *("dataset.valid_fraction=0.0", "dataset.valid_fraction=1.0", "dataset.limit=0", "seed=-1", f"seed={2**32}"),
        *("optimizer.lr=0.0", "optimizer.weight_decay=-1e-9", "trainer.limit_train_batches=0.0"),
        "callbacks.checkpoint_minutes=0.0",
    ],
)
def test_ends_that_do_not_belong_to_a_range_are_refused(end: str) -> None:
    with pytest.raises(UserError, match=rf"^{end.partition('=')[0]}=.*: expected "):
        configure([end])


def test_ends_that_belong_to_a_range_are_taken() -> None:
    words = ["model.dropout=1.0", "optimizer.weight_decay=0.0", f"seed={2**32 - 1}", "trainer.limit_val_batches=1.0"]
    config = configure([*words, "trainer.max_steps=-1", "trainer.gradient_clip_val=0.0"])
    assert (config.seed, config.trainer.max_steps, config.trainer.limit_val_batches) == (2**32 - 1, -1, 1.0)


def test_of_a_sweeps_keys_the_last_one_changes_first() -> None:
    jobs = grid(["optimizer.lr=2,1", "seed=3,1", "batch_size=8"])
    points = [(2, 3), (2, 1), (1, 3), (1, 1)]
    assert jobs == [[f"optimizer.lr={rate}", f"seed={seed}", "batch_size=8"] for rate, seed in points]


@pytest.mark.parametrize(
    ("words", "end"),
    [
        (["dataset=mnist", "model=alexnet", "optimizer=adamw"], ""),
        (["optimizer.lr=0.01", "seed=2"], "_lr-0.01_seed-2"),
        (["seed=2", "data_dir=a", "device=cpu", "num_workers=1", "report=false", "logger=csv"], "_seed-2"),
        (["seed=2", "hydra.job.name=x", "init.weights=a.pt", "dataset.mean=[0.5]"], "_seed-2_mean-0.5"),
        (["scheduler.warmup=0.1", "trainer.max_epochs=3"], "_warmup-0.1_max_epochs-3"),
        (["model.name=a", "dataset.name=b"], "_model.name-a_dataset.name-b"),
        (["model.widths=[4,4,4,4,4]", "dataset/augmentation=none"], "_widths-4_4_4_4_4_augmentation-none"),
        (["monitor=val/loss", "optimizer.lr=1."], "_monitor-val_loss_lr-1"),
        (["+model.word='größe, \"so\" & so'"], "_word-größe_so_so"),
    ],
)
def test_a_runs_name_ends_with_what_was_changed(words: list[str], end: str) -> None:
    run = compose("train", declared(quoted(words, False, TrainConfig))).whole.hydra.run.dir
    name = re.fullmatch(r"logs/[\d-]{10}_[\d-]{8}_(\w+?_(?:alexnet|a)_adamw)(.*)", run)
    assert name
    assert name[2] == end
    assert not re.search(r"[^\w.-]", name[2])


def test_the_name_of_a_run_with_many_changes_is_cut_between_them_and_still_its_own() -> None:
    words = ["seed=123", "optimizer.lr=0.0001", "model.widths=[64,192,384,256,256]", "trainer.max_epochs=3"]
    names = [compose("train", declared([*words, f"model.dropout={share}"])).whole.hydra.run.dir for share in (0.1, 0.2)]
    ends = [name.partition("adamw_")[2] for name in names]
    assert all(re.fullmatch("seed-123_lr-0.0001_[0-9a-f]{6}", end) for end in ends)
    assert ends[0] != ends[1]
