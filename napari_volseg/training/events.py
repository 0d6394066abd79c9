"""What a running training tells, and what it can be told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_volseg.models.checkpoint import Checkpoint


class Command(Enum):
    """What ``generator.send`` accepts."""

    STOP = "stop"
    """Yield a last event with a checkpoint and end."""


@dataclass(frozen=True)
class Score:
    """Agreement with held-out labeled voxels, none of which were trained on.

    Attributes
    ----------
    iou : tuple of float or None
        Intersection over union of each class; None where no voxel of it is held out.
    mean_foreground_iou : float
        Mean over the classes except the first; over all if only the first is there.
    standard_error : float
        Of the mean, as if each held-out voxel were drawn by itself.
    """

    iou: tuple[float | None, ...]
    mean_foreground_iou: float
    standard_error: float


@dataclass(frozen=True)
class Progress:
    """One yield of a training: before the first step, after each step, and at the end.

    Attributes
    ----------
    step : int
        Steps done.
    fraction : float
        Part of the budget that is spent, 0 to 1.
    seconds, seconds_left : float
        Training time so far (pauses do not count), and what is left of the budget.
    steps_per_second : float
        Over the last steps.
    loss : float or None
        Loss of this step; None while a stage prepares.
    stage : str
        Name of the stage.
    device : str
        In words, for the user.
    memory_bytes : int
        Memory this training holds on its device (process memory on a CPU).
    score : Score or None
        Set on the steps that looked at the held-out voxels.
    checkpoint : Checkpoint or None
        Set when there is one worth keeping: after each score, and always at the end.
    note : str
        Something the user should know, or "".
    """

    step: int
    fraction: float
    seconds: float
    seconds_left: float
    steps_per_second: float
    loss: float | None
    stage: str
    device: str
    memory_bytes: int
    score: Score | None = None
    checkpoint: Checkpoint | None = None
    note: str = ""
