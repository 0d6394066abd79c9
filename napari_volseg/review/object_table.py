"""Classified objects as a table: rows of plain values, and a CSV of them."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from napari_volseg.data.atomic import saving

if TYPE_CHECKING:
    from pathlib import Path

    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.review.classify import ClassifiedObject


@dataclass(frozen=True)
class ClassifiedVolume:
    """The objects of a volume with their classes, and what is needed to show them."""

    rows: tuple[ClassifiedObject, ...]
    classes: tuple[LabelClass, ...]
    unit: str

    def table(self) -> list[dict[str, Any]]:
        """Return a row of plain values for each object."""
        names = {c.id: c.name for c in self.classes}
        table = []
        for row in self.rows:
            values = asdict(row)
            center = dict(zip("zyx", values.pop("center"), strict=True))
            label = values.pop("class_id")
            first = {"object": values.pop("object"), "class": names[label], "label": label}
            values = first | values
            values |= {f"center_{axis}_{self.unit}": value for axis, value in center.items()}
            table.append(values)
        return table

    def __str__(self) -> str:
        counts = Counter(row.class_id for row in self.rows)
        given = sum(row.given for row in self.rows)
        parts = [f"{counts[c.id]} {c.name}" for c in self.classes]
        return f"{len(self.rows)} objects, {given} of them examples: {', '.join(parts)}"


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows of plain values as CSV; the file appears whole or not at all.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    with saving(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
