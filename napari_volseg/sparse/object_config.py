"""Everything about classifying objects that is not the network's own, in one frozen dataclass."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - forms and options read the types
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from napari_volseg.data.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ObjectConfig:
    """What of an object a network sees, and how it is trained on examples.

    Raises
    ------
    InputError
        For a value out of its range; the message names the field.
    """

    model: str = "vgg13_3d"
    """Network, one of those that `napari-volseg models` lists as labeling objects."""

    preset: str = "auto"
    """The network's settings: "auto" fits the device, "paper" is the paper's."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the network's own configuration to set over the preset."""

    sees: Literal["image", "mask", "both"] = "both"
    """What a crop holds: gray values, the object's mask, or both as channels."""

    context: float = 1.25
    """Edge of a crop, in largest sides of its object: sizes do not show, shapes do."""

    extent: float = 0.0
    """Edge of every crop, in the image's unit, so that sizes show; 0 means by context."""

    turns: bool = True
    """Turn crops by 90 degrees, in planes in which the voxels are about as long as wide."""

    flips: bool = True
    """Mirror crops along random axes; not for shapes whose mirror image is another class."""

    gray_value: float = 0.05
    """Strength of changes of brightness and contrast, in standard deviations of the image."""

    minutes: float = 1.0
    """Minutes to train; ignored if steps are given."""

    steps: int = 0
    """Steps to train; 0 means: train by time."""

    device: str = "auto"
    """Where to compute: "auto" (CUDA, else MPS, else CPU) or a name that torch knows ("cuda:1")."""

    seed: int = 0
    """Same seed, device, inputs and steps give the same classes."""

    def __post_init__(self) -> None:
        if self.sees not in ("image", "mask", "both"):
            raise InputError(f"sees is {self.sees!r}; choose image, mask or both")
        if not self.context >= 1:
            raise InputError(f"context is {self.context}; at 1 a crop just holds its object")
        if not self.extent >= 0:
            raise InputError(f"extent is {self.extent}; give a positive length, or 0 for context")
        if not self.gray_value >= 0:
            raise InputError(f"gray_value is {self.gray_value}; it cannot be negative")
        if self.steps < 0:
            raise InputError(
                f"steps is {self.steps}; give a positive number, or 0 to train by time"
            )
        if self.steps == 0 and not self.minutes > 0:
            raise InputError(f"minutes is {self.minutes}; give a positive number")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain values that json can write."""
        return asdict(self) | {"options": dict(self.options)}
