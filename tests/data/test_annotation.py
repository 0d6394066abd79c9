from __future__ import annotations

import numpy as np
import pytest

from napari_volseg.data.annotation import Annotation, Case, LabelClass, default_classes
from napari_volseg.data.errors import InputError
from napari_volseg.data.volume import Volume


def test_classes_are_derived_from_the_labels_and_hold_the_background():
    labels = np.zeros((2, 3, 4), np.uint8)
    labels[0, 0, :2] = 5, 2
    assert Annotation(labels).class_ids == (1, 2, 5)


def test_default_classes_are_named_and_of_different_colors():
    classes = default_classes((3, 1, 2))
    assert [c.name for c in classes] == ["background", "class 2", "class 3"]
    assert len({c.color for c in classes}) == 3


@pytest.mark.parametrize("dtype", ["int32", "float32", "bool"])
def test_labels_of_another_type_are_refused(dtype):
    with pytest.raises(InputError, match=dtype):
        Annotation(np.zeros((2, 3, 4), dtype))


def test_labels_must_be_3d():
    with pytest.raises(InputError, match=r"\(z, y, x\)"):
        Annotation(np.zeros((3, 4), np.uint8))


def test_a_label_without_a_class_is_refused():
    labels = np.full((2, 3, 4), 7, np.uint8)
    with pytest.raises(InputError, match="7"):
        Annotation(labels, default_classes((1, 2)))


def test_classes_must_ascend_and_not_repeat():
    one, two = default_classes((1, 2))
    for classes in ((two, one), (one, one)):
        with pytest.raises(InputError, match="unique and ascending"):
            Annotation(np.zeros((2, 3, 4), np.uint8), classes)


@pytest.mark.parametrize("number", [0, -1, 65536])
def test_a_class_id_must_be_between_1_and_65535(number):
    with pytest.raises(InputError, match=str(number)):
        LabelClass(number, "cell", "#ffffff")


def test_a_case_needs_an_annotation_of_the_same_shape():
    volume = Volume(np.zeros((1, 2, 3, 4), np.uint8), name="kidney")
    Case(volume, Annotation(np.zeros((2, 3, 4), np.uint8)))
    with pytest.raises(InputError, match="kidney"):
        Case(volume, Annotation(np.zeros((2, 4, 3), np.uint8)))
