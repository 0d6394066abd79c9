"""What voxels that nobody painted may be, by a random forest.

Where features are like none that were painted, a fully connected network says with certainty
what its slopes come to there: beyond the outermost painted slice, a tissue ends because its
share grew from one slice to the next. Trees say what they say of the nearest that they know
(Breiman 2001, Random Forests). So a forest is asked what voxels from anywhere in the volume may
be, and the networks learn that, too: as quick as before, and no longer sure where they cannot be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

TREES = 30

AT_ONCE = 6
"""Trees that grow before it says how far it is."""

DEEPEST = 16
"""Decisions of a tree, one after the other, at most."""

VOXELS_A_TREE = 10_000
"""Drawn with replacement: each tree sees others, and of very many voxels only some. With 40,000,
thirty trees on the features of three channels take 19 s, with 10,000 they take 4 s."""


def guess(
    features: Tensor, classes: Tensor, others: Tensor, class_weights: Tensor, seed: int
) -> Iterator[tuple[float, Tensor]]:
    """Guess how likely each class is at voxels that nobody painted, better with each few trees.

    Parameters
    ----------
    features : float (N, F)
        Of labeled voxels.
    classes : int64 (N,)
        What they are.
    others : float (M, F)
        Features of other voxels.
    class_weights : float (K,)
        How much likelier a labeled voxel of each class is to be drawn.
    seed : int

    Yields
    ------
    done : float
        Part of the work that is done, 0 to 1.
    probabilities : float32 (M, K)
        By the trees so far, on the features' device.
    """
    # Half a second for which the window need not wait when it opens.
    from sklearn.tree import DecisionTreeClassifier

    known, truth = features.cpu().numpy(), classes.cpu().numpy()
    # Trees refuse what is infinite, as responses to gray values near float32's end may be.
    unknown = np.nan_to_num(others.cpu().numpy())
    chances = class_weights.double().cpu().numpy()[truth]
    chances /= chances.sum()
    random = np.random.default_rng(seed)
    total = np.zeros((len(unknown), len(class_weights)))
    for trees in range(1, TREES + 1):
        drawn = random.choice(len(known), min(len(known), VOXELS_A_TREE), p=chances)
        tree = DecisionTreeClassifier(
            max_depth=DEEPEST, max_features="sqrt", random_state=int(random.integers(2**31))
        )
        tree.fit(np.nan_to_num(known[drawn]), truth[drawn])
        total[:, tree.classes_] += tree.predict_proba(unknown)
        if trees % AT_ONCE == 0:
            yield trees / TREES, torch.from_numpy(total / trees).to(others)
