"""The Implicit U-Net: a convolutional encoder, and a decoder that answers for single points.

Marimont, Tarroni, "Implicit U-Net for Volumetric Medical Image Segmentation", MIUA 2022.
A point's features are gathered from every block of the encoder at the voxel that holds the
point (figure 1) and concatenated with its encoded position; a feed-forward network maps
them to classes. Where the paper leaves something open:

- "The architecture proposed in" DeepSDF, "8 fully-connected layers with all hidden layers
  with 512 units": DeepSDF feeds its input in once more at the middle, which the paper does
  not mention and which 540 inputs do not fit into 512 units. Chosen: seven hidden layers of
  512 and an eighth that gives the classes, without that; weight normalization in all eight,
  dropout after the hidden ones.
- "Encoded using function described in" NeRF: sines and cosines of its equation 4, without
  the position itself. Voxel i of n is at (2 i + 1) / n - 1, its center in [-1, 1].
- Two classes, one sigmoid; here K classes and a softmax over K outputs.
- "Points near the broad boundary": chosen, the voxels of every mesh cell that has, among
  itself and its 26 neighbors, two that the broad prediction gives different classes. A
  mesh point is the middle of its cell.
- Sigma and the mesh are in voxels; ``auto`` shortens them along coarse axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from napari_volseg.data.errors import InputError
from napari_volseg.models.encoder import (
    LEAK,
    Encoder,
    EncoderConfig,
    end_to_end,
    patch_plan,
    planned,
)
from napari_volseg.models.initialize import he_initialize
from napari_volseg.models.registry import Architecture, Walk
from napari_volseg.models.windows import Windows, blend_windows, walk_windows
from napari_volseg.sparse.patches import labeled_loss
from napari_volseg.sparse.points import PointBatch, PointPlan, sample_point_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_volseg.data.annotation import Case
    from napari_volseg.data.tiles import Region
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.plan import Triple
    from napari_volseg.sparse.pool import Pool
    from napari_volseg.sparse.stage import Stage

DECODED_AT_ONCE = 2**15
"""Points that go through the decoder together at prediction, which bounds its memory."""


@dataclass(frozen=True, kw_only=True)
class ImplicitConfig(EncoderConfig):
    """Settings of the Implicit U-Net; the defaults are the paper's.

    Raises
    ------
    InputError
        For settings that build no network.
    """

    hidden: int = 512
    """Units of each hidden layer of the decoder."""

    layers: int = 8
    """Fully connected layers of the decoder, the one that gives the classes included."""

    dropout: float = 0.2
    """Part of the hidden units that a training step leaves out."""

    frequencies: int = 10
    """Sines and cosines of each coordinate (L in the paper)."""

    points: int = 30_000
    """Points of each training patch (k)."""

    near_boundary: float = 0.5
    """Part of them that comes from label boundaries (alpha)."""

    distance: tuple[float, float, float] = (5.0, 5.0, 5.0)
    """Standard deviation of their distance from the boundary (z, y, x), in voxels (sigma)."""

    mesh: Triple = (4, 4, 4)
    """The broad prediction takes one voxel in so many (z, y, x); 1, 1, 1 predicts every
    voxel (dense)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("hidden", "layers", "frequencies", "points"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it begins at 1")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}; it goes from 0 to below 1")
        if not 0 <= self.near_boundary <= 1:
            raise InputError(f"near_boundary is {self.near_boundary}; it goes from 0 to 1")
        if min(self.distance) < 0:
            raise InputError(f"distance {self.distance} cannot be negative")
        if min(self.mesh) < 1:
            raise InputError(f"mesh {self.mesh} begins at 1")


class ImplicitUNet(nn.Module):
    """The network of figure 2."""

    def __init__(self, config: ImplicitConfig, in_channels: int, n_classes: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, in_channels)
        layers: list[nn.Module] = []
        width = sum(config.widths) + 3 * 2 * config.frequencies
        for _ in range(config.layers - 1):
            layers += [
                normalized_linear(width, config.hidden),
                nn.ReLU(inplace=True),
                nn.Dropout(config.dropout),
            ]
            width = config.hidden
        self.decoder = nn.Sequential(*layers, normalized_linear(width, n_classes))

    def forward(self, image: Tensor) -> Tensor:
        """Map an image (B, C, Z, Y, X) to the logits of every voxel (B, K, Z, Y, X)."""
        shape = image.shape[2:]
        every = torch.ones(*shape, dtype=torch.bool, device=image.device).nonzero()
        logits = self.decode_all(self.encoder(image), every, shape)
        return logits.reshape(*logits.shape[:2], *shape)

    def decode_all(self, maps: list[Tensor], points: Tensor, shape: Sequence[int]) -> Tensor:
        """Decode the same points (P, 3), however many, in each image: logits (B, K, P)."""
        parts = torch.split(points, DECODED_AT_ONCE)
        batch = len(maps[0])
        return torch.cat([self.decode(maps, p.expand(batch, -1, -1), shape) for p in parts], 2)

    def decode(self, maps: list[Tensor], points: Tensor, shape: Sequence[int]) -> Tensor:
        """Decode points.

        Parameters
        ----------
        maps : list of (B, C, Z, Y, X)
            Features of each block.
        points : int64 (B, P, 3)
            Voxels (z, y, x) of the image.
        shape : (z, y, x)
            Of the image.

        Returns
        -------
        (B, K, P)
        """
        features = [gather(m, points, s) for m, s in zip(maps, self.config.scales, strict=True)]
        for axis, size in enumerate(shape):
            codes = encoded_positions(size, self.config.frequencies, points.device)
            features.append(codes[points[..., axis]])
        logits: Tensor = self.decoder(torch.cat(features, -1))
        return logits.movedim(-1, 1)


def normalized_linear(inputs: int, outputs: int) -> nn.Module:
    """Fully connected layer with weight normalization, He-initialized."""
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    normalized: nn.Module = weight_norm(layer)
    return normalized


def gather(features: Tensor, points: Tensor, scale: Triple) -> Tensor:
    """Gather the features of points at the voxel that holds them (figure 1).

    Parameters
    ----------
    features : (B, C, Z, Y, X)
    points : int64 (B, P, 3)
        Voxels of the image.
    scale : (z, y, x)
        Voxels of the image that one voxel of the features stands for.

    Returns
    -------
    (B, P, C)
    """
    batch, channels, depth, height, width = features.shape
    z, y, x = (points // torch.tensor(scale, device=points.device)).unbind(-1)
    first = torch.arange(batch, device=points.device)[:, None] * depth
    rows = features.movedim(1, -1).reshape(-1, channels)
    # An embedding's gradient adds up in a fixed order, on a GPU too.
    return functional.embedding(((first + z) * height + y) * width + x, rows)


def encoded_positions(size: int, frequencies: int, device: torch.device) -> Tensor:
    """Encode the voxels of an axis as NeRF does (Mildenhall et al. 2020, equation 4).

    ``sin(2^l pi p), cos(2^l pi p)`` for l from 0 to L - 1, p from -1 to 1 over the axis.

    Returns
    -------
    float32 (size, 2 L)
    """
    position = (2 * torch.arange(size, device=device) + 1) / size - 1
    angles = position[:, None] * math.pi * 2.0 ** torch.arange(frequencies, device=device)
    return torch.cat([angles.sin(), angles.cos()], 1)


def build(config: ImplicitConfig, in_channels: int, n_classes: int) -> ImplicitUNet:
    """Build the network, He-initialized."""
    module = ImplicitUNet(config, in_channels, n_classes)
    he_initialize(module, slope=LEAK)
    return module


def auto(cases: Sequence[Case], device: torch.device, training: TrainingConfig) -> ImplicitConfig:
    """Fit the network to device and voxels; a CPU gets an eighth of units and points."""
    config = planned(ImplicitConfig(), cases, device)
    spacing = cases[0].volume.spacing
    coarser = [s / min(spacing) for s in spacing]
    mesh = [max(1, round(n / c)) for n, c in zip(config.mesh, coarser, strict=True)]
    distance = [d / c for d, c in zip(config.distance, coarser, strict=True)]
    config = replace(
        config,
        mesh=(mesh[0], mesh[1], mesh[2]),
        distance=(distance[0], distance[1], distance[2]),
    )
    return replace(config, hidden=64, points=4000) if device.type == "cpu" else config


def stages(
    config: ImplicitConfig, training: TrainingConfig, pool: Pool
) -> tuple[Stage[ImplicitUNet], ...]:
    """Train encoder and decoder together on points; Dice and cross-entropy."""
    patches = patch_plan(config, training)
    points = PointPlan(config.points, config.near_boundary, config.distance)
    score = labeled_loss(training, pool)

    def loss(module: ImplicitUNet, batch: PointBatch, step: int) -> Tensor:
        maps = module.encoder(batch.image)
        logits = module.decode(maps, batch.points, batch.image.shape[2:])
        return score(logits, batch.target)

    sample = partial(sample_point_batch, pool, patches, points, training)
    return (end_to_end("points", config, training, sample, loss),)


def windows(config: ImplicitConfig) -> Windows:
    """Return the sliding windows of the inference procedure."""
    return Windows(config.patch, config.overlap, smooth=True)


def walk(config: ImplicitConfig, shape: Triple) -> Walk:
    """Tiles that hold every window that touches them."""
    return walk_windows(windows(config), config.tile, shape)


def probabilities(
    module: ImplicitUNet, config: ImplicitConfig, block: Tensor, core: Region
) -> Tensor:
    """Class probabilities (K, z, y, x) of a core of a block (1, C, z, y, x)."""
    return blend_windows(
        windows(config), partial(window_probabilities, module, config), block, core
    )


def window_probabilities(module: ImplicitUNet, config: ImplicitConfig, window: Tensor) -> Tensor:
    """Predict a window (1, C, z, y, x) in three stages: class probabilities (K, z, y, x)."""
    if config.mesh == (1, 1, 1):
        return torch.softmax(module(window)[0].float(), 0)
    shape = window.shape[2:]
    maps = module.encoder(window)
    cells = [
        torch.arange(n, device=window.device) // step
        for n, step in zip(shape, config.mesh, strict=True)
    ]
    middles = [
        (torch.arange(int(cell[-1]) + 1, device=window.device) * step + step // 2).clamp(max=n - 1)
        for cell, n, step in zip(cells, shape, config.mesh, strict=True)
    ]
    broad = module.decode_all(maps, torch.cartesian_prod(*middles), shape)[0]
    broad = broad.reshape(-1, *(len(m) for m in middles))
    logits = broad_to_voxels(broad, cells)
    fine = broad_to_voxels(near_boundary(broad)[None], cells)[0]
    if bool(fine.any()):
        logits[:, fine] = module.decode_all(maps, fine.nonzero(), shape)[0]
    return torch.softmax(logits.float(), 0)


def broad_to_voxels(broad: Tensor, cells: Sequence[Tensor]) -> Tensor:
    """Interpolate mesh values (K, ...) to the nearest voxels: each has its cell's value."""
    z, y, x = cells
    return broad[:, z[:, None, None], y[:, None], x]


def near_boundary(broad: Tensor) -> Tensor:
    """Mark the mesh cells whose neighborhood of 3x3x3 has several classes, bool (z, y, x)."""
    classes = broad.argmax(0, keepdim=True).float()
    highest = functional.max_pool3d(classes, 3, 1, 1)
    lowest = -functional.max_pool3d(-classes, 3, 1, 1)
    return (highest != lowest)[0]


ARCHITECTURES = (
    Architecture(
        name="implicit_unet",
        title="Implicit U-Net",
        summary="Answers for single points: little memory, fast where boundaries are few.",
        paper="Marimont & Tarroni 2022, Implicit U-Net for Volumetric Medical Image Segmentation",
        config=ImplicitConfig,
        presets={"paper": ImplicitConfig()},
        auto=auto,
        build=build,
        stages=stages,
        walk=walk,
        probabilities=probabilities,
    ),
)
