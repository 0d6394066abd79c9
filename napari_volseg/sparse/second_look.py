"""A second look at each voxel: what the first opinions made of its surroundings.

A classifier that is told what was found around a voxel, besides what it sees there itself, sets
right what cannot be: a hole, a lone speck, a border that stops halfway (Tu and Bai 2010,
Auto-context and Its Application to High-level Vision Tasks and 3D Brain Image Segmentation).
Here it is a per-voxel network on the features of the pixel classifier and, for each class, on
how likely it is said to be, there and smoothed, on cells of two voxels.
"""

from __future__ import annotations

import operator
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_volseg.data.cells import cells_along
from napari_volseg.data.tiles import (
    absolute,
    around,
    box_shape,
    box_size,
    crop_around,
    relative,
    tile_grid,
)
from napari_volseg.sparse.draw import draw_until_enough
from napari_volseg.sparse.filters import (
    apply_along,
    averaged,
    cells_around,
    derivative_matrix,
    reach_on,
    refined,
)
from napari_volseg.sparse.labeled_blocks import FEWEST_VOXELS, labeled_responses, neighbors
from napari_volseg.sparse.learned_filters import cells_of
from napari_volseg.sparse.losses import cross_entropy
from napari_volseg.sparse.optimizer import make_optimizer
from napari_volseg.sparse.patches import pool_weights
from napari_volseg.sparse.pixel_stage import WEIGHT_DECAY
from napari_volseg.sparse.pixels import by_plane
from napari_volseg.sparse.plan import each, plan_core
from napari_volseg.sparse.stage import Batch, Stage, schedule_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_volseg.data.tiles import Region
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.labeled_blocks import Block
    from napari_volseg.sparse.looks import Look
    from napari_volseg.sparse.pixels import PixelClassifier
    from napari_volseg.sparse.plan import Triple
    from napari_volseg.sparse.pool import Pool, PoolCase

M = TypeVar("M", bound=nn.Module)

SCALES = (2.0, 4.0)
"""Of the Gaussians over what was found, in units of the finest voxel side."""

MAPS = 1 + len(SCALES)
"""Of each class: how likely it is on cells, and smoothed."""

HALVES = 2
"""Of the held-out voxels, and networks that are each trained on one."""

UNITS = 64
"""Of the two hidden layers."""

SECONDS = 15.0
"""Of a training by time that are left to it; on one core it takes about as much."""

MOST_SHARE = 0.25
"""Of what the pixel classifier leaves, where the time is short."""

MOST_READ = 8_000_000
"""Voxels of volumes that are read to look around paint, for each minute of a training by time."""

MOST_MINUTES = 4.0
"""Up to which more are read."""

LEAST_COVER = 0.5
"""Part of the labeled voxels around which has to be looked: trained on a few places of a large
volume, it is wrong at all others, and held-out voxels of the same places do not tell."""

STEPS = 600
"""In a training by time, if that takes a minute or more."""

VOXELS_A_STEP = 4096
"""For each of its networks; half as many in a minute."""


class Half(nn.Module):
    """The network of a voxel, trained on all paint but half of what is held out."""

    def __init__(self, features: int, n_classes: int) -> None:
        super().__init__()
        self.seen = nn.Linear(features, UNITS)
        # Classes last, so that others can come.
        self.found = nn.Parameter(torch.zeros(UNITS, MAPS, n_classes))
        self.hidden = nn.Linear(UNITS, UNITS)
        self.classify = nn.Linear(UNITS, n_classes)
        nn.init.zeros_(self.classify.weight)
        nn.init.zeros_(self.classify.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map normalized features with maps (N, F + 3 K) to logits (N, K)."""
        weight = torch.cat([self.seen.weight, self.found.flatten(1)], 1)
        hidden = functional.linear(features, weight, self.seen.bias).relu()
        logits: Tensor = self.classify(self.hidden(hidden).relu())
        return logits

    def matrices(self, pixels: PixelClassifier, features: int) -> list[tuple[Tensor, Tensor]]:
        """Return the weight and bias (a column) of each layer, for features as they are."""
        weight, bias = pixels.placed.normalizing(self.seen, features)
        first = torch.cat([weight, self.found.flatten(1)], 1), bias
        return [first, *((m.weight, m.bias[:, None]) for m in (self.hidden, self.classify))]


class SecondLook(nn.Module):
    """The opinions of a voxel that know what was found around it.

    What the first opinions say of voxels that they were trained on tells little of how right
    they are elsewhere; of held-out ones it does. So these are trained on, too, by each of two
    halves: what one of them was trained on, the other is judged by.

    Parameters
    ----------
    features, n_classes : int
        Of the pixel classifier: features of its opinion that knows the place.
    voxel : (z, y, x)
        Voxel size in units of the finest side.
    """

    def __init__(self, features: int, n_classes: int, voxel: Sequence[float]) -> None:
        super().__init__()
        self.voxel, self.cells = tuple(voxel), cells_of(voxel)
        self.one, self.other = (Half(features, n_classes) for _ in range(HALVES))

    @property
    def halves(self) -> tuple[Half, Half]:
        """Its two networks."""
        return self.one, self.other

    @property
    def trained(self) -> bool:
        """Whether it has anything to say: it begins with zeros."""
        weight = self.one.classify.weight
        return weight.is_meta or bool(weight.any())

    def forward(self, features: Tensor) -> Tensor:
        """Map normalized features with maps (2, N, F + 3 K) to logits (2, N, K)."""
        return torch.stack([half(f) for half, f in zip(self.halves, features, strict=True)])

    def spread(self, coarse: Tensor, core: Region) -> Tensor:
        """Tell the voxels of a core how likely each class is there and around.

        Parameters
        ----------
        coarse : float (1, K, z, y, x)
            Probabilities on cells.
        core : region
            In voxels of the region that these cells cover.

        Returns
        -------
        float (1, 3 K, z, y, x)
        """
        needed, inside = cells_around(core, self.cells, coarse.shape[2:])
        maps = [coarse[(slice(None), slice(None), *needed)]]
        for scale in SCALES:
            smooth = coarse
            for axis, (v, c) in enumerate(zip(self.voxel, self.cells, strict=True)):
                matrix = derivative_matrix(coarse.shape[axis + 2], scale / v / c, 0)[needed[axis]]
                smooth = apply_along(matrix.to(coarse), smooth, axis)
            maps.append(smooth)
        return refined(torch.cat(maps, 1), self.cells, inside)

    def over(self, pixels: PixelClassifier, responses: Sequence[Tensor], maps: Tensor) -> Tensor:
        """Map responses (B, F, Z, Y, X) and maps (B, 3 K, Z, Y, X) to logits (2, B, K, Z, Y, X).

        The responses are in parts.
        """
        features = sum(part.shape[1] for part in responses)
        return by_plane([h.matrices(pixels, features) for h in self.halves], [*responses, maps])


def second_reach(voxel: Sequence[float]) -> Triple:
    """Voxels (z, y, x) around one whose first opinions count for the second look."""
    return reach_on(max(SCALES), voxel, cells_of(voxel))


def second_stage(
    training: TrainingConfig,
    pool: Pool,
    parts_of: Callable[[M], tuple[PixelClassifier, SecondLook]],
    look: Callable[[M, PoolCase, Region], Tensor],
    halo: Triple,
    tile: Triple,
    share: float,
    looks: Callable[..., Iterator[Look]],
) -> Stage[M]:
    """Train the second look of a network, whose other parts are trained and stay as they are.

    It ends at once where too little of the paint can be looked around: it has no say then.

    Parameters
    ----------
    parts_of : callable (module) -> (PixelClassifier, SecondLook)
    look : callable (module, case, region) -> float (K, z, y, x)
        How likely each class is by all first opinions.
    halo : (z, y, x)
        Voxels around a region that these read.
    tile : (z, y, x)
        Voxels that are looked at at once.
    share : float
        Of the training that all stages after the pixel classifier's have.
    looks : callable (module, most_read, again=) -> iterator of Look
        ``pixel_looks`` of the network.
    """
    found: list[tuple[Tensor, Tensor, list[Tensor]]] = []
    judged_maps: dict[tuple[PoolCase, tuple[int, ...]], Tensor] = {}
    class_weights, rate = pool_weights(training, pool), schedule_of(training)
    minutes = MOST_MINUTES if training.steps else min(MOST_MINUTES, training.minutes)
    steps = max(1, round(STEPS * min(1.0, minutes)))
    most, voxels = round(minutes * MOST_READ), max(1, round(min(1.0, minutes / 2) * VOXELS_A_STEP))

    @torch.no_grad()
    def prepare(module: M) -> Iterator[float]:
        module.eval()
        pixels, second = parts_of(module)
        seen = {}
        for done, block, features in labeled_responses(pool, pixels):
            seen[block] = pixels.placed.normalized(features)
            yield done / 2
        parts = []
        found.clear()
        judged_maps.clear()
        drawn = drawn_groups(list(seen), second, halo, most)
        covered = sum(len(block.voxels) for _, group in drawn for block in group)
        if covered < LEAST_COVER * sum(len(block.voxels) for block in seen):
            return
        looking = labeled_maps(drawn, second, partial(look, module), tile)
        for done, maps_of_blocks in looking:
            for block, maps in maps_of_blocks:
                classes, half = block.classes.to(pool.device), half_of(block).to(pool.device)
                parts.append((torch.cat([seen[block], maps], 1), classes, half))
                # The first opinions are trained: by these maps it is judged, too.
                judged_maps[block.case, block.key] = maps[block.held_out.to(maps.device)]
            yield (1 + done) / 2
        features, classes, half = (torch.cat(part) for part in zip(*parts, strict=True))
        of_halves = [torch.nonzero((half == n) | (half == HALVES))[:, 0] for n in range(HALVES)]
        found[:] = [(features, classes, of_halves)]

    def sample(generator: torch.Generator) -> Batch:
        if not found:
            return Batch(torch.empty(0), torch.empty(0))
        features, classes, of_halves = found[0]
        drawn = []
        for usable in of_halves:
            index = torch.randint(len(usable), (voxels,), generator=generator)
            drawn.append(usable[index.to(usable.device)])
        index = torch.stack(drawn)
        return Batch(features[index], classes[index])

    def loss(module: M, batch: Batch, step: int) -> Tensor:
        _, second = parts_of(module)
        if not found:
            return 0 * sum((weight.sum() for weight in second.parameters()), torch.tensor(0.0))
        logits = second(batch.image)
        return cross_entropy(logits.flatten(0, 1), batch.target.flatten(), class_weights)

    def again(module: M, block: Block, features: Tensor) -> Tensor | None:
        """Tell what the halves say (2, K, N) of a block's held-out voxels, if it was drawn."""
        if (maps := judged_maps.get((block.case, block.key))) is None:
            return None
        pixels, second = parts_of(module)
        rows = torch.cat([pixels.placed.normalized(features), maps], 1)
        said: Tensor = second(rows.expand(HALVES, -1, -1))
        return said.softmax(2).movedim(2, 1)

    return Stage(
        name="second look",
        prepare=prepare,
        sample=sample,
        loss=loss,
        optimizer=partial(make_optimizer, training, 1e-2, weight_decay=WEIGHT_DECAY),
        parameters=lambda module: parts_of(module)[1].parameters(),
        schedule=lambda fraction, scores: rate(fraction, scores) if found else 0.0,
        share=share * second_share(training),
        most_steps=0 if training.steps else steps,
        look=partial(looks, again=again),
    )


def second_share(training: TrainingConfig) -> float:
    """Part of what the pixel classifier leaves of a training that the second look gets."""
    return MOST_SHARE if training.steps else min(MOST_SHARE, SECONDS / (60 * training.minutes))


def labeled_maps(
    drawn: Sequence[tuple[Region, list[Block]]],
    second: SecondLook,
    look: Callable[[PoolCase, Region], Tensor],
    tile: Triple,
) -> Iterator[tuple[float, list[tuple[Block, Tensor]]]]:
    """Look around labeled voxels, at blocks near each other together.

    Parameters
    ----------
    drawn : sequence of (region, list of Block)
        What is seen, and what it is seen for.
    tile : (z, y, x)
        Voxels that are looked at at once.

    Yields
    ------
    done : float
        Part of the work that is done, 0 to 1.
    found : list of (block, maps float (N, 3 K))
        Those that are complete.
    """
    shapes = [box_shape(seen) for seen, _ in drawn]
    tiles = [tile_grid(shape, plan_core(tile, shape, second.cells)) for shape in shapes]
    done, total = 0, sum(map(len, tiles))
    for (seen, group), grid in zip(drawn, tiles, strict=True):
        coarse = None
        for part in grid:
            found = look(group[0].case, absolute(part.write, seen))[None]
            cells = averaged(found, second.cells)
            if coarse is None:
                shape = cells_along(box_shape(seen), second.cells)
                coarse = cells.new_empty(*cells.shape[:2], *shape)
            coarse[(slice(None), slice(None), *on_cells(part.write, second.cells))] = cells
            done += 1
            yield done / total, []
        assert coarse is not None
        cores = [(b, relative(b.core, seen)) for b in group]
        yield done / total, [(b, b.pick(second.spread(coarse, at)[0])) for b, at in cores]


def half_of(block: Block) -> Tensor:
    """Tell which half of what is held out voxels are of, int64 (N,); ``HALVES``: not held out."""
    half = torch.from_numpy(block.case.blocks.half(block.voxels.numpy()))
    return half.where(block.held_out, HALVES)


def drawn_groups(
    blocks: Sequence[Block], second: SecondLook, halo: Triple, most: int
) -> list[tuple[Region, list[Block]]]:
    """Draw blocks near each other, with the region that is seen around them.

    Around very many blocks it would take long.

    Parameters
    ----------
    halo : (z, y, x)
        Voxels around that region that are read.
    most : int
        Voxels that are read, if those have enough voxels of every class.
    """
    reach = second_reach(second.voxel)
    of_case: dict[PoolCase, list[Block]] = {}
    for block in blocks:
        of_case.setdefault(block.case, []).append(block)
    groups, counts, costs = [], [], []
    for case, own in of_case.items():
        # Small enough for two of them: what is drawn last may take too much by one.
        for group in neighbors(own, each(operator.add, reach, halo), most // 2):
            box = around([block.core for block in group])
            seen, _ = crop_around(box, reach, second.cells, case.volume.shape)
            read, _ = crop_around(seen, halo, (1, 1, 1), case.volume.shape)
            groups.append((seen, group))
            n_classes = second.one.classify.out_features
            counts.append(sum(block.trained_on(n_classes) for block in group))
            costs.append(box_size(read))
    return [groups[n] for n in draw_until_enough(counts, costs, most, FEWEST_VOXELS)]


def on_cells(region: Region, cells: Triple) -> Region:
    """Return the cells of a region that begins at one; the last may be cut."""
    z, y, x = (slice(r.start // c, -(-r.stop // c)) for r, c in zip(region, cells, strict=True))
    return z, y, x
