"""Before a training begins: what memory it will take, and what makes it fit into what is free."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.data.annotation import Annotation
from napari_volseg.data.errors import InputError
from napari_volseg.inference.device import (
    Precision,
    describe_device,
    free_memory,
    pick_device,
    pick_precision,
)
from napari_volseg.inference.memory import SAFE
from napari_volseg.models.registry import get_architecture
from napari_volseg.training.estimate_memory import Estimate, estimate
from napari_volseg.training.memory import (
    TWICE,
    batch_of,
    halve_tile,
    patch_names,
    patch_shapes,
    shape_name,
    smaller_step,
)
from napari_volseg.training.run import resumed_config
from napari_volseg.training.stand_in import Unpainted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from napari_volseg.data.volume import Volume
    from napari_volseg.models.checkpoint import Checkpoint
    from napari_volseg.models.registry import AnyArchitecture
    from napari_volseg.sparse.config import TrainingConfig

WORTH = 0.9
"""Of a step's memory, what computing features twice must leave at most, to be worth the time."""

TIGHT = 0.6
"""Part of the free memory from which on it is called tight."""


@dataclass(frozen=True)
class MemoryPlan:
    """What a training will take, and what it was made to fit by.

    Attributes
    ----------
    needed : int
        Bytes at most, as estimated; 0 where the network defies the estimate.
    free : int
        Bytes that the device has left.
    model_config : dataclass
        The network's settings, with patches and tiles that fit.
    batch_size : int
        Patches a step that fit; 0 where nothing had to be changed.
    recompute : bool
        Whether steps compute features twice rather than keep them.
    precision : "float32" or "bfloat16"
        What steps compute in.
    smaller : str
        What takes less so that it fits, for the user, or "".
    """

    needed: int
    free: int
    model_config: Any
    batch_size: int = 0
    recompute: bool = False
    precision: Precision = "float32"
    smaller: str = ""

    @property
    def tight(self) -> bool:
        """Whether there is little room to spare, or something was made smaller for it."""
        return bool(self.smaller) or self.needed > TIGHT * self.free

    def to_json(self) -> dict[str, Any]:
        """Return plain values that json can write."""
        return {
            "needed_bytes": self.needed or None,
            "free_bytes": self.free,
            "precision": self.precision,
            "computed_twice": self.recompute,
            "made_smaller": self.smaller,
        }

    @property
    def parts(self) -> tuple[str, ...]:
        """What there is to say: the figures, 16 bits, and what was made smaller."""
        known = f"needs about {gigabytes(self.needed)} of {gigabytes(self.free)} free"
        half = f"computes in {self.precision}" if self.precision != "float32" else ""
        return tuple(part for part in (known if self.needed else "", half, self.smaller) if part)


@dataclass(frozen=True)
class Size:
    """What of a training can be chosen so that it fits.

    Attributes
    ----------
    batch : int
        Patches a step.
    recompute : bool
        Whether steps compute features twice rather than keep them.
    model_config : dataclass
        The network's settings, patches and tiles among them.
    """

    batch: int
    recompute: bool
    model_config: Any


def plan_memory(
    architecture: AnyArchitecture,
    model_config: Any,
    training: TrainingConfig,
    volumes: Sequence[Volume],
    n_classes: int,
    device: torch.device,
) -> MemoryPlan:
    """Estimate the memory of a training, and make its steps and tiles take less until they fit.

    Parameters
    ----------
    model_config : dataclass
        As the architecture was configured.
    n_classes : int
        That are painted.

    Raises
    ------
    InputError
        If nothing that can be made smaller is enough, or for a precision that the device lacks.
    """
    extents = tuple((v.channels, v.shape, v.spacing) for v in volumes)
    free = free_memory(device)
    precision = pick_precision(training.precision, device)
    can = training.recompute == "auto"
    first = size = Size(
        batch_of(training, model_config), training.recompute == "always", model_config
    )

    def foresee(size: Size) -> Estimate | None:
        sized = replace(
            training,
            batch_size=size.batch,
            precision=precision,
            recompute="always" if size.recompute else "never",
        )
        return estimate(architecture, size.model_config, sized, extents, n_classes, device)

    least = math.inf
    while True:
        found = foresee(size)
        if found is None or found.total <= SAFE * free:
            break
        least = min(least, found.total)
        twice = replace(size, recompute=True) if can and not size.recompute else None
        less = smaller_one(found, size, twice, foresee)
        if less is None:
            raise InputError(
                f"{architecture.title} needs about {gigabytes(least)} of memory for "
                f"{volumes[0].name} even in its smallest steps, but {describe_device(device)} has "
                f"{gigabytes(free)} free; close other programs, crop the image, or choose another "
                "architecture or device"
            )
        size = less
    return MemoryPlan(
        needed=found.total if found else 0,
        free=free,
        model_config=size.model_config,
        batch_size=size.batch if size.batch < first.batch else 0,
        recompute=size.recompute,
        precision=precision,
        smaller=what_is_smaller(first, size),
    )


def smaller_one(
    found: Estimate, size: Size, twice: Size | None, foresee: Callable[[Size], Estimate | None]
) -> Size | None:
    """Make the larger of step and tile smaller, the other if it cannot be; None if neither can.

    Parameters
    ----------
    found : Estimate
        Of the size.
    twice : Size or None
        The same with features computed twice, if that can still be chosen.
    foresee : callable (Size) -> Estimate or None
    """
    tile = halve_tile(size.model_config)
    with_tile = None if tile is None else replace(size, model_config=tile)
    if with_tile is not None and found.tile >= found.step:
        return with_tile
    # It learns the same, only later; smaller batches and patches learn less.
    then = twice and foresee(twice)
    if then and then.step <= WORTH * found.step:
        return twice
    step = smaller_step(size.batch, size.model_config)
    return replace(size, batch=step[0], model_config=step[1]) if step else with_tile


def what_is_smaller(before: Size, after: Size) -> str:
    """Say what takes less, as "patches of 8 x 16 x 16 voxels, to fit"."""
    parts = []
    own, first = after.model_config, before.model_config
    if after.recompute and not before.recompute:
        parts.append(TWICE)
    if after.batch < before.batch:
        parts.append(f"{after.batch} patch{'es' if after.batch > 1 else ''} a step")
    if patch_shapes(own) != patch_shapes(first):
        parts.append(f"patches of {patch_names(own)} voxels")
    if getattr(own, "tile", None) != getattr(first, "tile", None):
        parts.append(f"tiles of {shape_name(own.tile)} voxels")
    return f"{', '.join(parts)}, to fit" if parts else ""


def gigabytes(size: float) -> str:
    """Write a number of bytes, as "1.2 GB"."""
    return f"{size / 1e9:.1f} GB"


def forecast(
    volume: Volume, n_classes: int, training: TrainingConfig, resume: Checkpoint | None = None
) -> MemoryPlan:
    """Plan the memory of a training before there is one.

    Raises
    ------
    InputError
        As ``plan_memory``, or if the settings do not fit.
    """
    device = pick_device(training.device)
    architecture = get_architecture(training.model)
    if resume is None:
        case = Unpainted(volume, Annotation(np.zeros((1, 1, 1), np.uint8)))
        model_config = architecture.configure(training, [case], device)
    else:
        model_config = resumed_config(architecture, resume)
    return plan_memory(architecture, model_config, training, [volume], n_classes, device)
