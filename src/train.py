"""Train a network and test its best checkpoint once: python -m src.train dataset=mnist"""

from __future__ import annotations

import time
from pathlib import Path

from src.cli import command_line, importing, launch
from src.config import TrainConfig, UserError


def train(config: TrainConfig, folder: Path) -> float | None:
    """Run one experiment in `folder`; gives the best validation accuracy, None if none was measured."""
    # a config that was refused must not wait for torch
    with importing():
        import lightning as L

        from src import checkpoint, experiment, results, screen, training
        from src.data.images import split
        from src.hardware import pick_hardware

    refuse_used(folder)
    resumed = checkpoint.to_resume(config.resume) if config.resume else None
    hardware = pick_hardware(config.device, config.precision)
    images = experiment.read_images(config.dataset, config.data_dir, shared=config.devices > 1)
    splits = split(images, config.dataset.valid_fraction, config.seed)
    config = config.model_copy(update={"dataset": experiment.with_found(config.dataset, splits)})
    if resumed:
        checkpoint.refuse_other(resumed, config)
    about = results.describe(config, splits, hardware.precision, command_line("train"))

    L.seed_everything(config.seed, verbose=False)
    datamodule = experiment.build_datamodule(config, splits)
    classifier = experiment.build_classifier(config, hardware, about)
    summary = experiment.summarize(classifier, len(splits.classes))
    if config.compile:
        experiment.compile_network(classifier, hardware)
    trainer = training.build_trainer(config, hardware, folder, len(splits.classes))
    if trainer.is_global_zero:
        screen.show_start(config, splits, hardware, folder, summary)
        results.write_config(folder / "config.yaml", config)

    started = time.perf_counter()
    trainer.fit(classifier, datamodule, ckpt_path=resumed.path if resumed else None, weights_only=True)
    seconds = time.perf_counter() - started

    best = training.best_checkpoint(trainer)
    experiment.load_weights(classifier, checkpoint.load(best))
    scores = trainer.test(classifier, datamodule, verbose=False)[0]
    measured = training.measured(trainer, classifier, hardware.precision)
    outcome = results.collect(about, scores, measured, best, seconds)
    if trainer.is_global_zero:
        training.record(trainer, config, outcome)
        results.write_json(folder / "results.json", outcome)
        from src import figures  # draws with matplotlib, for which the first step need not wait

        figures.save_summary(folder, classifier, datamodule, outcome)
        screen.show_end(outcome, folder)
    return outcome["val"]["accuracy"]


def refuse_used(folder: Path) -> None:
    """Two runs in one folder would write over each other."""
    if (folder / "results.json").exists() or (folder / "checkpoints").exists():
        raise UserError(f"hydra.run.dir={folder}: a run lies there already. Choose another folder, or remove that one.")


def main() -> None:
    launch("train", TrainConfig, train)


if __name__ == "__main__":
    main()
