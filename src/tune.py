"""Search for the best options: python -m src.tune experiment=quick n_trials=20"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

from src.config import compose
from src.config import folder as runs
from src.config.check import check, flat, keys, nearest
from src.config.cli import Arguments, end, importing, need_loggers, read
from src.config.errors import RunError, Stopped, UserError
from src.config.groups import is_group
from src.config.help import help_text
from src.config.schema import TrainConfig, TuneConfig
from src.sweeps import jobs
from src.training.run import train

TUNES = runs.RUNS / "tune"


@dataclass(frozen=True)
class Request:
    """What a command line asks for: how to search, the fixed overrides, and key -> values in Hydra's notation."""

    config: TuneConfig
    fixed: list[str]
    varied: dict[str, str]
    config_dir: str | None

    def compose(self, overrides: list[str]) -> TrainConfig:
        """The config of a run with these overrides besides the fixed ones."""
        return check(compose.compose("train", [*self.fixed, *overrides], self.config_dir).values, TrainConfig)


def read_request(args: Arguments) -> Request:
    """Raises UserError if something of it can't be served."""
    own, fixed, varied = [], ["++test=false", "++report=false"], {}  # it must not choose by the test set
    for text, override in zip(args.overrides, compose.parse(args.overrides), strict=True):
        key = override.key_or_group
        if key.partition(".")[0] in TuneConfig.model_fields:
            own.append(f"~{key}" if override.value() is None and key in ("search", "pruner") else text)
        elif not is_group(key) and key.partition(".")[0] not in (*TrainConfig.model_fields, "hydra"):
            near = nearest(key, [*TuneConfig.model_fields, *keys(TrainConfig)])
            raise UserError(f"{key}: there is no such key.{near}")
        elif override.is_sweep_override():
            varied[key] = text.partition("=")[2]
        else:
            fixed.append(text)
    composed = compose.compose("tune", compose.declared(own), args.config_dir)
    config = check(composed.values, TuneConfig)
    named = {text.partition("=")[0].lstrip("+") for text in fixed}
    chosen = {key: str(text) for key, text in flat(config.search).items() if key not in named}
    base = compose.declared(fixed)
    trained = check(compose.compose("train", base, args.config_dir).values, TrainConfig)
    need_loggers(trained.logger)
    if trained.devices > 1:
        raise UserError("devices: each trial of a search has one. Start the same command once for each device.")
    if config.name is None:
        option = composed.whole.hydra.runtime.choices.get("search") or "search"
        config = config.model_copy(update={"name": f"{trained.dataset.name}_{trained.model.name}_{option}"})
    return Request(config, base, chosen | varied, args.config_dir)


def search(request: Request) -> bool:
    """Run trials until there are n_trials in all, and show what was found; whether any came to its end.

    Raises:
        UserError: a value of the space is refused, or another search has this name.
        Stopped: this process was asked to stop; the trial in hand goes on when the same command is given again.
    """
    from src.results import trials
    from src.sweeps.space import Space
    from src.sweeps.study import Study

    config, base = request.config, request.compose([])
    space = Space(request.varied)
    start = {one.key: one.probes[0] for one in space.dimensions}
    for one in space.dimensions:
        for value in one.probes:  # a wrong one is told before the first trial
            request.compose(space.overrides(start | {one.key: value}))
    folder = TUNES / str(config.name)
    study = Study(folder, str(config.name), config, base, space)
    print(f"search {config.name}: {len(study.trials)} of {config.n_trials} trials were begun, in {folder}", flush=True)
    jobs.claim_slot(folder)
    while True:
        with study.next() as trial:
            if trial is None:
                break
            _run(request, space, study, trial)
    jobs.release_slot()
    findings = trials.Findings(folder, study.optuna)
    findings.save(request.fixed, space)
    findings.show(config.n_trials)
    return findings.best is not None


def _run(request: Request, space: Any, study: Any, trial: Any) -> None:
    with importing():
        import lightning  # noqa: F401  # which the next one looks for
        from optuna import TrialPruned
        from optuna.trial import TrialState
        from optuna_integration import PyTorchLightningPruningCallback

    overrides = space.overrides(trial.params)
    place = study.place(trial.number)
    words = " ".join(text.removeprefix("++") for text in overrides)
    print(f"{place.name}: {words}", flush=True)
    error = ""
    try:
        config = request.compose(overrides)
        pruning = PyTorchLightningPruningCallback(trial, "val/acc")
        with (place / jobs.OUTPUT).open("a", encoding="utf-8") as output, redirect_stdout(output):
            score = train(config, place, callbacks=[PyTorchLightningPruningCallback(trial, "val/acc")])
        if score is None:
            raise UserError("nothing was validated, so that there is nothing to choose by.")
        study.optuna.tell(trial, score)
        print(f"{place.name}: {score:.2%} of the validation images", flush=True)
        return
    except TrialPruned as pruned:
        study.optuna.tell(trial, state=TrialState.PRUNED)
        for path in (place / "checkpoints").glob("*"):  # nothing goes on from them, and each has 650 MB
            path.unlink()
        print(f"{place.name}: {str(pruned)[:1].lower()}{str(pruned)[1:]}", flush=True)
        return
    except (UserError, RunError) as failure:
        error = str(failure)
    except Exception as failure:  # a bug is no reason to lose the other trials
        traceback.print_exc()
        error = f"{type(failure).__name__}: {failure}"
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exc()
    print(f"error: {place.name}: {error}", file=sys.stderr, flush=True)
    trial.set_user_attr("error", error)
    study.optuna.tell(trial, state=TrialState.FAIL)


def main() -> None:
    try:
        args = read("tune", sys.argv[1:])
        if args.help:
            print(help_text("tune", TuneConfig))
            return
        if args.multirun or args.show:
            raise UserError("src.tune takes KEY=VALUE and --config-dir only; src.train --cfg job shows a run's config.")
        found = search(read_request(args))
    except UserError as error:
        end(error, 2)
    except Stopped as stop:
        words = f"{Stopped(stop.number)} The same command goes on with the search, and with its last trial."
        end(Stopped(stop.number, words), stop.code)
    except KeyboardInterrupt:
        end(Stopped(2, "stopped by SIGINT. The same command goes on with the search."), 130)
    raise SystemExit(0 if found else 1)


if __name__ == "__main__":
    main()
