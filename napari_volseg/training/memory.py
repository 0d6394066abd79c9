"""What a training does when memory runs out.

Features are computed twice rather than kept; then batches are made smaller, then patches.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_volseg.data.errors import InputError
from napari_volseg.inference.device import describe_device, out_of_memory, release_memory
from napari_volseg.training.recompute import blocks_of

if TYPE_CHECKING:
    import torch

    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.plan import Triple
    from napari_volseg.training.run import Run

TWICE = "features computed twice instead of kept"
"""For the user: what ``training.recompute`` does."""

SMALLEST_SIDE = 8
"""Of a patch, in voxels: below, a network sees no context and learns nothing."""


def batched(config: TrainingConfig, run: Run) -> TrainingConfig:
    """Return the settings with the batch that fits into memory."""
    return replace(config, batch_size=run.batch_size) if run.batch_size else config


def step_down(
    error: BaseException, run: Run, config: TrainingConfig, model_config: Any, device: torch.device
) -> tuple[Any, str]:
    """Make the next steps take less memory after one that found none; the weights stay.

    Parameters
    ----------
    error : exception
        What the step raised; raised again if it is about anything else.

    Returns
    -------
    model_config
        Of the network, with patches half as wide if batches cannot be smaller.
    note : str
        What was done, for the user.

    Raises
    ------
    InputError
        If nothing can be made smaller.
    """
    if not out_of_memory(error):
        raise error
    drop_leftovers(run)
    release_memory(device)
    if config.recompute == "auto" and not run.recompute and blocks_of(run.module):
        run.recompute = True
        return model_config, f"memory ran out: now {TWICE}"
    batch = batch_of(batched(config, run), model_config)
    smaller = smaller_step(batch, model_config)
    if smaller is None:
        raise InputError(
            f"memory ran out on {describe_device(device)}, and patches cannot be smaller; close "
            "other programs, or choose another architecture or device"
        ) from error
    if smaller[0] < batch:
        run.batch_size = smaller[0]
        return model_config, f"memory ran out: now {run.batch_size} patches a step, not {batch}"
    return smaller[1], f"memory ran out: patches are now {patch_names(smaller[1])} voxels"


def batch_of(config: TrainingConfig, model_config: Any) -> int:
    """Return the patches a step: what the user says, else what the network's settings say."""
    return config.batch_size or getattr(model_config, "batch_size", 1)


def smaller_step(batch: int, model_config: Any) -> tuple[int, Any] | None:
    """Return the batch and the network's settings of a step of half the size, None if none is."""
    if batch > 1:
        return batch // 2, model_config
    smaller = halve_patches(model_config)
    return None if smaller is None else (batch, smaller)


def drop_leftovers(run: Run) -> None:
    """Drop gradients, and what the optimizer had begun to keep of a parameter."""
    if run.optimizer is None:
        return
    run.optimizer.zero_grad(set_to_none=True)
    most = max((len(kept) for kept in run.optimizer.state.values()), default=0)
    for kept in run.optimizer.state.values():
        if len(kept) < most:
            kept.clear()


def halve_patches(model_config: Any) -> Any | None:
    """Halve the sides of the patches that a network trains on; None if it cannot be."""
    divisor = getattr(model_config, "divisor", (1, 1, 1))
    shapes = patch_shapes(model_config)
    halved = tuple(half(shape, divisor) for shape in shapes)
    if halved == shapes:
        return None
    field = {"patches": halved} if hasattr(model_config, "patches") else {"patch": halved[0]}
    try:
        return replace(model_config, **field)
    except InputError:
        return None


def halve_tile(model_config: Any) -> Any | None:
    """Halve the sides of the tiles that a network predicts; None if they cannot be."""
    tile = getattr(model_config, "tile", None)
    # Of a network that looks at whole volumes it is one number, of a plane.
    if not isinstance(tile, tuple):
        return None
    halved = half((tile[0], tile[1], tile[2]), getattr(model_config, "divisor", (1, 1, 1)))
    try:
        return None if halved == tile else replace(model_config, tile=halved)
    except InputError:
        return None


def patch_shapes(model_config: Any) -> tuple[Triple, ...]:
    """Return the shapes (z, y, x) of its patches; () for a network that sees whole volumes."""
    if hasattr(model_config, "patches"):
        return tuple(model_config.patches)
    return (model_config.patch,) if hasattr(model_config, "patch") else ()


def patch_names(model_config: Any) -> str:
    """Write the shapes of its patches."""
    return " or ".join(map(shape_name, patch_shapes(model_config)))


def shape_name(shape: Triple) -> str:
    """Write a shape (z, y, x)."""
    return " x ".join(map(str, shape))


def half(shape: Triple, divisor: Triple) -> Triple:
    """Halve sides to multiples of a divisor, none to below the smallest that makes sense."""
    z, y, x = (
        min(n, max(n // 2 // d * d, -(-SMALLEST_SIDE // d) * d))
        for n, d in zip(shape, divisor, strict=True)
    )
    return z, y, x
