"""A comparison of two masks as a page: tables and pictures in one HTML file."""

from __future__ import annotations

import math
from base64 import b64encode
from dataclasses import asdict
from html import escape
from io import BytesIO
from string import Template
from typing import TYPE_CHECKING

import numpy as np

from napari_volseg import __version__
from napari_volseg.data.annotation import BACKGROUND, VIEW_OF_AXIS, Annotation
from napari_volseg.data.atomic import saving
from napari_volseg.data.errors import InputError
from napari_volseg.data.volume import Volume
from napari_volseg.review.compare import AGREEMENT_CLASSES, most_different_slices
from napari_volseg.review.metrics import HEADINGS
from napari_volseg.review.picture import draw_slice

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from PIL import Image

    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.review.compare import MaskComparison

OBJECT_HEADINGS = ("matched", "split", "merged", "missed", "extra", "in A", "in B")

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: 0.25em 0.9em; text-align: right; border-bottom: 1px solid #8a8f9866; }
th:first-child, td:first-child { text-align: left; }
.swatch { display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.4em; }
.legend span { margin-right: 1.2em; white-space: nowrap; }
.row { display: grid; grid-template-columns: repeat($columns, 1fr); gap: 10px; }
.row img { width: 100%; }
figure { margin: 0; }
figcaption, footer { opacity: 0.75; font-size: 90%; }
</style>
</head>
<body>
<h1>$title</h1>
<p>A: <b>$a</b><br>B: <b>$b</b> (the reference)<br>$voxels voxels compared, each $spacing $unit
(z, y, x).</p>
<h2>Agreement of voxels</h2>
$scores
<h2>Agreement of objects</h2>
$objects
<h2>Where they differ</h2>
<p class="legend">$legend</p>
$pictures
<footer>
<p>Voxels count where both masks are labeled. IoU: shared voxels over all of either. Mean accuracy:
mean of sensitivity and specificity. ASD: mean distance between the surfaces, of both together;
HD95: 95th percentile of the same distances. A dash: undefined.</p>
<p>Objects are connected regions of one class. An object lies in another if more than half of it
does. Matched: they lie in each other. Split: an object of B that is more than half covered by
several of A that lie in it. Merged: the same with A and B exchanged. Missed: any other object of B.
Extra: any other of A. (Hoover et al. 1996.)</p>
<p>napari-volseg $version</p>
</footer>
</body>
</html>
""")


def write_report(path: Path, comparison: MaskComparison, volume: Volume | None = None) -> None:
    """Write a comparison as an HTML page that needs no other file.

    For each view (xy, xz, yz) it shows the slice in which most voxels differ: the image, both
    masks in the colors of their classes, and the agreement.

    Parameters
    ----------
    volume : Volume, optional
        What was segmented; without it, the masks are shown on black.

    Raises
    ------
    InputError
        If the volume has another shape than the masks, or the page cannot be written.
    """
    page = _PAGE.substitute(
        title="Comparison of two masks",
        a=escape(comparison.names[0]),
        b=escape(comparison.names[1]),
        voxels=f"{comparison.evaluation.voxels:,}",
        spacing=" by ".join(f"{s:.4g}" for s in comparison.evaluation.spacing),
        unit=escape(comparison.unit),
        scores=_scores(comparison),
        objects=_objects(comparison),
        legend=_legend([*comparison.classes, *AGREEMENT_CLASSES]),
        columns=3 if volume is None else 4,
        pictures=_pictures(comparison, volume),
        version=__version__,
    )
    with saving(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def check_image(volume: Volume, shape: Sequence[int]) -> None:
    """Refuse an image of another shape than the masks'.

    Raises
    ------
    InputError
        Naming both shapes.
    """
    if volume.shape != tuple(shape):
        raise InputError(
            f"{volume.name}: the image has shape {volume.shape}, the masks {tuple(shape)}; give "
            "the image of these masks"
        )


def _scores(comparison: MaskComparison) -> str:
    evaluation = comparison.evaluation
    heads = ["class", *(heading.format(unit=comparison.unit) for heading in HEADINGS)]
    names = {c.id: _class_name(c) for c in comparison.classes}
    rows = [(names[i], agreement) for i, agreement in evaluation.classes.items()]
    rows.append(("mean foreground", evaluation.foreground))
    return _table(heads, ([name, *map(_figure, asdict(a).values())] for name, a in rows))


def _figure(value: float) -> str:
    return "\N{EM DASH}" if math.isnan(value) else f"{value:.3f}"


def _objects(comparison: MaskComparison) -> str:
    names = {c.id: _class_name(c) for c in comparison.classes}
    rows = ([names[i], *asdict(counts).values()] for i, counts in comparison.objects.items())
    return _table(["class", *OBJECT_HEADINGS], rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lay out a table; the cells are HTML already."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f"<table>\n<tr>{head}</tr>\n{body}</table>"


def _class_name(label_class: LabelClass) -> str:
    color, name = escape(label_class.color), escape(label_class.name)
    return f'<span class="swatch" style="background: {color}"></span>{name}'


def _legend(classes: Iterable[LabelClass]) -> str:
    """Name the colors in the pictures; the background, and what is in neither, has none."""
    seen = (c for c in classes if c.id != BACKGROUND)
    return "\n".join(f"<span>{_class_name(c)}</span>" for c in seen)


def _pictures(comparison: MaskComparison, volume: Volume | None) -> str:
    titles = ["image", "A", "B", "agreement"]
    shown = volume
    if shown is None:
        titles.remove("image")
        empty = np.broadcast_to(np.uint8(0), (1, *comparison.agreement.shape))
        shown = Volume(empty, comparison.evaluation.spacing)
    check_image(shown, comparison.agreement.shape)
    masks = [Annotation(m.labels, comparison.classes) for m in (comparison.a, comparison.b)]
    layers = (*masks, Annotation(comparison.agreement, AGREEMENT_CLASSES))
    sections = []
    for axis, index in enumerate(most_different_slices(comparison.agreement)):
        view = VIEW_OF_AXIS[axis]
        drawn = draw_slice(shown, layers, axis, index)[-len(titles) :]
        figures = "\n".join(
            f'<figure><img alt="{title}, {view} slice {index}" src="{_inline(picture)}">'
            f"<figcaption>{title}</figcaption></figure>"
            for title, picture in zip(titles, drawn, strict=True)
        )
        sections.append(f'<h3>{view} slice {index}</h3>\n<div class="row">\n{figures}\n</div>')
    return "\n".join(sections)


def _inline(picture: Image.Image) -> str:
    """Return a picture as the address of an image that holds it."""
    file = BytesIO()
    picture.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
