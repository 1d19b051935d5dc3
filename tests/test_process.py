"""Which run a command means, asked by its process: the folder that it works in, who else does, how often it is read."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import pytest
from filelock import FileLock

from src.config import cli
from src.config.compose import configure
from src.config.errors import UserError
from src.config.folder import CONFIG, LOCK, RESULTS, find_checkpoint, finished_runs, folder_to_resume, is_alive, lock
from src.config.process import check_processes, launch_name, world_size
from src.config.schema import TrainConfig
from src.sweeps import grid
from tests.conftest import SHORT, Outcome, only_run

Door = Callable[..., Outcome]


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch job of SLURM."""
    for name, value in {"JOB_ID": "77", "JOB_NAME": "train", "NTASKS": "1", "PROCID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)


class TestSlurm:
    def test_a_job_has_a_name_that_it_keeps(self, job: None) -> None:
        assert launch_name() == "job77"

    @pytest.mark.parametrize("name", ["bash", "interactive"])
    def test_each_command_in_a_shell_of_srun_is_a_run_of_its_own(
        self, door: Door, images_folder: Path, in_tmp: Path, job: None, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv("SLURM_JOB_NAME", name)
        assert launch_name() is None
        command = ["dataset=image_folder", f"data_dir={images_folder}", *SHORT, "trainer.max_steps=1", "test=false"]
        for count in (1, 2):
            outcome = door("train", *command)
            assert outcome.code == 0, outcome.err
            assert "This run is finished" not in outcome.out
            assert len(list((in_tmp / "logs").iterdir())) == count

    def test_so_is_each_in_a_terminal_of_ondemand_or_vs_code(self, job: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.isatty", lambda number: number == 0)
        assert launch_name() is None

    @pytest.mark.parametrize(
        "left",
        [
            "SLURM_JOB_ID=77 SLURM_NTASKS=1 SLURM_JOB_NAME=sys/dashboard",
            "SLURM_JOB_ID=77 SLURM_NTASKS=4 SLURM_JOB_NAME=code SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0",
            "RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 MASTER_ADDR=nowhere MASTER_PORT=1 OMPI_COMM_WORLD_SIZE=4 PMI_RANK=3",
            "NODE_RANK= MPLBACKEND=module://nobodys",
        ],
    )
    def test_what_a_shell_has_left_of_another_launch_changes_nothing(
        self, door: Door, images_folder: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, left: str
    ) -> None:
        for name, value in (text.split("=") for text in left.split()):
            monkeypatch.setenv(name, value)
        more = ["trainer.max_steps=1", "test=false", "hydra.run.dir=r"]
        outcome = door("train", "dataset=image_folder", f"data_dir={images_folder}", *SHORT, *more)
        assert outcome.code == 0, outcome.err
        assert "in all" in outcome.out, "it leads its run"
        assert (in_tmp / "r/results.json").exists()
        assert world_size() is None

    def test_a_number_of_a_machine_asks_for_machines(
        self, door: Door, images_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NODE_RANK", "1")
        outcome = door("train", "dataset=image_folder", f"data_dir={images_folder}")
        assert outcome.code == 2
        assert "trainer.num_nodes=1: NODE_RANK is set" in outcome.err

    def test_so_is_each_in_a_shell_of_salloc(self, job: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SLURM_PROCID")  # only processes that srun or sbatch has started have it
        assert launch_name() is None


class TestFolder:
    def test_processes_that_lightning_starts_work_in_the_folder_of_their_leader(
        self, door: Door, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folders: list[Path] = []
        monkeypatch.setattr("src.train.train", lambda config, folder, **_: folders.append(folder))
        assert door("train", "hydra.run.dir=logs/one").code == 0
        monkeypatch.setenv("LOCAL_RANK", "1")
        assert door("train").code == 0
        assert folders == [in_tmp / "logs/one"] * 2

    def test_processes_of_torchrun_resume_the_same_run(
        self, door: Door, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folders: list[Path] = []
        monkeypatch.setattr("src.train.train", lambda config, folder, **_: folders.append(folder))
        (in_tmp / "mine").mkdir()
        (in_tmp / "mine" / CONFIG).touch()
        for rank in (0, 1):
            names = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "a"}
            for name, value in names.items():
                monkeypatch.setenv(name, value)
            assert door("train", "resume=mine").code == 0
        assert folders == [in_tmp / "mine"] * 2
        assert "Name it: resume=FOLDER" in door("train", "resume=last").err

    def test_a_run_that_is_looked_at_can_start(self, in_tmp: Path) -> None:
        """Who looks whether a run is alive holds its lock for an instant; here for as long as the run waits for it."""
        (in_tmp / "run").mkdir()
        looking, waiting = FileLock(in_tmp / "run" / LOCK, thread_local=False), threading.Event()
        looking.acquire()

        class Lock(FileLock):
            def _acquire(self) -> None:
                super()._acquire()
                if not self.is_locked:
                    waiting.set()

        def look() -> None:
            assert waiting.wait(60)
            looking.release()

        looker = threading.Thread(target=look)
        looker.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("src.config.folder.FileLock", Lock)
            with lock(in_tmp / "run"):
                assert waiting.is_set()
        looker.join()

    def test_a_run_that_is_worked_on_cannot(self, in_tmp: Path) -> None:
        (in_tmp / "run").mkdir()
        with FileLock(in_tmp / "run" / LOCK):
            assert is_alive(in_tmp / "run")
            with pytest.raises(UserError, match="another process works on this run"), lock(in_tmp / "run"):
                raise AssertionError("two processes in one folder")
        assert not is_alive(in_tmp / "run")

    def test_the_last_run_is_no_trial_of_a_search(self, in_tmp: Path) -> None:
        for name in ("logs/mine", "logs/tune/search/trial-003"):  # the second is newer, and was pruned
            (in_tmp / name).mkdir(parents=True)
            (in_tmp / name / CONFIG).touch()
        assert folder_to_resume("last") == Path("logs/mine")
        (in_tmp / "logs/mine" / CONFIG).unlink()
        with pytest.raises(UserError, match="no unfinished run"):
            folder_to_resume("last")


@pytest.mark.parametrize(("words", "jobs"), [([], 1), (["-m", "seed=1,2,3"], 3)])
def test_each_job_is_composed_and_checked_once(
    door: Door, images_folder: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], jobs: int
) -> None:
    calls = {"compose": 0, "check": 0}

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            calls[name] += 1
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(hydra, "compose", counted("compose", hydra.compose))
    for module in (cli, grid):
        monkeypatch.setattr(module, "check", counted("check", module.check))
    in_train: list[int] = []
    monkeypatch.setattr("src.train.train", lambda *_, **__: in_train.append(calls["compose"]))
    outcome = door("train", *words, "dataset=image_folder", f"data_dir={images_folder}", *SHORT, "hydra.run.dir=r")
    assert calls == {"compose": jobs, "check": jobs}
    assert in_train == [jobs] * jobs, "all of them before the first one starts"
    assert outcome.code in (0, 1), outcome.err


def test_a_run_is_named_by_its_command(door: Door, images_folder: Path, in_tmp: Path) -> None:
    assert door("train", "dataset=image_folder", f"data_dir={images_folder}", *SHORT, "trainer.max_steps=1").code == 0
    assert "image_folder_alexnet_adamw" in only_run(in_tmp).name


def test_runs_of_one_second_have_folders_of_their_own_and_a_refused_one_leaves_none(
    door: Door, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def task(config: TrainConfig, folder: Path, **_: Any) -> None:
        if config.seed == 5:
            raise UserError("no")
        assert not any(folder.iterdir())
        (folder / CONFIG).touch()

    monkeypatch.setattr("src.train.train", task)
    monkeypatch.setattr("src.config.naming.datetime", SimpleNamespace(now=lambda: datetime(2026, 1, 2)))
    codes = [door("train", f"seed={seed}").code for seed in (4, 4, 5, 4)]
    assert codes == [0, 0, 2, 0]
    names = [f"2026-01-02_00-00-00_mnist_alexnet_adamw_seed-4{end}" for end in ("", "_2", "_3")]
    assert sorted(path.name for path in (in_tmp / "logs").iterdir()) == names


def begun(folder: Path, second: int, *checkpoints: str) -> Path:
    """A run that was begun, and finished if it has checkpoints, in this second."""
    (folder / "checkpoints").mkdir(parents=True)
    for name in (CONFIG, *(RESULTS for _ in checkpoints[:1]), *(f"checkpoints/{name}" for name in checkpoints)):
        (folder / name).touch()
        os.utime(folder / name, (second, second))
    return folder


def test_the_last_run_is_the_newest_of_those_that_are_unfinished(in_tmp: Path) -> None:
    for name, second in (("b", 200), ("c", 300), ("a", 100)):
        begun(Path("logs") / name, second)
    begun(Path("logs/d"), 400, "best.ckpt")
    assert folder_to_resume("last") == Path("logs/c")


def test_the_last_run_that_ended_is_meant_by_last_and_its_best_checkpoint(in_tmp: Path) -> None:
    begun(Path("logs/a"), 100, "best.ckpt", "last.ckpt")
    newest = begun(Path("logs/b"), 300, "last.ckpt", "best.ckpt")
    begun(Path("logs/sweep/c"), 200, "best.ckpt")
    pruned = begun(Path("logs/d"), 400, "best.ckpt")
    (pruned / "checkpoints/best.ckpt").unlink()  # as a search leaves all but its best trial
    path = newest / "checkpoints/best.ckpt"
    assert find_checkpoint("last") == (path, f"checkpoint: {path}, of the newest finished run")
    assert find_checkpoint("logs/b/") == (path, f"checkpoint: {path}")
    assert [run.name for run in finished_runs()] == ["b", "c", "a"]
    path.unlink()
    assert find_checkpoint("last")[0] == newest / "checkpoints/last.ckpt", "nothing was validated"


def test_a_checkpoint_is_found_by_its_name_its_run_or_a_folder_of_them(in_tmp: Path) -> None:
    run = begun(Path("logs/=odd, [name]"), 100)
    with pytest.raises(UserError, match=r"^there is no finished run below logs/\. Train one, or name"):
        find_checkpoint("last")
    with pytest.raises(UserError, match=r"^checkpoint=.*no checkpoint lies in that folder\. Name a run"):
        find_checkpoint(str(run))
    path = run / "checkpoints/best.ckpt"
    path.touch()
    assert find_checkpoint(str(run)) == (path, f"checkpoint: {path}, of the unfinished run")
    assert find_checkpoint(str(path)) == (path, "")
    assert find_checkpoint(str(path.parent)) == (path, f"checkpoint: {path}"), "as of a folder to share"
    assert find_checkpoint("elsewhere.ckpt") == (Path("elsewhere.ckpt"), ""), "who reads it says that it is not there"


@pytest.mark.parametrize(("started", "devices", "nodes"), [(6, 3, 2), (2, 2, 1), (2, 1, 2)])
def test_processes_are_counted_on_all_machines(
    started: int, devices: int, nodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure([f"devices={devices}", f"trainer.num_nodes={nodes}"])
    monkeypatch.setattr("src.config.process.world_size", lambda: started)
    check_processes(config)
    monkeypatch.setattr("src.config.process.world_size", lambda: started + 1)
    with pytest.raises(UserError, match=f"{started + 1} processes were started"):
        check_processes(config)
