"""What Optuna has of a search: the space, the storage that processes share, the point of the next trial, pictures."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep
from hydra.utils import get_class
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BruteForceSampler, RandomSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from src.config.compose import parse
from src.config.errors import UserError
from src.config.schema import NamedComponent, TuneConfig
from src.results.outcome import described

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
GRACE = 10
LEFT_OUT = "left out"  # of the search: see leave_out


def read_space(texts: Mapping[str, str]) -> dict[str, Distribution]:
    """What a search varies, from Hydra's notation; raises UserError if there is nothing, or it is no range."""
    if not texts:
        raise UserError("search: there is nothing to vary. Name a key with choice(...) or interval(...).")
    space = {}
    for key, text in texts.items():
        try:
            space[key] = _distribution(text)
        except (UserError, ValueError, IndexError) as error:
            raise UserError(f"{key}={text}: {error}") from error
    return space


def _distribution(text: str) -> Distribution:
    override = parse([f"key={text}"])[0]
    value: Any = override.value()
    if isinstance(value, ChoiceSweep):
        return CategoricalDistribution([str(choice) for choice in override.sweep_string_iterator()])
    options: dict[str, Any]
    if isinstance(value, RangeSweep):
        if not value.step or not (points := list(value.range())):
            raise UserError("there is no number in that range.")
        low, high, options = points[0], points[-1], {"step": value.step}
    elif isinstance(value, IntervalSweep):
        low, high, options = value.start, value.end, {"log": "log" in value.tags}
    else:
        raise UserError("expected choice(...), range(...) or interval(...).")
    if not -math.inf < low <= high < math.inf:
        raise UserError("expected two finite numbers, the lower one first.")
    if options.get("log") and low <= 0:
        raise UserError("expected numbers above 0, for they are drawn by their logarithm.")
    whole = all(isinstance(number, int) for number in (low, high, *options.values()))
    return IntDistribution(low, high, **options) if whole else FloatDistribution(low, high, **options)


def open_study(folder: Path, config: TuneConfig, mode: str | None) -> optuna.Study:
    """The study of this name, new or begun before; raises UserError if its storage can't be used."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message=".*is ignored because this `step`.*")  # seen before a kill
    pruner = _build(config.pruner) if config.pruner else optuna.pruners.NopPruner()
    options: Any = {"study_name": config.name, "direction": f"{mode}imize", "load_if_exists": True}
    return optuna.create_study(storage=open_storage(folder, config.storage), pruner=pruner, **options)


def open_storage(folder: Path, address: str | None) -> BaseStorage:
    """The journal in `folder`, or the database at an `address`; raises UserError if it can't be opened."""
    if address is None:
        path = folder / "study.journal"
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_CuttingLock(path)))
    shown = without_password(address)
    if "://" not in address:
        raise UserError(f"storage={shown}: expected an address, such as sqlite:///{shown}.")
    # a database that another process or a slow disk has locked is waited for; SQLite itself would wait for 5 seconds
    options: Any = {"connect_args": {"timeout": 120}} if address.startswith("sqlite") else {}
    try:
        return RDBStorage(address, engine_kwargs=options)
    except Exception as error:  # SQLAlchemy's, its drivers' and Alembic's, of which none is known here
        raise UserError(f"storage={shown}: {without_password(' '.join(str(error).split()))[:300]}") from error


def without_password(text: str) -> str:
    """The same with stars for the passwords in its addresses."""
    return re.sub(r":(?!//)\S*@|(?<=password=)[^&\s]+", lambda found: ":***@" if found[0][0] == ":" else "***", text)


class _CuttingLock(JournalFileOpenLock):
    """Cuts off a line that a killed process has left unfinished: behind it Optuna would write what it can't read.

    A lock that a kill has left is broken after `GRACE` seconds; to write a line takes milliseconds.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), grace_period=GRACE)
        self._journal = path

    def acquire(self) -> bool:
        super().acquire()
        with self._journal.open("rb+") as file:
            if not (content := file.read()).endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)
        return True


def real_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials of a study without those that wait, or are left out."""
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if LEFT_OUT not in trial.user_attrs and trial.state is not TrialState.WAITING]


def ask(study: optuna.Study, space: Mapping[str, Distribution], config: TuneConfig) -> Trial | None:
    """A trial at a point that no other one has; None where there are `n_trials`, or no more points."""
    countable = not any(isinstance(numbers, FloatDistribution) and numbers.step is None for numbers in space.values())
    others = [trial.params for trial in real_trials(study)]
    if len(others) >= config.n_trials:
        return None
    # a sampler that is seeded once would begin anew with its first points whenever a process starts
    entropy = [config.sampler.arguments().get("seed") or 0, len(study.get_trials(deepcopy=False))]
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    sampler = _build(config.sampler, seed=seed)
    for study.sampler in (sampler, BruteForceSampler(seed) if countable else RandomSampler(seed)):
        trial = study.ask(dict(space))
        study.sampler = sampler  # the other one would stop the study at its last point
        if trial.params not in others:
            return trial
        leave_out(study, trial)
    return None


def leave_out(study: optuna.Study, trial: Trial) -> None:
    """Never run a trial that repeats another one, or was killed before it had a point."""
    trial.set_user_attr(LEFT_OUT, True)
    study.tell(trial, state=TrialState.FAIL)


def _build(config: NamedComponent, **more: Any) -> Any:
    try:
        return get_class(config.target)(**config.arguments() | more)
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"{config.name}: {error}") from error


def save_pictures(study: optuna.Study, folder: Path, monitor: str) -> None:
    """Write history.png, importances.png and parallel.png; none where the trials are too few or too alike for them."""
    from matplotlib import pyplot

    from src.results.figures.canvas import form, save

    trials, name = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]), described(monitor)
    if len({trial.value for trial in trials}) < 2:
        return
    pyplot.switch_backend("agg")
    plots: Any = optuna.visualization.matplotlib
    with warnings.catch_warnings(), pyplot.style.context(["default", {"savefig.bbox": "tight"}]):
        warnings.simplefilter("ignore")
        history = plots.plot_optimization_history(study, target_name=name)
        importances = plots.plot_param_importances(study, target_name=name)
        parallel = plots.plot_parallel_coordinate(study, target_name=name)
        history.locator_params("x", integer=True, min_n_ticks=1)
        for axes in (history, *parallel.figure.axes[:2]):  # the second has the colours
            axes.yaxis.set_major_formatter(form(monitor))
        keys = sorted({key for trial in trials for key in trial.params})  # Optuna's order; it cuts them
        parallel.set_xticks(range(len(keys) + 1), [name, *keys], rotation=20, ha="right")
        for picture, axes in {"history": history, "importances": importances, "parallel": parallel}.items():
            axes.figure.set_size_inches(9, 4.5)
            save(axes.figure, folder / f"{picture}.png")
            pyplot.close(axes.figure)
