"""What else a user would pick: methods that see the same paint, by public recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from skimage.feature import multiscale_basic_features
from skimage.segmentation import random_walker
from sklearn.ensemble import RandomForestClassifier

from napari_volseg.review.between import signed_distance

if TYPE_CHECKING:
    from napari_volseg.data.annotation import Case


def random_forest(case: Case, seed: int = 0, *, position: bool = False) -> np.ndarray:
    """Label every voxel by the filter responses of the labeled ones: ilastik, Labkit.

    scikit-image's multiscale_basic_features and 100 trees; with ``position``, the voxel's
    coordinates are features too.
    """
    image = np.asarray(case.volume.image).astype(np.float32)
    features = [multiscale_basic_features(c, sigma_min=0.5, sigma_max=8) for c in image]
    if position:
        features.append(np.moveaxis(np.indices(image.shape[1:], dtype=np.float32), 0, -1))
    responses = np.concatenate(features, -1)
    labels = case.annotation.labels
    forest = RandomForestClassifier(100, max_depth=25, n_jobs=2, random_state=seed)
    forest.fit(responses[labels > 0], labels[labels > 0])
    return np.stack(
        [forest.predict(plane.reshape(-1, plane.shape[-1])) for plane in responses]
    ).reshape(labels.shape)


def walker(case: Case) -> np.ndarray:
    """Let the annotation flood along similar gray values.

    scikit-image's random walker with beta 130, gray values scaled by their 1st and 99th
    percentile: a few bright voxels must not set the scale.
    """
    image = np.moveaxis(np.asarray(case.volume.image).astype(np.float32), 0, -1)
    low, high = np.percentile(image, (1, 99), axis=(0, 1, 2))
    return random_walker(
        (image - low) / (high - low),
        case.annotation.labels.astype(np.int32),
        beta=130,
        mode="cg_j",
        channel_axis=-1,
    )


def shape_interpolation(case: Case) -> np.ndarray:
    """Interpolate between painted slices, blind to the image.

    For each axis and class, signed distances to the outline in the painted slices are
    interpolated linearly between them (and held beyond the outermost); the axes are
    averaged, each weighted by how near its next painted slice is. Distances are cut off
    at 4 voxels of the finest axis, lest a slice without a class outvote all others.
    """
    labels, spacing = case.annotation.labels, case.volume.spacing
    classes = np.unique(labels[labels > 0])
    score = np.zeros((len(classes), *labels.shape), np.float32)
    for axis in range(3):
        complete = sorted(index for a, index in case.annotation.complete if a == axis)
        if not complete:
            continue
        across = tuple(s for a, s in enumerate(spacing) if a != axis)
        planes = np.moveaxis(labels, axis, 0)[complete]
        index = np.arange(labels.shape[axis])
        nearest = np.abs(index[:, None] - complete).min(1) * spacing[axis]
        weight = (1 / (0.5 + nearest / min(spacing)))[:, None, None]
        for k, class_id in enumerate(classes):
            known = np.stack([signed_distance(plane == class_id, across) for plane in planes])
            known = known.clip(-4 * min(spacing), 4 * min(spacing))
            at = np.interp(index, complete, np.arange(len(complete)))
            low = np.floor(at).astype(int)
            high = np.minimum(low + 1, len(complete) - 1)
            part = (at - low)[:, None, None]
            between = (1 - part) * known[low] + part * known[high]
            score[k] += np.moveaxis(weight * between, 0, axis)
    return classes[score.argmax(0)]
