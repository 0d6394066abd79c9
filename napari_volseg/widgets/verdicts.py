"""What a review said of objects and wrote, as a layer keeps it: it belongs to the annotation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_volseg.data.corrections import Corrections
from napari_volseg.data.review_state import ReviewState
from napari_volseg.review.queue import LOCKED
from napari_volseg.widgets.layers import note, noted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.layers import Labels

    from napari_volseg.data.kept import KeptObject
    from napari_volseg.widgets.session import Session


def review_of(layer: Labels) -> ReviewState:
    """Return the review that an annotation carries."""
    return ReviewState(noted(layer).get("kept", ()), corrections_of(layer))


def corrections_of(layer: Labels) -> Corrections:
    """Return which voxels of an annotation are corrections."""
    corrections: Corrections = noted(layer).get("corrections", Corrections())
    return corrections


def kept_in(session: Session) -> tuple[KeptObject, ...]:
    """Return the objects of which something was said."""
    for home in (session.annotation, session.prediction):
        if home is not None and "kept" in noted(home):
            kept: tuple[KeptObject, ...] = noted(home)["kept"]
            return kept
    return ()


def locked_in(session: Session) -> list[KeptObject]:
    """Return the objects that no new prediction changes, and no brush."""
    return locked_among(kept_in(session))


def locked_among(kept: Iterable[KeptObject]) -> list[KeptObject]:
    """Return those of some objects that are locked."""
    return [one for one in kept if one.state in LOCKED]


def keep_in(session: Session, kept: tuple[KeptObject, ...]) -> None:
    """Keep what was said with the annotation; without one, with the prediction."""
    home = session.annotation or session.prediction
    if home is not None:
        note(home, kept=kept)
