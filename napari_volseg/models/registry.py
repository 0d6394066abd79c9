"""What a network of a paper is, and the list of those there are.

A new one is one new file in this folder that defines ``ARCHITECTURES``, a tuple of
``Architecture`` (labels voxels) or ``Classifier`` (labels objects); third parties name
theirs in the entry-point group ``napari_volseg.models``.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from napari_volseg.data.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from _typeshed import DataclassInstance

    from napari_volseg.data.annotation import Case
    from napari_volseg.data.tiles import Region
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.crops import Examples
    from napari_volseg.sparse.object_config import ObjectConfig
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


def count_convolutions(module: nn.Module) -> int:
    """Weights and biases of the convolutions, as Cicek's 19,069,955 counts them."""
    return sum(
        p.numel()
        for layer in module.modules()
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d)
        for p in layer.parameters()
    )


def unfitted(preset: C, cases: Sequence[Case]) -> C:
    """Return a preset as it is: most papers' settings are the same for every volume."""
    return preset


def no_halves(module: nn.Module) -> bool:
    """Answer for the networks that were trained on no held-out voxel."""
    return False


@dataclass(frozen=True, eq=False, kw_only=True)
class Network(Generic[C, M]):
    """What every network of a paper has, whatever it labels.

    C is the type of its configuration, M that of its module.

    Attributes
    ----------
    labels : "voxels" or "objects"
        What it gives a class to.
    name, title, summary, paper : str
        Registry name; what the window shows; one line for the tooltip; the citation.
    config : type
        Its frozen configuration dataclass.
    presets : mapping of str to config
        Named settings; "paper" is the paper's.
    build : callable (config, in_channels, n_classes) -> module
    paper_channels, paper_classes : int
        Input channels and classes of the paper, for its parameter count.
    count : callable (module) -> int
        Parameters as its paper counts them.
    """

    labels: ClassVar[Literal["voxels", "objects"]]

    name: str
    title: str
    summary: str
    paper: str
    config: type[C]
    presets: Mapping[str, C]
    build: Callable[[C, int, int], M]
    paper_channels: int = 1
    paper_classes: int = 2
    count: Callable[[nn.Module], int] = count_all

    def settings(
        self,
        preset: str,
        options: Mapping[str, Any],
        auto: Callable[[], C],
        fit: Callable[[C], C] = lambda preset: preset,
    ) -> C:
        """Return the configuration of a preset, "auto" among them, with options over it.

        Raises
        ------
        InputError
            For an unknown preset or option.
        """
        if preset == "auto":
            config = auto()
        elif preset in self.presets:
            config = fit(self.presets[preset])
        else:
            known = ", ".join(("auto", *self.presets))
            raise InputError(f"{self.name} has no preset {preset!r}; choose one of {known}")
        known_options = {f.name for f in fields(self.config)}
        if unknown := set(options) - known_options:
            raise InputError(
                f"{self.name} has no option {', '.join(sorted(unknown))}; "
                f"it has {', '.join(sorted(known_options))}"
            )
        return replace(config, **options)

    def paper_parameters(self) -> int:
        """Parameters of the paper's configuration, as its paper counts them."""
        with torch.device("meta"):
            module = self.build(self.presets["paper"], self.paper_channels, self.paper_classes)
        return self.count(module)


@dataclass(frozen=True, eq=False, kw_only=True)
class Architecture(Network[C, M]):
    """A network that labels voxels: how to train it, and walk a volume with it.

    Its ``module(image (B, C, Z, Y, X))`` gives logits (B, K, ...).

    Attributes
    ----------
    auto : callable (cases, device, training) -> config
        The settings that fit the device and the voxels.
    fit : callable (preset, cases) -> config
        Fills in what a preset leaves to the volumes, such as their voxel size.
    stages : callable (config, training, pool) -> stages
        How it is trained.
    walk : callable (config, shape) -> Walk
        How it walks over a volume of that shape.
    probabilities : callable (module, config, block, core) -> tensor
        Class probabilities (K, z, y, x) of a core, a region of the block
        (1, C, z, y, x) that was read with ``walk``'s halo.
    beside : callable (module, config, block, core) -> tensor, or None
        All opinions (E, K, z, y, x), the network's first, where others stand beside the
        network: held-out voxels weigh all of them.
    halves : callable (module) -> bool
        Whether the last two of them were each trained on one half of the held-out voxels, too
        (see ``Blocks.half``).
    """

    labels = "voxels"

    auto: Callable[[Sequence[Case], torch.device, TrainingConfig], C]
    stages: Callable[[C, TrainingConfig, Pool], tuple[Stage[M], ...]]
    walk: Callable[[C, tuple[int, int, int]], Walk]
    probabilities: Callable[[M, C, Tensor, Region], Tensor]
    beside: Callable[[M, C, Tensor, Region], Tensor] | None = None
    halves: Callable[[M], bool] = no_halves
    fit: Callable[[C, Sequence[Case]], C] = unfitted

    def configure(self, training: TrainingConfig, cases: Sequence[Case], device: torch.device) -> C:
        """Return the configuration that a training asks for.

        Raises
        ------
        InputError
            For an unknown preset or option.
        """
        return self.settings(
            training.preset,
            training.options,
            lambda: self.auto(cases, device, training),
            lambda preset: self.fit(preset, cases),
        )

    def opinions(self, module: M, config: C, block: Tensor, core: Region) -> Tensor:
        """Return all opinions (E, K, z, y, x) of a core, the network's first."""
        if self.beside is not None:
            return self.beside(module, config, block, core)
        return self.probabilities(module, config, block, core)[None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Classifier(Network[C, M]):
    """A network that labels objects, each seen as a small cubic crop.

    Its ``module(crops (B, C, side, side, side))`` gives logits (B, K).

    Attributes
    ----------
    auto : callable (device) -> config
        The settings that fit the device.
    side : callable (config) -> int
        Voxels along each edge of a crop.
    stage : callable (config, training, examples) -> Stage
        How it is trained.
    """

    labels = "objects"

    auto: Callable[[torch.device], C]
    side: Callable[[C], int]
    stage: Callable[[C, ObjectConfig, Examples], Stage[M]]


AnyNetwork = Network[Any, Any]
AnyArchitecture = Architecture[Any, Any]
AnyClassifier = Classifier[Any, Any]


@cache
def networks() -> dict[str, AnyNetwork]:
    """Return every network by name: this folder's, then third parties'."""
    found: dict[str, AnyNetwork] = {}
    package = importlib.import_module("napari_volseg.models")
    for module_info in pkgutil.iter_modules(package.__path__, "napari_volseg.models."):
        module = importlib.import_module(module_info.name)
        for network in getattr(module, "ARCHITECTURES", ()):
            found[network.name] = network
    for entry in entry_points(group="napari_volseg.models"):
        network = entry.load()
        found[network.name] = network
    return found


def architectures() -> dict[str, AnyArchitecture]:
    """Return every network that labels voxels, by name."""
    return {name: n for name, n in networks().items() if isinstance(n, Architecture)}


def get_network(name: str) -> AnyNetwork:
    """Return the network of that name, whatever it labels.

    Raises
    ------
    InputError
        If there is none; the message lists those there are.
    """
    found = networks()
    if name not in found:
        raise InputError(f"no architecture is called {name!r}; there are: {', '.join(found)}")
    return found[name]


def get_architecture(name: str) -> AnyArchitecture:
    """Return the architecture of that name, which labels voxels.

    Raises
    ------
    InputError
        If there is none, or it labels objects.
    """
    network = get_network(name)
    if not isinstance(network, Architecture):
        raise InputError(
            f"{name} labels objects, not voxels: use it with `napari-volseg classify-objects`; "
            f"for voxels there are: {', '.join(architectures())}"
        )
    return network


def get_classifier(name: str) -> AnyClassifier:
    """Return the classifier of that name, which labels objects.

    Raises
    ------
    InputError
        If there is none, or it labels voxels.
    """
    network = get_network(name)
    if not isinstance(network, Classifier):
        known = ", ".join(n.name for n in networks().values() if isinstance(n, Classifier))
        raise InputError(f"{name} labels voxels, not objects; for objects there are: {known}")
    return network
