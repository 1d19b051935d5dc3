"""What a search has found: the best options as an experiment, a table of its trials, Optuna's pictures."""

from __future__ import annotations

import csv
import io
import os
import shlex
import warnings
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.types import Override, QuotedString
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.console import Console
from rich.table import Table

from src.config.compose import parse
from src.config.files import write_text
from src.config.folder import FREE
from src.config.groups import is_group
from src.sweeps.space import Space
from src.sweeps.study import real_trials

EXPERIMENT = "experiment/best.yaml"
SHOWN = 10  # trials on the screen
PICTURES = {  # name -> Optuna's function
    "history": "plot_optimization_history",
    "importances": "plot_param_importances",
    "parallel": "plot_parallel_coordinate",
}
# of the machine or of the search, not of what was found
_LEFT_OUT = (FREE - {"trainer.max_epochs"}) | {"test", "report"}


class Findings:
    """The trials of a study, the best first."""

    def __init__(self, folder: Path, study: optuna.Study) -> None:
        self.folder, self.study = folder, study
        self.trials = sorted(real_trials(study), key=lambda trial: (-_score(trial), trial.number))
        saved = study.user_attrs.get("config", {}).get("data_dir", "data")
        self.places = [] if saved == "data" else [f"data_dir={saved}"]
        self.best = next((trial for trial in self.trials if trial.state is TrialState.COMPLETE), None)

    def save(self, fixed: list[str], space: Space) -> None:
        """Write the table, the pictures, and the best options as `experiment/best.yaml` into the search's folder."""
        write_text(self.folder / "trials.csv", self._csv())
        if self.best is not None:
            path = self.folder / EXPERIMENT
            path.parent.mkdir(exist_ok=True)
            overrides = [*fixed, *space.overrides(self.best.params)]
            write_text(path, as_experiment(overrides, [self.command, self._scored(self.best)]))
        pictures = [name for name in PICTURES if self._draw(name)]
        write_text(self.folder / "summary.md", self._markdown(pictures))

    @property
    def command(self) -> str:
        """The command that trains with the best options, and tests."""
        words = ["python", "-m", "src.train", "--config-dir", str(self.folder), "experiment=best", *self.places]
        return shlex.join(words)

    def show(self, wanted: int) -> None:
        """Print the best trials and the command that trains with their options."""
        out = Console(highlight=False)
        table = Table(box=box.SIMPLE, title=f"{self._counted()}, {wanted} wanted")
        for title in self._titles():
            leaf = title.rpartition(".")[2]
            alone = sum(other.rpartition(".")[2] == leaf for other in self._titles()) == 1
            table.add_column(leaf if alone else title, justify="left" if title == "state" else "right")
        for trial in self.trials[:SHOWN]:
            table.add_row(*self._cells(trial))
        out.print(table)
        if len(self.trials) > SHOWN:
            out.print(f"and {len(self.trials) - SHOWN} more in {self.folder / 'trials.csv'}", soft_wrap=True)
        for trial in self.trials:
            if error := trial.user_attrs.get("error"):
                out.print(f"failed: trial {trial.number}: {error}", markup=False, soft_wrap=True)
        if self.best is not None:
            out.print(f"train with the best: {self.command}", markup=False, soft_wrap=True)
        out.print(f"table and pictures: {shlex.quote(str(self.folder))}", markup=False, soft_wrap=True)

    def _scored(self, trial: FrozenTrial) -> str:
        return f"{_score(trial):.2%} of the validation images in trial {trial.number} of {len(self.trials)}"

    def _counted(self) -> str:
        states = [trial.state.name.lower() for trial in self.trials]
        words = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        return f"{len(self.trials)} trials: {words}"

    def _titles(self) -> list[str]:
        return ["trial", *self._keys(), "val %", "epochs", "state"]

    def _keys(self) -> list[str]:
        return list(dict.fromkeys(key for trial in self.trials for key in trial.params))

    def _cells(self, trial: FrozenTrial) -> list[str]:
        params = (_short(trial.params.get(key, "")) for key in self._keys())
        score = f"{100 * _score(trial):.2f}" if _score(trial) >= 0 else "-"
        return [str(trial.number), *params, score, str(len(trial.intermediate_values)), trial.state.name.lower()]

    def _markdown(self, pictures: list[str]) -> str:
        titles = self._titles()
        lines = [f"# {self.folder.name}", "", f"{self._counted()}.", ""]
        if self.best is not None:
            lines += [f"Best: {self._scored(self.best)}. To train with its options, and test:", ""]
            lines += [f"    {self.command}", ""]
        rows = [titles, ["---"] * len(titles), *(self._cells(trial) for trial in self.trials)]
        lines += [f"| {' | '.join(cells)} |" for cells in rows]
        for name in pictures:
            lines += ["", f"![{name}]({name}.png)"]
        return "\n".join(lines) + "\n"

    def _csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        keys = self._keys()
        writer.writerow(["trial", "state", *keys, "val_accuracy", "epochs", "seconds", "error"])
        for trial in self.trials:
            seconds = trial.duration.total_seconds() if trial.duration else ""
            score = _score(trial) if _score(trial) >= 0 else ""
            params = [trial.params.get(key, "") for key in keys]
            more = [score, len(trial.intermediate_values), seconds, trial.user_attrs.get("error", "")]
            writer.writerow([trial.number, trial.state.name.lower(), *params, *more])
        return text.getvalue()

    def _draw(self, name: str) -> bool:
        """Save one of Optuna's pictures; False where the trials are too few or too alike for it."""
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot
        from optuna.visualization import matplotlib as plots

        complete = [trial for trial in self.trials if trial.state is TrialState.COMPLETE]
        if len({trial.value for trial in complete}) < 2:
            return False
        with warnings.catch_warnings(), pyplot.style.context("default"):
            warnings.simplefilter("ignore")
            axes = getattr(plots, PICTURES[name])(self.study)
            figure = axes.figure
            figure.set_size_inches(9, 4.5)
            temporary = self.folder / f".{name}.{os.getpid()}.part.png"
            figure.savefig(temporary, dpi=110, bbox_inches="tight")
            pyplot.close(figure)
        temporary.replace(self.folder / f"{name}.png")
        return True


def as_experiment(overrides: list[str], header: list[str]) -> str:
    """Overrides as a file for configs/experiment: the groups as its defaults, the values below."""
    experiments, groups = [], {}
    values = OmegaConf.create({})
    for override in parse(overrides):
        key = override.key_or_group
        if key.startswith("hydra") or key in _LEFT_OUT:
            continue
        if key == "experiment":
            experiments.append(override.value())
        elif is_group(key):
            groups[f"override /{key}"] = override.value()
        else:
            OmegaConf.update(values, key, _plain(override))
    defaults = [*experiments, *({key: value} for key, value in groups.items())]
    text = "# @package _global_\n" + "".join(f"# {line}\n" for line in header)
    text += OmegaConf.to_yaml(OmegaConf.create({"defaults": defaults})) if defaults else ""
    return text + (OmegaConf.to_yaml(values) if values else "")


def _plain(override: Override) -> Any:
    value = override.value()
    return value.text if isinstance(value, QuotedString) else value


def _score(trial: FrozenTrial) -> float:
    """The validation accuracy of a trial; of one that was stopped its best so far, -1 if it has none."""
    if trial.state is TrialState.COMPLETE and trial.value is not None:
        return trial.value
    return max(trial.intermediate_values.values(), default=-1)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
