from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from napari_volseg.data.annotation import Annotation, LabelClass
from napari_volseg.data.errors import InputError
from napari_volseg.data.samples import annotate_slices, mni152


@pytest.fixture
def truth():
    labels = np.random.default_rng(0).integers(1, 3, (9, 10, 11), np.uint8)
    return Annotation(labels, (LabelClass(1, "nothing", "#000000"), LabelClass(2, "x", "#ffffff")))


def test_slices_are_kept_at_even_distances_and_marked_complete(truth):
    sparse = annotate_slices(truth, (2, 1, 3))
    assert sparse.complete == {(0, 3), (0, 6), (1, 5), (2, 3), (2, 6), (2, 8)}
    painted = np.zeros(truth.labels.shape, bool)
    painted[[3, 6]] = painted[:, 5] = painted[:, :, [3, 6, 8]] = True
    np.testing.assert_array_equal(sparse.labels, np.where(painted, truth.labels, 0))
    assert sparse.classes == truth.classes


def test_no_slice_leaves_nothing_and_the_truth_stays_as_it_is(truth):
    before = truth.labels.copy()
    sparse = annotate_slices(truth, (0, 0, 0))
    assert not sparse.labels.any()
    assert sparse.complete == frozenset()
    np.testing.assert_array_equal(truth.labels, before)


@pytest.mark.parametrize("counts", [(-1, 0, 0), (10, 0, 0), (0, 0, 12)])
def test_a_count_that_cannot_be_is_refused(truth, counts):
    with pytest.raises(InputError, match="slices across"):
        annotate_slices(truth, counts)


@pytest.fixture
def fake_nilearn(tmp_path, monkeypatch):
    """A package of that name with files as nilearn has them, which fails if it is imported."""
    folder = tmp_path / "nilearn" / "datasets" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "nilearn" / "__init__.py").write_text("raise RuntimeError('imported')")
    values = {
        "t1": [0, 9, 9, 9, 9, 0],
        "gm": [0, 128, 120, 10, 150, 0],
        "wm": [0, 100, 130, 120, 151, 0],
    }
    for name, row in values.items():
        data = np.broadcast_to(np.array(row, np.uint8)[:, None, None], (6, 2, 3))
        image = nib.Nifti1Image(data, np.diag([1.0, 1, 1, 1]))
        image.to_filename(folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_the_tissues_of_the_head_follow_from_nilearns_maps(fake_nilearn):
    volume, truth = mni152()
    assert volume.image.shape == (1, 3, 2, 6)
    assert volume.unit == "millimeter"
    assert truth.labels[1, 1].tolist() == [1, 2, 3, 4, 3, 1]
    assert len(truth.classes) == 4


def test_files_that_are_missing_are_named(fake_nilearn):
    next(fake_nilearn.glob("*_gm_*")).unlink()
    with pytest.raises(InputError, match=r"_gm_.*no such file"):
        mni152()


def test_without_nilearn_the_way_to_it_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "napari-volseg\[samples\]"'):
        mni152()
