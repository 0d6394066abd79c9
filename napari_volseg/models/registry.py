"""What an architecture is, and the list of those there are.

A new architecture is one new file in this folder that defines ``ARCHITECTURE``; third
parties name theirs in the entry-point group ``napari_volseg.models``.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from napari_volseg.data.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from _typeshed import DataclassInstance

    from napari_volseg.data.annotation import Case
    from napari_volseg.data.tiles import Region
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.pool import Pool
    from napari_volseg.sparse.stage import Stage


C = TypeVar("C", bound="DataclassInstance")
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Walk:
    """How an architecture walks over a volume.

    Attributes
    ----------
    core : (z, y, x)
        Voxels that a tile writes; 0 stands for the whole axis.
    halo : (z, y, x)
        Context read on each side of the core.
    border : "mirror" or "clip"
        Beyond the volume: the mirrored volume, or nothing (the tile is smaller there).
    align : (z, y, x)
        Tiles begin at multiples of this, so that pooling falls on the same voxels
        whatever the tile; the cores are multiples of it.
    position : bool
        Whether blocks get the position channels (``sparse.position``).
    """

    core: tuple[int, int, int]
    halo: tuple[int, int, int] = (0, 0, 0)
    border: Literal["mirror", "clip"] = "clip"
    align: tuple[int, int, int] = (1, 1, 1)
    position: bool = False


def count_all(module: nn.Module) -> int:
    """Count all parameters, as most papers do."""
    return sum(p.numel() for p in module.parameters())


def unfitted(preset: C, cases: Sequence[Case]) -> C:
    """Return a preset as it is: most papers' settings are the same for every volume."""
    return preset


@dataclass(frozen=True, eq=False)
class Architecture(Generic[C, M]):
    """One network of a paper: how to build it, train it, and walk a volume with it.

    C is the type of its configuration, M that of its module.

    Attributes
    ----------
    name, title, summary, paper : str
        Registry name; what the window shows; one line for the tooltip; the citation.
    config : type
        Its frozen configuration dataclass.
    presets : mapping of str to config
        Named settings; "paper" is the paper's.
    fit : callable (preset, cases) -> config
        Fills in what a preset leaves to the volumes, such as their voxel size.
    auto : callable (cases, device, training) -> config
        The settings that fit the device and the voxels.
    build : callable (config, in_channels, n_classes) -> module
        ``module(image (B, C, Z, Y, X))`` gives logits (B, K, ...).
    stages : callable (config, training, pool) -> stages
        How it is trained.
    walk : callable (config, shape) -> Walk
        How it walks over a volume of that shape.
    probabilities : callable (module, config, block, core) -> tensor
        Class probabilities (K, z, y, x) of a core, a region of the block
        (1, C, z, y, x) that was read with ``walk``'s halo.
    paper_channels, paper_classes : int
        Input channels and classes of the paper, for its parameter count.
    count : callable (module) -> int
        Parameters as its paper counts them.
    """

    name: str
    title: str
    summary: str
    paper: str
    config: type[C]
    presets: Mapping[str, C]
    auto: Callable[[Sequence[Case], torch.device, TrainingConfig], C]
    build: Callable[[C, int, int], M]
    stages: Callable[[C, TrainingConfig, Pool], tuple[Stage[M], ...]]
    walk: Callable[[C, tuple[int, int, int]], Walk]
    probabilities: Callable[[M, C, Tensor, Region], Tensor]
    fit: Callable[[C, Sequence[Case]], C] = unfitted
    paper_channels: int = 1
    paper_classes: int = 2
    count: Callable[[nn.Module], int] = count_all

    def configure(self, training: TrainingConfig, cases: Sequence[Case], device: torch.device) -> C:
        """Return the configuration that a training asks for.

        Raises
        ------
        InputError
            For an unknown preset or option.
        """
        if training.preset == "auto":
            config = self.auto(cases, device, training)
        elif training.preset in self.presets:
            config = self.fit(self.presets[training.preset], cases)
        else:
            known = ", ".join(("auto", *self.presets))
            raise InputError(
                f"{self.name} has no preset {training.preset!r}; choose one of {known}"
            )
        known_options = {f.name for f in fields(self.config)}
        if unknown := set(training.options) - known_options:
            raise InputError(
                f"{self.name} has no option {', '.join(sorted(unknown))}; "
                f"it has {', '.join(sorted(known_options))}"
            )
        return replace(config, **training.options)

    def paper_parameters(self) -> int:
        """Parameters of the paper's configuration, as its paper counts them."""
        with torch.device("meta"):
            module = self.build(self.presets["paper"], self.paper_channels, self.paper_classes)
        return self.count(module)


AnyArchitecture = Architecture[Any, Any]


@cache
def architectures() -> dict[str, AnyArchitecture]:
    """Return every architecture by name: this folder's, then third parties'."""
    found: dict[str, AnyArchitecture] = {}
    package = importlib.import_module("napari_volseg.models")
    for module_info in pkgutil.iter_modules(package.__path__, "napari_volseg.models."):
        module = importlib.import_module(module_info.name)
        for architecture in getattr(module, "ARCHITECTURES", ()):
            found[architecture.name] = architecture
    for entry in entry_points(group="napari_volseg.models"):
        architecture = entry.load()
        found[architecture.name] = architecture
    return found


def get_architecture(name: str) -> AnyArchitecture:
    """Return the architecture of that name.

    Raises
    ------
    InputError
        If there is none; the message lists those there are.
    """
    try:
        return architectures()[name]
    except KeyError:
        known = ", ".join(architectures())
        raise InputError(f"no architecture is called {name!r}; there are: {known}") from None
