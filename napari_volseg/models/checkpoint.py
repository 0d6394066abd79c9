"""The model file: one safetensors file with all that is needed to resume or predict."""

from __future__ import annotations

import json
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from napari_volseg.data.annotation import LabelClass
from napari_volseg.data.atomic import saving
from napari_volseg.data.errors import InputError
from napari_volseg.data.intensity import ChannelIntensity, Intensity, Window
from napari_volseg.models.belief import Belief
from napari_volseg.models.evidence import Evidence
from napari_volseg.models.registry import get_network

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor, nn

FORMAT = 2
SUFFIX = ".volseg"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained network.

    Attributes
    ----------
    model : str
        Name of the architecture.
    config : mapping
        Its configuration, as plain values.
    training : mapping
        The ``TrainingConfig``, as plain values.
    channels : int
        Input channels.
    classes : tuple of LabelClass
        Class k of the network is label ``classes[k].id``.
    spacing, unit : (z, y, x), str
        Voxel size it was trained at.
    intensity : Intensity
        Gray-value statistics of the training volumes, channel by channel.
    step, seconds : int, float
        Steps and seconds trained.
    score : float or None
        Mean foreground IoU of the weights on held-out labeled voxels.
    iou : tuple of float or None
        The same for each class; None where no voxel of it was held out.
    belief : Belief
        What to make of the network's opinions.
    weights : mapping of str to tensor
        What predicts: the best (averaged) weights so far, on the CPU.
    state : mapping of str to tensor
        What resuming needs besides: current weights, optimizer, random numbers.
        Empty in a file that only predicts.
    progress : mapping
        Plain values that belong to ``state``.
    evidence : Evidence
        What else the held-out voxels tell than ``score``.
    """

    model: str
    config: Mapping[str, Any]
    training: Mapping[str, Any]
    channels: int
    classes: tuple[LabelClass, ...]
    spacing: tuple[float, float, float]
    unit: str
    intensity: Intensity
    step: int
    seconds: float
    score: float | None
    iou: tuple[float | None, ...]
    belief: Belief
    weights: Mapping[str, Tensor] = field(repr=False)
    state: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    progress: Mapping[str, Any] = field(default_factory=dict, repr=False)
    evidence: Evidence = Evidence()  # noqa: RUF009 - it is frozen

    @property
    def class_ids(self) -> tuple[int, ...]:
        """Label of each class index."""
        return tuple(c.id for c in self.classes)

    def module(self, device: torch.device | str = "cpu") -> tuple[nn.Module, Any]:
        """Return the network with the predicting weights, in evaluation mode, and its config."""
        network = get_network(self.model)
        config = config_from_json(network.config, self.config)
        module = network.build(config, self.channels, len(self.classes))
        module.load_state_dict(dict(self.weights))
        return module.to(device).eval(), config

    def without_state(self) -> Checkpoint:
        """Return a copy that only predicts, about a third of the size."""
        return replace(self, state={}, progress={})


def config_from_json(config_type: type, values: Mapping[str, Any]) -> Any:
    """Build a configuration dataclass from JSON values: lists become tuples."""

    def frozen(value: Any) -> Any:
        return tuple(frozen(v) for v in value) if isinstance(value, list) else value

    return config_type(**{name: frozen(value) for name, value in values.items()})


def save_model(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write the model file; a reader never sees half of it.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    tensors = {f"weights.{k}": v.contiguous() for k, v in checkpoint.weights.items()}
    tensors |= {f"state.{k}": v.contiguous() for k, v in checkpoint.state.items()}
    document = {
        "format": FORMAT,
        "model": checkpoint.model,
        "config": dict(checkpoint.config),
        "training": dict(checkpoint.training),
        "channels": checkpoint.channels,
        "classes": [[c.id, c.name, c.color] for c in checkpoint.classes],
        "spacing": checkpoint.spacing,
        "unit": checkpoint.unit,
        "intensity": [
            (c.center, c.scale, c.mean, c.sd, *astuple(c.window)) for c in checkpoint.intensity
        ],
        "step": checkpoint.step,
        "seconds": checkpoint.seconds,
        "score": checkpoint.score,
        "iou": checkpoint.iou,
        "belief": asdict(checkpoint.belief),
        "evidence": asdict(checkpoint.evidence),
        "progress": dict(checkpoint.progress),
    }
    with saving(Path(path)) as temporary:
        try:
            save_file(tensors, temporary, metadata={"napari_volseg": json.dumps(document)})
        except SafetensorError as error:
            raise OSError(str(error)) from error


def channel_intensity(
    center: float, scale: float, mean: float, sd: float, *window: float
) -> ChannelIntensity:
    """Put together what a model file says of a channel; files of format 1 have no window."""
    return ChannelIntensity(center, scale, mean, sd, Window(*window))


def load_model(path: str | Path) -> Checkpoint:
    """Read a model file; nothing in it is ever executed.

    Raises
    ------
    InputError
        If the file is missing, is no model of ours, or was written by a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a model that `napari-volseg train` wrote")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        document = json.loads(metadata["napari_volseg"])
        version = document["format"]
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise InputError(
            f"{path}: not a napari-volseg model; give a file that `napari-volseg train` wrote"
        ) from error
    if version > FORMAT:
        raise InputError(f"{path}: written by a newer napari-volseg; update with pip to read it")
    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "state": {}}
    for key, tensor in tensors.items():
        part, _, name = key.partition(".")
        parts[part][name] = tensor
    return Checkpoint(
        model=document["model"],
        config=document["config"],
        training=document["training"],
        channels=document["channels"],
        classes=tuple(LabelClass(*c) for c in document["classes"]),
        spacing=tuple(document["spacing"]),
        unit=document["unit"],
        intensity=tuple(channel_intensity(*channel) for channel in document["intensity"]),
        step=document["step"],
        seconds=document["seconds"],
        score=document["score"],
        iou=tuple(document["iou"]),
        belief=config_from_json(Belief, document["belief"]),
        weights=parts["weights"],
        state=parts["state"],
        progress=document["progress"],
        evidence=config_from_json(Evidence, document["evidence"]),
    )
