"""Everything about a training that is not the architecture's own, in one frozen dataclass.

The form in the window, the options of the command line and the JSON in the model file
are all made from these fields: the text under a field is its tooltip and its help.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - forms and options read the types
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from napari_volseg.data.errors import InputError


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What to train, for how long, on what, and how.

    A value of 0, "auto" or () means: the architecture or the data decides.

    Raises
    ------
    InputError
        For a value out of its range; the message names the field.
    """

    model: str = "unet3d"
    """Architecture, one of those that `napari-volseg models` lists."""

    preset: str = "auto"
    """The architecture's settings: "auto" fits device and voxels, "paper" is the paper's."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the architecture's own configuration to set over the preset."""

    minutes: float = 5.0
    """Minutes to train; ignored if steps are given."""

    until_no_better: bool = False
    """End earlier, once the IoU on held-out voxels no longer improves; the minutes are then the
    most that it takes."""

    steps: int = 0
    """Steps to train; 0 means: train by time."""

    device: str = "auto"
    """Where to train: "auto" (CUDA, else MPS, else CPU) or a name that torch knows ("cuda:1")."""

    seed: int = 0
    """Same seed, device, inputs and steps give the same model."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """"adamw" with warm-up and cosine for a short budget, or "sgd" as in the 3D U-Net paper."""

    learning_rate: float = 0.0
    """Peak learning rate; 0 means the architecture's own."""

    batch_size: int = 0
    """Patches a step; 0 means the architecture's own."""

    balance: float = 0.25
    """How far class weights go from natural frequencies (0) to equal influence (1)."""

    class_weights: tuple[float, ...] = ()
    """Weight of each class in the loss, multiplied onto the balance; () means all 1."""

    proposal_weight: float = 0.3
    """Weight of all proposed labels together, if there are any, against that of all paint."""

    dice_weight: float = 0.5
    """Share of the Dice term in the loss (0: cross-entropy alone)."""

    augmentation: float = 0.2
    """Probability that a patch is rotated, scaled and elastically deformed."""

    rotation_degrees: float = 15.0
    """Largest rotation about each axis."""

    scaling: float = 0.1
    """Largest relative change of size."""

    elastic_sd_voxels: float = 4.0
    """Standard deviation of the elastic field's vectors, in voxels of the finest axis."""

    elastic_spacing_voxels: float = 32.0
    """Distance of the elastic field's grid points, in voxels of the finest axis."""

    gray_value: float = 0.05
    """Strength of changes of brightness and contrast, in standard deviations of the image."""

    flips: bool = False
    """Mirror patches along random axes."""

    held_out: float = 0.1
    """Part of the labeled voxels that is never trained on and chooses the best weights."""

    averaging: float = 0.99
    """Decay of the running average of the weights, which predicts; 0 means the last weights."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What steps compute in: "auto" takes the 16 bits of bfloat16 on a CUDA GPU that has them, and
    float32 elsewhere, where they gain nothing."""

    recompute: Literal["auto", "always", "never"] = "auto"
    """Compute features twice a step rather than keep them, which learns the same with less memory
    in more time (gradient checkpointing); "auto" only where memory asks for it."""

    normalization: Literal["volume", "training"] = "volume"
    """Standardize by each volume's own gray values, or (CT) by those of the training volumes."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_weights", tuple(float(w) for w in self.class_weights))
        if self.steps < 0:
            raise InputError(
                f"steps is {self.steps}; give a positive number, or 0 to train by time"
            )
        if self.steps == 0 and not self.minutes > 0:
            raise InputError(f"minutes is {self.minutes}; give a positive number")
        for name in (
            "learning_rate",
            "batch_size",
            "scaling",
            "gray_value",
            "rotation_degrees",
            "elastic_sd_voxels",
        ):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; it cannot be negative")
        for name in ("balance", "proposal_weight", "dice_weight", "augmentation"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; it goes from 0 to 1")
        for name in ("held_out", "averaging"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it goes from 0 to below 1")
        if self.elastic_spacing_voxels <= 0:
            raise InputError(
                f"elastic_spacing_voxels is {self.elastic_spacing_voxels}; it must be positive"
            )
        if any(w < 0 for w in self.class_weights):
            raise InputError(f"class_weights {self.class_weights} cannot be negative")
        if self.optimizer not in ("adamw", "sgd"):
            raise InputError(f"optimizer is {self.optimizer!r}; choose adamw or sgd")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise InputError(f"precision is {self.precision!r}; choose auto, float32 or bfloat16")
        if self.recompute not in ("auto", "always", "never"):
            raise InputError(f"recompute is {self.recompute!r}; choose auto, always or never")
        if self.normalization not in ("volume", "training"):
            raise InputError(f"normalization is {self.normalization!r}; choose volume or training")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain values that json can write."""
        return asdict(self) | {"options": dict(self.options)}
