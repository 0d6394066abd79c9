"""The work of ``napari-volseg train``."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_volseg.cli.terminal import naming, progress, say, stop_on_interrupt
from napari_volseg.data.annotation import UNLABELED, Case
from napari_volseg.data.errors import InputError
from napari_volseg.data.files import holds_zero, read_annotation, read_volume
from napari_volseg.inference.large import is_large
from napari_volseg.models.checkpoint import config_from_json, load_model, save_model
from napari_volseg.review.reliability import evidence_json, held_out_figures, reliability_advice
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.training.events import Command, Progress
from napari_volseg.training.loop import train
from napari_volseg.training.processes import process_number, several

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from napari_volseg.models.checkpoint import Checkpoint
    from napari_volseg.training.plan_memory import MemoryPlan


@dataclass(frozen=True)
class Trained:
    """What a training came to."""

    path: Path
    checkpoint: Checkpoint
    loss: float | None
    device: str
    interrupted: bool
    settled: bool
    memory: MemoryPlan

    def to_json(self) -> dict[str, Any]:
        """Return plain values that json can write."""
        return {
            "model": str(self.path),
            "architecture": self.checkpoint.model,
            "steps": self.checkpoint.step,
            "seconds": round(self.checkpoint.seconds, 3),
            "loss": self.loss,
            "held_out_iou": self.checkpoint.score,
            "held_out": evidence_json(self.checkpoint),
            "classes": {str(c.id): c.name for c in self.checkpoint.classes},
            "device": self.device,
            "memory": self.memory.to_json(),
            "interrupted": self.interrupted,
            "no_longer_improved": self.settled,
        }

    def __str__(self) -> str:
        what = (
            f"{self.path}: {self.checkpoint.model}, "
            f"{'stopped after ' if self.interrupted else ''}{self.checkpoint.step} steps, "
            f"{self.checkpoint.seconds:.0f} s"
            f"{', until held-out IoU no longer improved' if self.settled else ''}"
        )
        figures = held_out_figures(self.checkpoint) or "held-out IoU unknown"
        return "\n".join([what, figures, *reliability_advice(self.checkpoint)])


def read_cases(files: Sequence[Path], unlabeled: int, proposals: Path | None = None) -> list[Case]:
    """Read IMAGE ANNOTATION pairs, and proposed labels if there is one pair.

    A value means the same class in all of them, also where 0 is a class that one of them
    has no paint of.

    Raises
    ------
    InputError
        For an odd number of files, for files that cannot be trained on, and for proposals
        with several images.
    """
    if not files or len(files) % 2:
        raise InputError(f"{len(files)} files; give pairs: IMAGE ANNOTATION [IMAGE ANNOTATION ...]")
    if proposals and len(files) > 2:
        raise InputError(f"{proposals}: proposals go with one image; give {files[0]} alone")
    cases = []
    labels = [*files[1::2], *([proposals] if proposals else [])]
    from_zero = unlabeled != UNLABELED and any(holds_zero(path) for path in labels)
    read = partial(read_annotation, unlabeled=unlabeled, from_zero=from_zero, in_blocks=is_large)
    for image, annotation in zip(files[::2], files[1::2], strict=True):
        volume = read_volume(image)
        with naming(annotation):
            painted = read(annotation)
            cases.append(Case(volume, painted))
    if proposals:
        with naming(proposals):
            proposed = read(proposals)
            cases[0] = replace(cases[0], proposals=proposed.labels)
    return cases


def read_start(
    resume: Path | None, options: Mapping[str, Any]
) -> tuple[Checkpoint | None, TrainingConfig]:
    """Return the checkpoint to go on from, if any, and what to train.

    Raises
    ------
    InputError
        If the model cannot be read, or an option is out of its range.
    """
    if resume is None:
        return None, TrainingConfig(**options)
    checkpoint = load_model(resume)
    # A model of another version may know settings that are no more.
    known = {field.name for field in fields(TrainingConfig)}
    before = {name: value for name, value in checkpoint.training.items() if name in known}
    return checkpoint, config_from_json(TrainingConfig, {**before, **options})


def run_training(
    cases: Sequence[Case],
    config: TrainingConfig,
    checkpoint: Checkpoint | None,
    output: Path,
) -> Trained:
    """Train to the end, or to Ctrl-C, and save the model.

    Raises
    ------
    InputError
        If the cases, the config or the checkpoint do not fit.
    KeyboardInterrupt
        If Ctrl-C came before the first step, or twice; nothing is saved.
    """
    last = memory = None
    iou = None
    with stop_on_interrupt(twice=not several()) as requested, progress("training") as report:
        for last in _follow(train(cases, config, resume=checkpoint), requested):
            iou = last.score.mean_foreground_iou if last.score else iou
            report(last.fraction, _describe(last, iou))
            if last.memory is not None:
                memory = last.memory
                say("; ".join((f"training with {last.device}", *memory.parts)))
            elif last.note:
                say(last.note)
    if last is None or last.checkpoint is None or memory is None:
        raise RuntimeError("the training ended without a checkpoint")
    if requested() and not last.step:
        raise KeyboardInterrupt
    if process_number() == 0:
        save_model(last.checkpoint, output)
    return Trained(
        output,
        last.checkpoint,
        last.loss,
        last.device,
        interrupted=requested(),
        settled=last.settled and not requested(),
        memory=memory,
    )


def _follow(
    run: Generator[Progress, Command | None, None], stop_requested: Callable[[], bool]
) -> Iterator[Progress]:
    """Yield a training's events; ask it to stop, once, when that is requested."""
    event = next(run)
    asked = False
    while True:
        yield event
        command = Command.STOP if stop_requested() and not asked else None
        asked = asked or command is not None
        try:
            event = run.send(command)
        except StopIteration:
            return


def _describe(event: Progress, iou: float | None) -> str:
    parts = [f"step {event.step}"]
    parts.append("preparing" if event.loss is None else f"loss {event.loss:.3f}")
    if iou is not None:
        parts.append(f"held-out IoU {iou:.3f}{', no longer improves' if event.settled else ''}")
    parts.append(f"{event.seconds_left:.0f} s left")
    return ", ".join(parts)
