"""Make the learned filters: a small network that was shown nothing but generated scenes.

    python -m resources.pretrain [--minutes 60] [--device cpu] [-o FILE]

Each step draws two scenes (`scenes.py`). The network's features and a few fixed filter
responses at some of the painted voxels give, by ridge regression in closed form, a classifier
of that scene; how well it does on other voxels is the loss (Bertinetto et al. 2019,
Meta-learning with Differentiable Closed-form Solvers, section 3). So the network learns
features with which little paint is enough, for whatever is painted. Nothing of any real
volume is in them.

Written is what `sparse/learned_filters.py` reads: the weights of the running average.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from napari_volseg.data.tiles import whole_region
from napari_volseg.models.initialize import he_initialize
from napari_volseg.models.unet3d import UNet3D
from napari_volseg.models.unet3d_config import UNet3DConfig
from napari_volseg.sparse.filters import filter_bank
from resources.scenes import GRIDS, Task, draw_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONFIG = UNet3DConfig(
    channels=8, pooling=((2, 2, 2),) * 2, kernels=((3, 3, 3),) * 3, padding="same",
    test_statistics="running",
)  # fmt: skip
SCALES = (1.0, 2.0, 4.0)
"""Of the fixed filters beside it, in units of the finest voxel side."""

PAINTS = 3
OUTPUT = Path("napari_volseg/sparse/learned_filters.safetensors")
SUPPORT, QUERY = 4000, 8000
RATE = 4e-3
WARM_UP = 100
DECAY = 0.998
FIRST_RIDGE = 0.05

Example = tuple[Tensor, Tensor, Tensor, Tensor]
"""Image (1, 1, Z, Y, X), fixed responses (F, Z, Y, X), target (Z, Y, X), painted (Z, Y, X)."""


class Pairs(IterableDataset):
    """Pairs of tasks on the same grid, without end."""

    def __iter__(self) -> Iterator[tuple[int, Example, Example]]:
        seed = 0
        while True:
            grid = int(seed % 3 == 2)
            first, second = (draw_tasks(2 * seed + n, grid, PAINTS) for n in range(2))
            seed += 1
            responses = [fixed_responses(tasks[0], grid) for tasks in (first, second) if tasks]
            for one, other in zip(first, second, strict=False):
                yield grid, example(one, responses[0]), example(other, responses[1])


def fixed_responses(task: Task, grid: int) -> Tensor:
    """Standardized responses (F, Z, Y, X) of the fixed filters."""
    image = torch.from_numpy(task.image)[None, None]
    everywhere = whole_region(task.image.shape)
    found = torch.cat(list(filter_bank(image, SCALES, GRIDS[grid][1], everywhere)), 1)[0]
    spread, mean = torch.std_mean(found, (1, 2, 3), keepdim=True)
    return (found - mean) / (spread + 1e-3)


def example(task: Task, responses: Tensor) -> Example:
    """Tensors of a task."""
    image = torch.from_numpy(task.image)[None, None]
    return image, responses, torch.from_numpy(task.target), torch.from_numpy(task.painted)


class Learner(nn.Module):
    """The network, and how its features become a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet3D(CONFIG, 1, 1)
        he_initialize(self.unet)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.ridge = nn.Parameter(torch.tensor(math.log(FIRST_RIDGE)))

    def forward(self, grid: int, examples: tuple[Example, Example]) -> tuple[Tensor, float]:
        """Loss, and mean foreground IoU, of voxels that were not used as paint."""
        cells = (2, 2, 2) if grid == 0 else (1, 2, 2)
        images = torch.cat([functional.avg_pool3d(image, cells) for image, *_ in examples])
        features = self.unet.features(images)
        found = [self.judge(own, *rest) for own, (_, *rest) in zip(features, examples, strict=True)]
        return sum(loss for loss, _ in found) / 2, sum(iou for _, iou in found) / 2

    def judge(
        self, coarse: Tensor, responses: Tensor, target: Tensor, painted: Tensor
    ) -> tuple[Tensor, float]:
        """Fit a classifier to paint; its loss and IoU elsewhere."""
        paint = some(painted & (target >= 0), SUPPORT)
        elsewhere = ~painted & (target >= 0)
        query = torch.cat([some(elsewhere, QUERY // 2), some(elsewhere & (target > 0), QUERY // 2)])
        classes = int(target.max()) + 1

        def at(voxels: Tensor) -> tuple[Tensor, Tensor]:
            z, y, x = voxels.T
            learned = interpolated(coarse, voxels, target.shape)
            return torch.cat([learned, responses[:, z, y, x].T], 1), target[z, y, x]

        weights = ridge_regression(*at(paint), classes, self.ridge.exp())
        features, index = at(query)
        logits = self.scale * 2 * with_one(features) @ weights
        truth = functional.one_hot(index, classes).float()
        balance = truth.mean(0).clamp_min(1e-3) ** -0.5
        dice = 1 - (2 * (logits.softmax(1) * truth).sum(0) + 1) / (
            logits.softmax(1).sum(0) + truth.sum(0) + 1
        )
        loss = functional.cross_entropy(logits, index, balance) + dice[1:].mean()
        with torch.no_grad():
            said = functional.one_hot(logits.argmax(1), classes)
            overlap, union = (said * truth).sum(0), ((said + truth) > 0).sum(0)
            iou = float((overlap / union.clamp_min(1))[1:].mean())
        return loss / 2, iou


def ridge_regression(features: Tensor, target: Tensor, classes: int, ridge: Tensor) -> Tensor:
    """Weights (F + 1, K) from features (N, F) to -1 or 1 for each class, rare ones lifted."""
    truth = functional.one_hot(target, classes).float()
    weight = truth.sum(0).clamp_min(1)[target] ** -0.5
    weight = weight / weight.sum()
    known = with_one(features)
    penalty = torch.cat([ridge.expand(features.shape[1]), ridge.new_zeros(1)]) + 1e-5
    products = (known * weight[:, None]).T @ known + torch.diag(penalty)
    return torch.linalg.solve(products, (known * weight[:, None]).T @ (2 * truth - 1))


def with_one(features: Tensor) -> Tensor:
    """Append a constant to features (N, F)."""
    return torch.cat([features, torch.ones_like(features[:, :1])], 1)


def interpolated(coarse: Tensor, voxels: Tensor, shape: Sequence[int]) -> Tensor:
    """Interpolate a coarse grid (F, Z, Y, X) at voxels (N, 3) of a volume: (N, F)."""
    size = torch.tensor(shape, device=voxels.device)
    place = ((2 * voxels + 1) / size - 1).flip(1)
    found = functional.grid_sample(
        coarse[None], place[None, None, None], padding_mode="border", align_corners=False
    )
    return found[0, :, 0, 0].T


def some(mask: Tensor, most: int) -> Tensor:
    """Return some of the voxels (N, 3) of a mask."""
    found = mask.nonzero()
    return found[torch.randint(max(1, len(found)), (min(most, len(found)),), device=found.device)]


def written(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that make features, without those that count and classify."""
    left_out = ("classify", "num_batches_tracked")
    kept = {k: v for k, v in weights.items() if not any(name in k for name in left_out)}
    return {name: value.contiguous().cpu() for name, value in kept.items()}


def main() -> None:
    """Run from the command line; what was learned so far is written every 50 steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes")
    parser.add_argument("-o", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    learner = Learner().to(arguments.device)
    weights = [p for n, p in learner.named_parameters() if "classify" not in n]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=1e-3)
    averaged = {k: v.clone() for k, v in learner.unet.state_dict().items()}
    pairs = iter(DataLoader(Pairs(), batch_size=None, num_workers=arguments.workers))
    began, step, losses, ious = time.perf_counter(), 0, [], []
    while (spent := (time.perf_counter() - began) / 60 / arguments.minutes) < 1:
        for group in optimizer.param_groups:
            warm = min(1, (step + 1) / WARM_UP)
            group["lr"] = RATE * warm * 0.5 * (1 + math.cos(math.pi * spent))
        grid, *examples = next(pairs)
        here = [tuple(t.to(arguments.device) for t in each) for each in examples]
        loss, iou = learner(grid, here)
        optimizer.zero_grad()
        loss.backward()
        if torch.isfinite(nn.utils.clip_grad_norm_(weights, 1.0)):
            optimizer.step()
        step += 1
        keep = min(DECAY, (1 + step) / (10 + step))
        for name, value in learner.unet.state_dict().items():
            if value.is_floating_point():
                averaged[name].lerp_(value, 1 - keep)
        losses, ious = [*losses, float(loss)][-300:], [*ious, iou][-300:]
        if step % 50 == 0:
            mean = sum(losses) / len(losses), sum(ious) / len(ious)
            print(f"{step:6} steps, loss {mean[0]:.4f}, IoU {mean[1]:.4f}", flush=True)
            save_file(written(averaged), arguments.o)
    save_file(written(averaged), arguments.o)


if __name__ == "__main__":
    main()
