"""The work of ``napari-volseg classify-objects``."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from napari_volseg.cli.terminal import follow, naming, progress
from napari_volseg.data.annotation import BACKGROUND, COLORS, LabelClass, default_classes
from napari_volseg.data.errors import InputError
from napari_volseg.data.files import read_annotation, read_volume, write_labels
from napari_volseg.inference.large import is_large
from napari_volseg.review.classify import (
    ClassifiedObject,
    class_labels,
    classify_objects,
    train_on_objects,
)
from napari_volseg.review.object_table import ClassifiedVolume, write_table
from napari_volseg.review.objects import check_shape, finding_objects

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_volseg.review.objects import Objects
    from napari_volseg.sparse.object_config import ObjectConfig


def read_examples(path: Path, objects: Objects) -> tuple[dict[int, int], tuple[LabelClass, ...]]:
    """Read which objects are of which class.

    Parameters
    ----------
    path : Path
        CSV with the column ``class``, any text, and either ``object``, an id, or ``z``, ``y``
        and ``x``, a voxel in the object. Other columns are left alone, so that the table of
        an earlier run can be corrected and given.

    Returns
    -------
    given : dict of object id to class id
    classes : tuple of LabelClass
        In the order of their names, from id 2.

    Raises
    ------
    InputError
        For a file, a row or a value that is not as described.
    """
    named: dict[int, str] = {}
    for line, row in read_rows(path):
        with naming(Path(f"{path}, line {line}")):
            number, name = example_object(row, objects), (row["class"] or "").strip()
            if not name:
                raise InputError("no class; write one, or leave the row out")
            if named.setdefault(number, name) != name:
                raise InputError(f"object {number} is {named[number]!r} in an earlier line")
    classes = tuple(
        LabelClass(i, name, COLORS[(i - 1) % len(COLORS)])
        for i, name in enumerate(sorted(set(named.values())), start=BACKGROUND + 1)
    )
    if len(classes) < 2:
        raise InputError(f"{path}: examples of {len(classes)} classes; give some of at least two")
    ids = {c.name: c.id for c in classes}
    return {number: ids[name] for number, name in named.items()}, classes


def read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Read the lines of a CSV of examples, each with its number.

    Raises
    ------
    InputError
        If it cannot be read, or columns are missing.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a CSV of examples")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            names = reader.fieldnames or ()
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV ({error}); save it as CSV in UTF-8") from error
    if "class" not in names or not ("object" in names or set(names) >= set("zyx")):
        raise InputError(
            f"{path}: columns {', '.join(names) or 'none'}; name them, in the first line, class "
            "and either object or z, y, x"
        )
    return rows


def example_object(row: Mapping[str, str], objects: Objects) -> int:
    """Return the object that a row of examples means.

    Raises
    ------
    InputError
        If there is none, or it is not named by whole numbers.
    """
    columns = ["object"] if "object" in row else [*"zyx"]
    try:
        numbers = [int(row[column]) for column in columns]
    except ValueError:
        texts = ", ".join(row[column] for column in columns)
        raise InputError(
            f"{', '.join(columns)} is {texts!r}; give whole numbers (voxels for z, y, x)"
        ) from None
    return objects.get(numbers[0]).id if "object" in row else objects.at(numbers)


def classify_files(
    files: tuple[Path, Path, Path],
    unlabeled: int,
    smallest: int,
    config: ObjectConfig,
    output: Path,
    table: Path | None,
) -> ClassifiedVolume:
    """Train on the examples, classify all objects, and write labels and table.

    Parameters
    ----------
    files : (image, mask, examples)
    unlabeled : int
        Value of the mask that means unlabeled.
    smallest : int
        Voxels of the smallest object.

    Raises
    ------
    InputError
        If a file cannot be read, or they do not fit one another.
    """
    image, mask, examples = files
    volume = read_volume(image)
    labels = read_annotation(mask, unlabeled=unlabeled, in_blocks=is_large).labels
    objects = follow(finding_objects(labels, smallest), f"objects of {mask.name}")
    with naming(mask):
        check_shape(volume, objects)
        if not objects.found:
            raise InputError(
                "no object: 0 and 1 are unlabeled and background; say --unlabeled none if 0 is "
                "the background and 1 an object"
            )
    given, classes = read_examples(examples, objects)
    last = None
    with progress("training") as report:
        for last in train_on_objects(volume, objects, given, classes, config):
            loss = "" if last.loss is None else f", loss {last.loss:.3f}"
            report(last.fraction, f"step {last.step}{loss}, {last.seconds_left:.0f} s left")
    if last is None or last.checkpoint is None:
        raise RuntimeError("the training ended without a checkpoint")
    rows: list[ClassifiedObject] = []
    with progress("classifying") as report:
        for some in classify_objects(last.checkpoint, volume, objects, given, device=config.device):
            rows.extend(some)
            report(len(rows) / len(objects.found), f"object {len(rows)} of {len(objects.found)}")
    result = ClassifiedVolume(tuple(rows), classes, volume.unit)
    if table is not None:
        write_table(table, result.table())
    shown = (*default_classes((BACKGROUND,)), *classes)
    write_labels(output, class_labels(objects, rows), volume, shown)
    return result
