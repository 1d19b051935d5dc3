"""A new run that starts from weights that exist, and layers that are not trained."""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.config.errors import UserError
from src.config.schema import InitConfig
from src.model import init
from src.model.alexnet import AlexNet
from src.model.saved import load
from src.results.screen import show_loaded
from tests.conftest import KEPT, ROOT, SHORT, Outcome, results_of, write_folder
from tests.test_resume import assert_same, broken

Door = Callable[..., Outcome]


def narrow(channels: int = 3, classes: int = 10, **options: Any) -> AlexNet:
    return AlexNet(channels, classes, widths=[4] * 5, hidden=16, **options)


def start(network: nn.Module, path: Path, **options: Any) -> dict[str, str]:
    loaded = init.load(network, InitConfig(weights=str(path), **options))
    assert loaded
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    return loaded.layers


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


class TestWhatFits:
    def test_weights_of_torchvisions_alexnet_fit_and_answer_as_they_do_there(self) -> None:
        from torchvision.models import alexnet

        with torch.device("meta"):  # 61 million weights take seconds to draw, and more to write
            theirs, network = alexnet(weights=None).eval(), AlexNet(3, 1000).eval()
        theirs = theirs.to_empty(device="cpu")
        for weight in theirs.parameters():
            nn.init.constant_(weight, 1e-3)
        nn.init.normal_(theirs.features[0].weight)
        network.load_state_dict(theirs.state_dict(), assign=True)
        images = torch.randn(2, 3, 224, 224)
        with torch.inference_mode():
            torch.testing.assert_close(network(images), theirs(images))

    @pytest.mark.parametrize("prefix", ["", "network.", "module.", "model.", "_orig_mod.", "module.network._orig_mod."])
    @pytest.mark.parametrize("key", [None, "state_dict"])
    def test_names_of_a_wrapped_network_lose_what_wraps_it(self, tmp_path: Path, prefix: str, key: str | None) -> None:
        theirs, network = narrow(), narrow()
        state = {prefix + name: value for name, value in theirs.state_dict().items()}
        layers = start(network, saved(tmp_path / "w.pt", {key: state, "epoch": 3} if key else state))
        assert same(network, theirs)
        assert set(layers.values()) == {"loaded"}

    def test_a_network_whose_own_names_begin_so_keeps_them(self, tmp_path: Path) -> None:
        theirs, network = (nn.ModuleDict({"model": nn.Linear(2, 2)}) for _ in range(2))
        start(network, saved(tmp_path / "w.pt", theirs.state_dict()))
        assert same(network, theirs)

    def test_each_layer_says_what_became_of_it(self, tmp_path: Path) -> None:
        state = narrow(channels=1, classes=1000).state_dict() | {"aux.fc.weight": torch.zeros(1)}
        del state["features.3.weight"], state["features.3.bias"]
        network = narrow()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        layers = start(network, saved(tmp_path / "w.pt", state), skip=["classifier.4", "features.10.bias"])
        assert layers == {
            "features.0": "misfits: 4x1x11x11 in the file, 4x3x11x11 here",
            "features.3": "not in the file",
            "features.6": "loaded",
            "features.8": "loaded",
            "features.10": "loaded, but not its bias",
            "classifier.1": "loaded",
            "classifier.4": "left out",
            "classifier.6": "misfits: 1000x16 in the file, 10x16 here",
            "aux.fc": "only in the file",
        }
        now = network.state_dict()
        taken = {name for name, value in now.items() if name in state and torch.equal(value, state[name])}
        weights = {f"{name}.weight" for name in ("features.6", "features.8", "features.10", "classifier.1")}
        assert weights <= taken
        for name in (
            "features.0.weight",
            "features.0.bias",
            "features.10.bias",
            "features.3.weight",
            "classifier.4.weight",
            "classifier.6.weight",
        ):
            assert torch.equal(now[name], before[name]), name

    def test_half_precision_and_a_lacking_count_of_batches_are_no_misfit(self, tmp_path: Path) -> None:
        theirs, network = narrow(batch_norm=True), narrow(batch_norm=True)
        state = {name: value.half() for name, value in theirs.state_dict().items() if "num_batches" not in name}
        assert set(start(network, saved(tmp_path / "w.pt", state)).values()) == {"loaded"}
        assert network.classifier[6].weight.dtype == torch.float32

    def test_safetensors(self, tmp_path: Path) -> None:
        files = pytest.importorskip("safetensors.torch", reason="it comes with the extra `timm`")
        theirs, network = narrow(), narrow()
        files.save_file(theirs.state_dict(), tmp_path / "w.safetensors")
        start(network, tmp_path / "w.safetensors")
        assert same(network, theirs)
        (tmp_path / "w.safetensors").write_bytes(b"no such thing")
        with pytest.raises(UserError, match=r"^init\.weights=.*w\.safetensors: it is damaged"):
            start(narrow(), tmp_path / "w.safetensors")

    def test_the_screen_shows_neighbours_that_fared_alike_in_one_row(self, capsys: pytest.CaptureFixture[str]) -> None:
        layers = {f"layer{number}": "loaded" for number in range(20)} | {"head": "left out"}
        show_loaded(init.Loaded(layers, ""))
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert rows[1:] == [["layer0", "to", "layer19", "20", "loaded"], ["head", "1", "left", "out"]]


class TestRefused:
    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            (argparse.Namespace(lr=1), "it holds more than tensors and plain values, which could run code"),
            ({"state_dict": {"a.weight": 3}}, "it holds no weights by name"),
            ({"state_dict": torch.ones(3)}, "it holds no weights by name"),
            ([torch.ones(3)], "it holds no weights by name"),
            (
                {"fc.weight": torch.zeros(3, 4)},
                r"no weight fits; the file has fc\.weight \(3x4\) \.\.\., the network features\.0\.weight \(4x3x11x",
            ),
        ],
    )
    def test_content_that_does_not_serve(self, tmp_path: Path, content: Any, sentence: str) -> None:
        with pytest.raises(UserError, match=rf"^init\.weights={tmp_path}/w\.pt: {sentence}"):
            start(narrow(), saved(tmp_path / "w.pt", content))

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "w.pt", narrow().state_dict())
        path.write_bytes(path.read_bytes()[:-500])
        with pytest.raises(UserError, match=r"^init\.weights=.*: it is damaged"):
            start(narrow(), path)

    @pytest.mark.parametrize(
        ("weights", "sentence"),
        [
            ("https://download.pytorch.org/models/alexnet.pth", "that is an address. Download it, and name the file."),
            ("gone.pth", "there is no such file."),
            ("images", "that is a folder. Name a file of weights in it."),
        ],
    )
    def test_no_file_before_torch_is_imported(self, tmp_path: Path, weights: str, sentence: str) -> None:
        (tmp_path / "images").mkdir()
        program = (
            "import sys\n"
            f"sys.path.insert(0, {str(ROOT)!r})\n"
            f"sys.argv = ['train', 'init.weights={weights}']\n"
            "from src.train import main\n"
            "try:\n    main()\n"
            "finally:\n    print('torch' in sys.modules)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "False\n")
        assert done.stderr == f"error: init.weights={weights}: {sentence}\n"
        assert not list(tmp_path.glob("logs/*"))

    @pytest.mark.parametrize("key", ["skip", "freeze"])
    def test_names_that_the_network_lacks(self, door: Door, images_folder: Path, in_tmp: Path, key: str) -> None:
        arguments = ["dataset=image_folder", f"data_dir={images_folder}", *SHORT, "hydra.run.dir=r"]
        outcome = door("train", *arguments, f"init.{key}=[clasifier.6]")
        words = f"init.{key}=[clasifier.6]: no layer has that name. Did you mean classifier.6?"
        assert (outcome.code, outcome.err) == (2, f"error: {words} There are: features, classifier.\n")
        assert not (in_tmp / "r").exists()

    def test_a_layer_that_did_not_fit_is_not_frozen_at_random(self, tmp_path: Path) -> None:
        weights = saved(tmp_path / "w.pt", narrow(channels=1).state_dict())
        with pytest.raises(UserError, match=r"^init\.freeze=\[features\]: features\.0 was not loaded \(misfits: 4x1x"):
            start(narrow(), weights, freeze=["features"])

    def test_freezing_everything(self) -> None:
        with pytest.raises(UserError, match=r"^init\.freeze=\[features,classifier\]: nothing is left to train\."):
            init.freeze(narrow(), ["features", "classifier"])


class TestRun:
    @pytest.fixture
    def weights(self, door: Door, in_tmp: Path) -> Path:
        """Of a run on other classes, which has batch norm."""
        folder = write_folder(in_tmp / "others", classes=3, count=10)
        arguments = ["dataset=image_folder", f"data_dir={folder}", *SHORT, "model.batch_norm=true", "test=false"]
        assert door("train", *arguments, "hydra.run.dir=before").code == 0
        return (in_tmp / "before/checkpoints/best.ckpt").rename(in_tmp / "weights.ckpt")

    @pytest.fixture
    def options(self, weights: Path, images_folder: Path) -> list[str]:
        more = ["seed=3", "trainer.max_epochs=2", "callbacks.checkpoint_steps=2", "model.batch_norm=true"]
        more += [KEPT]
        given = [f"init.weights={weights.name}", "init.skip=[classifier.4]", "init.freeze=[features,classifier.1]"]
        return ["dataset=image_folder", f"data_dir={images_folder}", *SHORT, *more, *given]

    def test_begins_from_the_weights_and_goes_on_without_the_file(
        self, door: Door, options: list[str], weights: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        outcome = door("train", *options, "hydra.run.dir=whole")
        assert outcome.code == 0, outcome.err
        assert "eval mode" not in outcome.err
        rows = [" ".join(line.split()) for line in outcome.out.splitlines()]
        assert "not trained features, classifier.1" in rows
        assert "features.0 to classifier.1 11 loaded" in rows
        assert "classifier.4 1 left out" in rows
        assert "classifier.6 1 misfits: 3x16 in the file, 2x16 here" in rows

        broken(door, monkeypatch, 10, *options, "hydra.run.dir=mine")
        before, sha256 = load(weights).state_dict, hashlib.sha256(weights.read_bytes()).hexdigest()
        weights.unlink()
        refused = door("train", "resume=mine", "init.freeze=[features]")
        assert refused.code == 2
        words = (
            "was begun with init.freeze=['features', 'classifier.1'], and this command says init.freeze=['features']"
        )
        assert words in refused.err
        outcome = door("train", "resume=mine")
        assert outcome.code == 0, outcome.err
        assert "not trained" in outcome.out
        assert "left out" not in outcome.out
        assert_same(in_tmp / "mine", in_tmp / "whole")

        for run in ("mine", "whole"):
            found = load(in_tmp / run / "checkpoints/best.ckpt")
            assert results_of(in_tmp / run)["init_sha256"] == found.about.init_sha256 == sha256
            moved = {name for name, value in found.state_dict.items() if not same_weight(before, name, value)}
            assert {name.rpartition(".")[0] for name in moved} == {"classifier.4", "classifier.6"}, (
                "statistics included"
            )
        content = torch.load(in_tmp / "mine/checkpoints/last.ckpt", weights_only=True)
        assert len(content["optimizer_states"][0]["state"]) == 4, "two weights and two biases"
        assert door("eval", "checkpoint=mine/checkpoints/best.ckpt", "device=cpu").code == 0
        exported = door("export", "checkpoint=mine/checkpoints/best.ckpt", "output=n.pt2", "format=torch_export")
        assert exported.code == 0, exported.err

    def test_of_a_run_that_saved_nothing_the_file_is_read_again(
        self, door: Door, options: list[str], weights: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken(door, monkeypatch, 1, *options, "hydra.run.dir=mine")
        kept = weights.read_bytes()
        weights.unlink()
        outcome = door("train", "resume=mine")
        assert outcome.code == 2
        assert "error: init.weights=weights.ckpt: there is no such file.\n" in outcome.err
        weights.write_bytes(kept)
        outcome = door("train", "resume=mine")
        assert outcome.code == 0, outcome.err
        assert "left out" in outcome.out


def same_weight(before: dict[str, Tensor], name: str, value: Tensor) -> bool:
    return before[name].shape == value.shape and torch.equal(before[name], value)
