"""A pixel classifier on filter responses: the first answer, seconds after the first strokes.

It labels each voxel by its filter responses alone, and has two opinions: one knows where in
the volume the voxel is and what lies far around it, which tells anatomy, and sees what a
network that was shown generated scenes makes of it; the other sees only what is near, as
learned from one slice it holds everywhere. A network that learns context is trained beside it;
held-out voxels tell how far each is to be trusted.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from napari_volseg.sparse.filters import RESPONSES, alignment, filter_bank, widest_reach
from napari_volseg.sparse.learned_filters import (
    LEARNED,
    LearnedFilters,
    learned_alignment,
    learned_reach,
)
from napari_volseg.sparse.plan import Triple, each
from napari_volseg.sparse.position import POSITION_CHANNELS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_volseg.data.tiles import Region

LINEAR_SCALES = 2
"""Scales, from the finest, at which the opinion that knows the place sees unbent gray values
too. The other one sees them at all of its scales."""

NEAR_SCALES = 4
"""Scales, from the finest, of the opinion that sees only what is near."""

BRIGHTEST = 8.0
"""Standardized gray value beyond which unbent ones end: a few could outweigh all others."""


class VoxelNetwork(nn.Module):
    """Fully connected layers from some of a voxel's features to its logits.

    Parameters
    ----------
    columns : sequence of int
        The features that it sees.
    n_classes, units : int
        Classes to tell apart, and size of the two hidden layers.
    """

    columns: Tensor

    def __init__(self, columns: Sequence[int], n_classes: int, units: int) -> None:
        super().__init__()
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        # A cumulative average: the statistics of the labeled voxels, not of the last batch.
        self.normalize = nn.BatchNorm1d(len(columns), affine=False, momentum=None)
        self.layers = nn.Sequential(
            nn.Linear(len(columns), units),
            nn.ReLU(),
            nn.Linear(units, units),
            nn.ReLU(),
            nn.Linear(units, n_classes),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, F) to logits (N, K)."""
        logits: Tensor = self.layers(self.normalized(features))
        return logits

    def normalized(self, features: Tensor) -> Tensor:
        """Take the features that it sees (N, f) out of all (N, F), and normalize them."""
        found: Tensor = self.normalize(features.index_select(1, self.columns))
        return found

    @torch.no_grad()
    def matrices(self, features: int) -> list[tuple[Tensor, Tensor]]:
        """Return the weight and bias (a column) of each layer, the first one's of all features.

        What the features are normalized by is in them: it need not be done voxel by voxel.
        """
        first, *rest = (layer for layer in self.layers if isinstance(layer, nn.Linear))
        return [
            self.normalizing(first, features),
            *((layer.weight, layer.bias[:, None]) for layer in rest),
        ]

    def normalizing(self, layer: nn.Linear, features: int) -> tuple[Tensor, Tensor]:
        """Return the weight and bias (a column) with which a layer sees features as they are."""
        mean, variance = self.normalize.running_mean, self.normalize.running_var
        assert mean is not None and variance is not None
        scaled = layer.weight / (variance + self.normalize.eps).sqrt()
        weight = scaled.new_zeros(len(scaled), features)
        weight[:, self.columns] = scaled
        return weight, (layer.bias - scaled @ mean)[:, None]


class PixelClassifier(nn.Module):
    """Two opinions of a voxel from its filter responses.

    Parameters
    ----------
    channels, n_classes : int
        Of the image, and to tell apart.
    scales : sequence of float
        Of the filters, in units of ``voxel``.
    voxel : (z, y, x)
        Voxel size.
    position : bool
        Whether it is told where the voxel is: images have position channels then.
    learned : bool
        Whether the opinion that knows the place sees the responses of learned filters, too.
    units : int
        Of the two hidden layers.
    """

    def __init__(
        self,
        channels: int,
        n_classes: int,
        scales: Sequence[float],
        voxel: Sequence[float],
        position: bool = False,
        learned: bool = False,
        units: int = 64,
    ) -> None:
        super().__init__()
        self.scales, self.voxel, self.position = tuple(scales), tuple(voxel), position
        self.channels = channels
        self.learned = LearnedFilters(self.voxel) if learned else None

        def up_to(scale: int) -> int:
            return channels * (1 + RESPONSES * len(self.scales[:scale]))

        # The features, in this order: of bent gray values, of unbent ones, learned ones, and
        # the place.
        linear = up_to(len(self.scales))
        context = linear + up_to(NEAR_SCALES)
        place = context + learned * channels * LEARNED
        placed = [
            *range(linear + up_to(LINEAR_SCALES)),
            *range(context, place + position * POSITION_CHANNELS),
        ]
        near = [*range(up_to(NEAR_SCALES)), *range(linear, context)]
        self.placed = VoxelNetwork(placed, n_classes, units)
        self.near = VoxelNetwork(near, n_classes, units)

    @property
    def filters(self) -> tuple[object, ...]:
        """What decides its features: those of equal filters are equal."""
        return self.scales, self.voxel, self.position, self.learned is not None

    @property
    def reach(self) -> Triple:
        """Voxels (z, y, x) that its filters see on each side."""
        return filters_reach(self.scales, self.voxel, self.learned is not None)

    @property
    def alignment(self) -> Triple:
        """Multiples of voxels (z, y, x) at which a block must begin in its volume."""
        return filters_alignment(self.scales, self.voxel, self.learned is not None)

    def responses(self, image: Tensor, core: Region) -> list[Tensor]:
        """Filter responses (B, F, z, y, x) of a core of an image (B, C, Z, Y, X), in parts.

        Position channels follow as they are.
        """
        gray, place = image[:, : self.channels], image[:, self.channels :]
        learned = [] if self.learned is None else [self.learned.responses(gray, core)]
        fixed = self.fixed_responses(gray, core)
        return [*fixed, *learned, place[(slice(None), slice(None), *core)]]

    def fixed_responses(self, gray: Tensor, core: Region) -> Iterator[Tensor]:
        """Yield filter responses (B, F, z, y, x) of standardized gray values (B, C, Z, Y, X).

        Also of the gray values without their bend: bent, what is faint is seen; unbent,
        edges stay where they are. Learned filters come after these.
        """
        linear = gray.clamp(max=BRIGHTEST).sinh()
        yield from filter_bank(gray, self.scales, self.voxel, core)
        yield from filter_bank(linear, self.scales[:NEAR_SCALES], self.voxel, core)

    def forward(self, features: Tensor) -> Tensor:
        """Map responses (N, F) to the logits of each opinion (E, N, K)."""
        return torch.stack([self.placed(features), self.near(features)])

    @torch.no_grad()
    def over(self, responses: Sequence[Tensor]) -> Tensor:
        """Map responses (B, F, Z, Y, X) in parts to logits (E, B, K, Z, Y, X), plane by plane.

        For prediction: as if in evaluation mode, and without gradients.
        """
        features = sum(part.shape[1] for part in responses)
        return by_plane([o.matrices(features) for o in (self.placed, self.near)], responses)


def by_plane(
    opinions: Sequence[Sequence[tuple[Tensor, Tensor]]], features: Sequence[Tensor]
) -> Tensor:
    """Map features (B, F, Z, Y, X) in parts through the layers of each opinion.

    Returns
    -------
    float (E, B, K, Z, Y, X)
        Logits.
    """
    planes = []
    # Features in one piece, and hidden units, of a whole block at once would take gigabytes.
    for parts in zip(*(f.unbind(2) for f in features), strict=True):
        plane = torch.cat(parts, 1).flatten(2)
        logits = torch.stack([multiplied(layers, plane) for layers in opinions])
        planes.append(logits.reshape(*logits.shape[:3], *parts[0].shape[2:]))
    return torch.stack(planes, 3)


def multiplied(layers: Sequence[tuple[Tensor, Tensor]], features: Tensor) -> Tensor:
    """Map features (B, F, N), as filters leave them, through layers to logits (B, K, N)."""
    (weight, bias), *rest = layers

    def product(weight: Tensor, values: Tensor) -> Tensor:
        # Batched by hand: a matrix times a batch would transpose the batch.
        return torch.bmm(weight.expand(len(values), -1, -1), values)

    values = product(weight, features).add_(bias)
    for weight, bias in rest:
        values = product(weight, values.relu_()).add_(bias)
    return values


def filters_reach(scales: Sequence[float], voxel: Sequence[float], learned: bool) -> Triple:
    """Voxels (z, y, x) that a pixel classifier's filters see on each side."""
    fixed = widest_reach(scales, voxel)
    return each(max, fixed, learned_reach(voxel)) if learned else fixed


def filters_alignment(scales: Sequence[float], voxel: Sequence[float], learned: bool) -> Triple:
    """Multiples of voxels (z, y, x) at which a block of a volume must begin to be filtered."""
    fixed = alignment(scales, voxel)
    return each(math.lcm, fixed, learned_alignment(voxel)) if learned else fixed
