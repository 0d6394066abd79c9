"""Sample data: slices of a truth as an annotator would paint them, and the MNI152 head."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.annotation import BACKGROUND, COLORS, UNLABELED, Annotation, LabelClass
from napari_volseg.data.errors import InputError
from napari_volseg.data.files import read_volume

if TYPE_CHECKING:
    from napari_volseg.data.volume import Volume

_MNI_CLASSES = (
    LabelClass(BACKGROUND, "background", COLORS[0]),
    LabelClass(2, "gray matter", COLORS[1]),
    LabelClass(3, "white matter", COLORS[2]),
    LabelClass(4, "CSF and other", COLORS[3]),
)


def annotate_slices(truth: Annotation, counts: tuple[int, int, int]) -> Annotation:
    """Keep a few orthogonal slices of a dense truth, as if only those had been painted.

    Parameters
    ----------
    truth : Annotation
    counts : (z, y, x)
        Number of slices across each axis, at round((i + 1) * size / (n + 1)).

    Returns
    -------
    Annotation
        Unlabeled elsewhere, the slices marked complete, the classes as in the truth.

    Raises
    ------
    InputError
        For a negative count, or one above the number of slices.
    """
    labels = np.full_like(truth.labels, UNLABELED)
    complete = set()
    for axis, (size, n) in enumerate(zip(labels.shape, counts, strict=True)):
        if not 0 <= n <= size:
            raise InputError(f"{n} slices across {'zyx'[axis]}; there are {size}")
        for index in (round((i + 1) * size / (n + 1)) for i in range(n)):
            plane = (slice(None),) * axis + (index,)
            labels[plane] = truth.labels[plane]
            complete.add((axis, index))
    return replace(truth, labels=labels, complete=frozenset(complete))


def mni152() -> tuple[Volume, Annotation]:
    """Read the MNI152 T1 head from an installed nilearn, with a truth from its tissue maps.

    Returns
    -------
    volume : Volume
        uint8 (1, 189, 233, 197), spacing 1 mm.
    truth : Annotation
        1 background, 2 gray matter (gm >= 0.5 and gm >= wm), else 3 white matter (wm > 0.5), else
        4 CSF and other (T1 > 0).

    Raises
    ------
    InputError
        If nilearn is not installed, or comes without the files.
    """
    spec = importlib.util.find_spec("nilearn")  # importing all of nilearn would take seconds
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "the MNI152 head comes with nilearn, which is not installed: "
            'pip install "napari-volseg[samples]"'
        )
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    t1, gray, white = (
        read_volume(folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz")
        for name in ("t1", "gm", "wm")
    )
    image, gm, wm = (np.asarray(v.image[0]) for v in (t1, gray, white))
    half = np.iinfo(gm.dtype).max / 2  # the maps are stored as 0 to 255
    conditions = [(gm >= half) & (gm >= wm), wm > half, image > 0]
    labels = np.select(conditions, [2, 3, 4], BACKGROUND).astype(np.uint8)
    # The header leaves the unit open; the template is defined in millimeters.
    volume = replace(t1, name="MNI152 T1", unit="millimeter")
    return volume, Annotation(labels, _MNI_CLASSES)
