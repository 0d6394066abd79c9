"""What a running training tells, and what it can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from napari_volseg.models.belief import Belief
from napari_volseg.models.evidence import Evidence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.data.tiles import Region
    from napari_volseg.models.checkpoint import Checkpoint
    from napari_volseg.training.plan_memory import MemoryPlan

    LabelBox = tuple[Region, NDArray[np.integer]]


class Command(Enum):
    """What ``generator.send`` accepts, beside ``PreviewRequest`` and ``NewLabels``."""

    STOP = "stop"
    """Yield a last event with a checkpoint and end."""


@dataclass(frozen=True)
class PreviewRequest:
    """Ask a running training what it says now of a region of its first volume.

    The next event brings the answer; before anything is learned, the one after the first
    step. A later request replaces one that is not answered yet.
    """

    region: Region


@dataclass(frozen=True, eq=False)
class NewLabels:
    """Tell a running training how labels of its first volume have become.

    The next step learns from them, and the next event says so. Voxels that were held out
    stay held out, and voxels that were trained on are never held out. Scores of before are
    of other voxels: which weights are the best is decided anew. A training by time goes on for
    half of its budget at least.

    For a class that has paint for the first time the network gets an output, and keeps what it
    has learned; the stages begin anew, the instant answer among them, if there is one. Where
    the user weighs the classes, a new one has no weight, and is left out.

    Attributes
    ----------
    boxes : tuple of (region, integer (z, y, x))
        Regions, and all labels in them; where regions overlap, the last one holds.
    classes : tuple of LabelClass
        Names and colors of new classes; those that are missing get the default ones.
    """

    boxes: tuple[LabelBox, ...] = field(repr=False)
    classes: tuple[LabelClass, ...] = ()


@dataclass(frozen=True, eq=False)
class Preview:
    """What a network says of a region in the middle of its training.

    Attributes
    ----------
    region : region
        Of the first volume.
    labels : uint8 or uint16 (z, y, x)
        Class ids, never 0.
    seconds : float
        What it took the training.
    """

    region: Region
    labels: NDArray[np.integer] = field(repr=False)
    seconds: float


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
    belief : Belief
        What to make of the network's opinions, by these voxels; the other figures are
        with it.
    evidence : Evidence
        What the mean hides: how it differs between slices, near and far from paint, and
        between orientations.
    """

    iou: tuple[float | None, ...]
    mean_foreground_iou: float
    standard_error: float
    belief: Belief = Belief()  # noqa: RUF009 - it is frozen
    evidence: Evidence = Evidence()  # noqa: RUF009 - it is frozen


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
        Name of the stage, after a step the one that the step was of.
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
    instant : bool
        Whether the network is as yet an instant answer: its pixel classifier alone.
    preview : Preview or None
        Set where one was asked for.
    settled : bool
        Whether held-out voxels no longer improve, and the end was brought near for that.
    labels : NewLabels or None
        Those that were sent, on the first event of a training that learns from them; or that
        does not: then ``note`` says why.
    memory : MemoryPlan or None
        What it will take, on the first event.
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
    instant: bool = False
    preview: Preview | None = None
    settled: bool = False
    labels: NewLabels | None = None
    memory: MemoryPlan | None = None


Message = Command | PreviewRequest | NewLabels
"""What can be sent to a running training."""
