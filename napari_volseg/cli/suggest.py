"""The work of ``napari-volseg suggest``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_volseg.cli.terminal import naming, progress
from napari_volseg.data.annotation import Case
from napari_volseg.data.files import read_annotation, read_volume
from napari_volseg.inference.large import is_large
from napari_volseg.inference.predict import check_channels
from napari_volseg.models.checkpoint import load_model
from napari_volseg.review.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_volseg.review.suggest import Suggestion


def suggest_slices(
    model: Path, image: Path, annotation: Path | None, unlabeled: int, n: int, device: str
) -> tuple[Suggestion, ...]:
    """Read the files, predict, and return the slices to paint next, best first.

    Parameters
    ----------
    unlabeled : int
        Label that means unlabeled in the annotation.

    Raises
    ------
    InputError
        If a file cannot be read, or they do not fit one another.
    """
    checkpoint = load_model(model)
    volume = read_volume(image)
    with naming(image):
        check_channels(checkpoint, volume)
    painted = None
    if annotation is not None:
        with naming(annotation):
            read = read_annotation(annotation, unlabeled=unlabeled, in_blocks=is_large)
            painted = Case(volume, read).annotation
    slices: tuple[Suggestion, ...] = ()
    with progress(image.name) as report:
        for event in suggest(checkpoint, volume, painted, n=n, device=device):
            report(event.done / event.total, f"region {event.done} of {event.total}")
            slices = event.slices
    return slices


def to_json(slices: Sequence[Suggestion]) -> list[dict[str, Any]]:
    """Return plain values that json can write."""
    return [{**asdict(suggestion), "view": suggestion.view} for suggestion in slices]


def table(slices: Sequence[Suggestion]) -> str:
    """Return the slices for reading, one a line."""
    if not slices:
        return "no slice is left to paint"
    width = max(len(str(suggestion.index)) for suggestion in slices)
    return "\n".join(f"{s.view} {s.index:>{width}}  score {s.score:.3f}" for s in slices)
