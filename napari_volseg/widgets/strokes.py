"""What napari tells of a stroke, as a box with the labels before and after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_volseg.data.tiles import around, relative

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.tiles import Region


def stroke_of(
    atoms: Sequence[Any], labels: AnyLabels
) -> tuple[Region, NDArray[np.integer], NDArray[np.integer]]:
    """Return the box that a stroke changes, and what the labels hold there before and after it.

    Parameters
    ----------
    atoms : sequence
        The value of a ``paint`` event: each is a step of the stroke, as a box with a mask, or as
        (indices, old values, new values). Before 0.8, napari knows only the latter.
    labels : integer (Z, Y, X)
        With the stroke in them or not: napari tells of a single step before it is taken.
    """
    box = around([_box(atom) for atom in atoms])
    before = labels[box].copy()
    # The last step first: where steps overlap, the first one knows what was there.
    for atom in reversed(atoms):
        _put(before, box, atom, new=False)
    after = before.copy()
    for atom in atoms:
        _put(after, box, atom, new=True)
    return box, before, after


def _put(values: NDArray[np.integer], box: Region, atom: Any, *, new: bool) -> None:
    """Put what a step found, or what it left, into the values of a box."""
    if not hasattr(atom, "slice_key"):
        indices, old_values, new_values = atom
        at = tuple(i - side.start for i, side in zip(indices, box, strict=True))
        values[at] = new_values if new else old_values
        return
    inside = values[relative(atom.slice_key, box)]
    inside[... if atom.mask is None else atom.mask] = atom.new_value if new else atom.old_values


def _box(atom: Any) -> Region:
    if hasattr(atom, "slice_key"):
        return around([atom.slice_key])
    z, y, x = (slice(int(i.min()), int(i.max()) + 1) for i in atom[0])
    return z, y, x
