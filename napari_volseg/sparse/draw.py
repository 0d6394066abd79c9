"""What is drawn of so much paint that all of it would take too long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike


def draw_until_enough(
    counts: Sequence[ArrayLike], costs: Sequence[int], most: int, fewest: int
) -> list[int]:
    """Draw parts at random until they cost enough; then only those with a class that lacks.

    Of the same parts, it is always the same ones.

    Parameters
    ----------
    counts : sequence of int (K,)
        Voxels of each class in each part.
    costs : sequence of int
        Of each part.
    most : int
        What parts may cost together before no more are drawn.
    fewest : int
        Voxels of a class that are enough of it; where there are fewer, all of them are.

    Returns
    -------
    list of int
        Positions of the parts, in the order in which they were drawn.
    """
    if not counts:
        return []
    table = np.asarray(counts)
    wanted = np.minimum(table.sum(0), fewest)
    found, spent = np.zeros_like(wanted), 0
    drawn: list[int] = []
    for part in np.random.default_rng(0).permutation(len(table)).tolist():
        if spent < most or table[part][found < wanted].any():
            drawn.append(part)
            found += table[part]
            spent += costs[part]
    return drawn
