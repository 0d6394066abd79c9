"""The volumes of the benchmarks, and how they are annotated.

Real annotated volumes (a folder with the layout of ``REAL``), the kidney phantom, a CT as it
were, and generated volumes of four kinds. Whole orthogonal slices are painted at positions
round((i + 1) * size / (n + 1)) of each axis, or scribbles are drawn; everything else is
unlabeled.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_volseg import evaluate, read_annotation, read_volume
from napari_volseg.data.annotation import UNLABELED, Annotation, Case
from napari_volseg.data.generated import KINDS, generated_volume
from napari_volseg.data.phantom import kidney_phantom, smooth_field
from napari_volseg.data.samples import annotate_slices
from napari_volseg.data.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

    from napari_volseg.review.metrics import Agreement

Known = tuple[Volume, Annotation]

# name: image, value that means unlabeled in the truth (-1: none), slices across (z, y, x)
REAL = {
    "nuclei_1135": ("plant_nuclei/nuclei_1135_image.ome.tif", -1, "3_3_2"),
    "nuclei_1136": ("plant_nuclei/nuclei_1136_image.ome.tif", -1, "3_3_2"),
    "lightsheet_vessels": ("lightsheet_vessels/vessels_image.tif", -1, "3_3_2"),
    "plant_cells": ("plant_cells/ovule_image.ome.tif", 0, "2_2_2"),
    "hippocampus_001": ("hippocampus_mri/hippocampus_001_image.nii.gz", -1, "3_3_2"),
    "hippocampus_003": ("hippocampus_mri/hippocampus_003_image.nii.gz", -1, "3_3_2"),
    "mni152": ("mni152_tissue/mni152_t1_image.nii.gz", -1, "3_3_2"),
}
TABLE_2 = ("1_1_1", "2_2_1", "3_3_2", "5_5_3")
"""Numbers of slices of the 3D U-Net paper's Table 2."""

CT = "ct"
"""Name of ``abdomen``."""

BRUSH = 1
"""Radius of a scribble in voxels."""


def known_volume(folder: Path | None, name: str, seed: int = 0) -> Known:
    """Return a volume and its truth: a real one, "phantom" or a generated kind."""
    if name == "phantom":
        return kidney_phantom(seed=seed)
    if name == CT:
        return abdomen(seed)
    if name in KINDS:
        return generated_volume(name, (64, 128, 128), seed)
    if folder is None:
        raise SystemExit(f"{name}: --data says where the real volumes are")
    image, unlabeled, _ = REAL[name]
    truth = read_annotation(folder / image.replace("image", "labels"), unlabeled=unlabeled)
    return read_volume(folder / image), truth


def abdomen(seed: int = 0) -> Known:
    """Generate what a CT shows: liver and lesions differ little, air and bone a hundred times.

    int16 (1, 48, 128, 128) in Hounsfield units, spacing 2.5 x 1 x 1 mm.
    """
    shape, spacing = (48, 128, 128), np.array((2.5, 1.0, 1.0))
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    rough = 0.15 * smooth_field(shape, spacing, 12, rng)
    body = (y / 0.75) ** 2 + (x / 0.9) ** 2 < 1
    liver = (z / 0.8) ** 2 + ((y + 0.05) / 0.45) ** 2 + ((x + 0.3) / 0.4) ** 2 + rough < 1
    lesion = liver & (smooth_field(shape, spacing, 14, rng) > 0.9)
    spine = ((y - 0.5) / 0.13) ** 2 + (x / 0.13) ** 2 < 1
    gray = np.select([lesion, liver, spine, body], [35.0, 60.0, 600.0, 20.0], -1000.0)
    noise = gaussian_filter(rng.normal(size=shape), 0.8)
    gray = gaussian_filter(gray, 1 / spacing) + 8 * noise / noise.std()
    labels = np.select([lesion, liver], [3, 2], 1).astype(np.uint8)
    volume = Volume(gray[None].astype(np.int16), tuple(spacing.tolist()), "millimeter", name=CT)
    return volume, Annotation(labels)


def main_cases(folder: Path | None) -> list[str]:
    """Name what the main job is measured on; see ``case_of``."""
    real = [name for name in REAL if name != "mni152"] if folder else []
    return [*real, *(f"phantom_{counts}" for counts in TABLE_2)]


def case_of(folder: Path | None, name: str) -> tuple[Case, Annotation]:
    """Return what is painted of a case of ``main_cases``, and the truth."""
    of, how = (name, REAL[name][-1]) if name in REAL else name.split("_", 1)
    volume, truth = known_volume(folder, of)
    return Case(volume, annotated(truth, how)), truth


def agreement(found: np.ndarray, case: Case, truth: Annotation) -> Agreement:
    """Compare labels with the truth where nobody painted: the mean over the foreground."""
    return evaluate(
        Annotation(found.astype(np.uint8)),
        truth,
        spacing=case.volume.spacing,
        annotation=case.annotation,
    ).foreground


def annotated(truth: Annotation, how: str, seed: int = 0) -> Annotation:
    """Annotate by whole slices ("3_3_2") or by "scribbles" on 1% of the voxels."""
    if how == "scribbles":
        return scribbles(truth, 0.01, seed)
    z, y, x = (int(n) for n in how.split("_"))
    return annotate_slices(truth, (z, y, x))


def scribbles(truth: Annotation, part: float, seed: int) -> Annotation:
    """Draw strokes, each inside one class of one slice, until a part of the voxels is painted.

    Every class is drawn as often; a stroke wanders on with slowly turning direction until
    it would leave its class.
    """
    rng = np.random.default_rng(seed)
    labels = np.full_like(truth.labels, UNLABELED)
    places = {c: np.argwhere(truth.labels == c) for c in truth.class_ids}
    while (labels != UNLABELED).mean() < part:
        for class_id, voxels in places.items():
            draw_stroke(labels, truth.labels, class_id, voxels[rng.integers(len(voxels))], rng)
    return replace(truth, labels=labels, complete=frozenset())


def draw_stroke(
    labels: np.ndarray,
    truth: np.ndarray,
    class_id: int,
    start: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Draw one stroke into the labels, most often in an xy slice."""
    axis = rng.choice(3, p=(0.6, 0.2, 0.2))
    plane = (slice(None),) * axis + (int(start[axis]),)
    painted, inside = labels[plane], truth[plane] == class_id
    at, angle = np.delete(start, axis).astype(float), rng.uniform(0, 2 * np.pi)
    for _ in range(rng.integers(10, 40)):
        y, x = np.round(at).astype(int)
        if not (0 <= y < inside.shape[0] and 0 <= x < inside.shape[1] and inside[y, x]):
            return
        brush = (
            slice(max(0, y - BRUSH), y + BRUSH + 1),
            slice(max(0, x - BRUSH), x + BRUSH + 1),
        )
        painted[brush][inside[brush]] = class_id
        angle += rng.normal(scale=0.3)
        at += (np.sin(angle), np.cos(angle))
