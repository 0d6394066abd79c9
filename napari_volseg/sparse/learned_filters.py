"""Learned filters: what a small network makes of a voxel's surroundings.

Fixed filters see brightness, edges and curvature; what an edge belongs to, they do not. This
network learned on generated scenes which features tell whatever somebody paints from the rest
with little paint (`resources/pretrain.py`, which made the weights). It is never trained on:
the pixel classifier learns from its responses beside those of the fixed filters.

It is the 3D U-Net's figure 2 with three steps, on cells of two voxels: the fixed filters see
the detail, and it costs an eighth.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from napari_volseg.data.tiles import around, crop_around, relative
from napari_volseg.sparse.convolution import convolve
from napari_volseg.sparse.filters import cells_around, refined
from napari_volseg.sparse.plan import Triple, plan_resolution, pooled, valid_margin
from napari_volseg.sparse.whole import pad_to_multiple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from napari_volseg.data.tiles import Region

WEIGHTS = Path(__file__).with_name("learned_filters.safetensors")

LEARNED = 16
"""Responses for each channel of the image."""

CELL = 2.0
"""Width of a cell, in units of the finest voxel side, as far as whole voxels allow."""

STEPS = 3
"""Resolution steps."""

HUGE = (10**6,) * 3


class LearnedFilters(nn.Module):
    """The network, as far as the voxel size decides its shape; its weights stay as they are.

    Parameters
    ----------
    voxel : (z, y, x)
        Voxel size.
    """

    def __init__(self, voxel: Sequence[float]) -> None:
        super().__init__()
        self.voxel = tuple(voxel)
        self.pooling, kernels = resolution(self.voxel)
        # Kept in the model file: it predicts the same with whatever weights come later.
        weights = folded(fitted(learned_weights(), self.pooling, kernels))
        for name, weight in weights.items():
            self.register_buffer(name.replace(".", "_"), weight)

    def responses(self, image: Tensor, core: Region) -> Tensor:
        """Responses (B, 16 C, z, y, x) of a core of an image (B, C, Z, Y, X).

        The image is a volume, or a block of one that begins at a multiple of
        ``learned_alignment``.
        """
        (found,) = self.responses_of_each(image, [core])
        return found

    def responses_of_each(self, image: Tensor, cores: Sequence[Region]) -> Iterator[Tensor]:
        """Yield the responses of several cores; the network runs once, over all of them."""
        cells, align = cells_of(self.voxel), learned_alignment(self.voxel)
        seen, _ = crop_around(around(cores), learned_reach(self.voxel), align, image.shape[2:])
        gray = image[(slice(None), slice(None), *seen)]
        batch, channels = gray.shape[:2]
        gray = pad_to_multiple(gray.flatten(0, 1)[:, None], align, "replicate")
        coarse = self.unet(functional.avg_pool3d(gray, cells))
        for part in cores:
            (z, y, x), inside = cells_around(relative(part, seen), cells, coarse.shape[2:])
            found = refined(coarse[:, :, z, y, x], cells, inside)
            yield found.reshape(batch, channels * LEARNED, *found.shape[2:])

    def unet(self, image: Tensor) -> Tensor:
        """Map cells (B, 1, Z, Y, X) to features (B, 16, Z, Y, X)."""
        image = image.contiguous(memory_format=torch.channels_last_3d)
        skips = []
        for step in range(STEPS):
            image = self.block(f"down_{step}", image)
            if step < STEPS - 1:
                skips.append(image)
                image = functional.max_pool3d(image, self.pooling[step])
        for step, pool in enumerate(reversed(self.pooling)):
            weight = getattr(self, f"lift_{step}_weight")
            image = functional.conv_transpose3d(image, weight, stride=pool)
            image = self.block(f"up_{step}", torch.cat([skips.pop(), image], 1))
        return image

    def block(self, name: str, image: Tensor) -> Tensor:
        """Two convolutions, each followed by a ReLU."""
        for layer in ("0", "3"):
            weight = getattr(self, f"{name}_{layer}_weight")
            bias = getattr(self, f"{name}_{layer}_bias")
            z, y, x = (size // 2 for size in weight.shape[2:])
            image = convolve(image, weight, bias, (z, y, x)).relu_()
        return image


def cells_of(voxel: Sequence[float]) -> Triple:
    """Voxels (z, y, x) that are averaged into one cell: a power of two."""
    finest = min(voxel)
    z, y, x = (2 ** max(0, round(math.log2(CELL * finest / v))) for v in voxel)
    return z, y, x


def resolution(voxel: Sequence[float]) -> tuple[tuple[Triple, ...], tuple[Triple, ...]]:
    """Pooling and kernels that fit the cells."""
    size = [v * c for v, c in zip(voxel, cells_of(voxel), strict=True)]
    return plan_resolution(size, HUGE, STEPS)


def learned_alignment(voxel: Sequence[float]) -> Triple:
    """Multiples of voxels (z, y, x) at which a block must begin in its volume."""
    pooling, _ = resolution(voxel)
    z, y, x = (c * p for c, p in zip(cells_of(voxel), pooled(pooling), strict=True))
    return z, y, x


def learned_reach(voxel: Sequence[float]) -> Triple:
    """Voxels (z, y, x) that a response sees on each side."""
    pooling, kernels = resolution(voxel)
    margin = valid_margin(pooling, kernels)
    # A voxel may be anywhere in its own pooling cell, and lies between two cells.
    seen = zip(margin, pooled(pooling), cells_of(voxel), strict=True)
    z, y, x = ((m + p + 1) * c for m, p, c in seen)
    return z, y, x


@cache
def learned_weights() -> dict[str, Tensor]:
    """Read the weights that `resources/pretrain.py` wrote, named as in `models/unet3d.py`."""
    return load_file(WEIGHTS)


def fitted(
    weights: Mapping[str, Tensor], pooling: Sequence[Triple], kernels: Sequence[Triple]
) -> dict[str, Tensor]:
    """Fit the weights to a network of as many steps that leaves some axes alone in some."""
    found = dict(weights)
    for name, weight in weights.items():
        part, step, *_ = name.split(".")
        if part == "lift":
            found[name] = fitted_lift(weight, pooling[-1 - int(step)])
        elif weight.ndim == 5:
            level = int(step) if part == "down" else STEPS - 2 - int(step)
            found[name] = fitted_kernel(weight, kernels[level])
    return found


def fitted_kernel(weight: Tensor, kernel: Triple) -> Tensor:
    """Fit the weights of a convolution to a kernel that is flat along some axes.

    As if all there were alike: the taps add up.
    """
    for axis, size in enumerate(kernel, start=2):
        if size == 1:
            weight = weight.sum(axis, keepdim=True)
    return weight.contiguous(memory_format=torch.channels_last_3d)


def fitted_lift(weight: Tensor, pool: Triple) -> Tensor:
    """Fit the weights of a transposed convolution to a pooling that leaves some axes alone."""
    for axis, size in enumerate(pool, start=2):
        if size == 1:
            weight = weight.mean(axis, keepdim=True)
    return weight.contiguous(memory_format=torch.channels_last_3d)


def folded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold batch normalization into the convolutions before it."""
    kept = {k: v for k, v in weights.items() if k.startswith("lift")}
    for name in (k for k in weights if k.endswith("running_mean")):
        block, index = name.removesuffix(".running_mean").rsplit(".", 1)
        own = f"{block}.{index}."
        before = f"{block}.{int(index) - 1}."
        gain = weights[own + "weight"] / (weights[own + "running_var"] + 1e-5).sqrt()
        kept[before + "weight"] = weights[before + "weight"] * gain.view(-1, 1, 1, 1, 1)
        shifted = weights[before + "bias"] - weights[own + "running_mean"]
        kept[before + "bias"] = shifted * gain + weights[own + "bias"]
    return kept
