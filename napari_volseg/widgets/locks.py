"""Accepted and corrected objects are safe from the brush, on the annotation and the prediction."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from napari.utils.notifications import show_info
from qtpy.QtCore import QTimer

from napari_volseg.review.kept import contradictions, near, put_kept
from napari_volseg.review.queue import ACCEPTED
from napari_volseg.widgets.keys import ACCEPT_KEY, FIX_KEY, REVIEW_KEY
from napari_volseg.widgets.layers import noted
from napari_volseg.widgets.parts import count
from napari_volseg.widgets.strokes import stroke_of
from napari_volseg.widgets.verdicts import kept_in, locked_among, locked_in, review_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari.layers import Labels
    from numpy.typing import NDArray

    from napari_volseg.data.kept import KeptObject
    from napari_volseg.data.tiles import Region
    from napari_volseg.widgets.reviewing import Reviewing
    from napari_volseg.widgets.session import Session


class Locks:
    """Puts back what a brush takes from locked objects."""

    def __init__(self, session: Session, reviewing: Reviewing) -> None:
        self._session = session
        self._reviewing = reviewing
        self._prediction: Labels | None = None
        self._told: WeakSet[KeptObject] = WeakSet()

    def hold(
        self, layer: Labels, box: Region, before: NDArray[Any], after: NDArray[Any]
    ) -> NDArray[Any]:
        """Return what a stroke may leave in a box of an annotation; the rest is put back.

        What gets another class than the locked object it lies in keeps what it had; what is
        erased is erased: no label contradicts nothing. The object that is being fixed is open.
        Of our own acts, as proposals that are accepted, nothing is told: they fill what is left.

        Parameters
        ----------
        before, after : integer, of the box's shape
            What the box held, and what is painted; napari may be about to write it only.
        """
        kept = (
            kept_in(self._session) if layer is self._session.annotation else review_of(layer).kept
        )
        fixed = self._reviewing.fixed
        locked = [one for one in locked_among(near(kept, box)) if one is not fixed]
        where, against = contradictions(box, before, after, locked)
        if not against:
            return after
        QTimer.singleShot(0, partial(_put_back, layer, box, where, before, after))
        if not noted(layer).get("act"):
            self._tell(against)
        return np.where(where, before, after)

    def _tell(self, against: Sequence[KeptObject]) -> None:
        message = words(against, self._reviewing.kept)
        self._session.viewer.status = message
        # The next move of the mouse overwrites the status line; to be told once is enough.
        if not self._told.issuperset(against):
            self._told.update(against)
            show_info(message)

    def watch(self, prediction: Labels | None) -> None:
        """Protect locked objects in this prediction, should it be unlocked, and in no other."""
        if self._prediction is not None:
            self._prediction.events.paint.disconnect(self._protect)
        self._prediction = prediction
        if prediction is not None:
            prediction.events.paint.connect(self._protect)

    def _protect(self, event: Any) -> None:
        box, _, _ = stroke_of(event.value, event.source.data)
        # napari tells of some strokes before it paints them.
        QTimer.singleShot(0, partial(self._put_kept, box))

    def _put_kept(self, box: Region) -> None:
        if self._prediction is not None and self._reviewing.possible:
            values = self._prediction.data[box]
            put_kept(values, box, locked_in(self._session))
            self._prediction.data[box] = values
            self._prediction.refresh(extent=False)


def words(against: Sequence[KeptObject], kept: Mapping[int, KeptObject]) -> str:
    """Say which locked objects a stroke left as they are, and how they can be changed.

    Parameters
    ----------
    against : sequence of KeptObject
    kept : mapping of int to KeptObject
        The objects under review, by their numbers; none while they are not found.
    """
    numbers = [number for number, one in kept.items() if one in against]
    accepted = any(one.state == ACCEPTED for one in against)
    what, pick = "What lies here is", f"find the objects in Review ({REVIEW_KEY}) and pick it"
    if numbers:
        what, pick = f"Object {numbers[0]} is", "pick it in Review"
    if len(numbers) > 1:
        what = f"Objects {numbers[0]} and {count(len(numbers) - 1)} more are"
    keys = f"{ACCEPT_KEY} unlocks it, {FIX_KEY} corrects it" if accepted else f"{FIX_KEY} opens it"
    # Of a notification, the first 40 letters are on view.
    return (
        f"{what} {'accepted' if accepted else 'corrected'}; {keys}, once you {pick}. "
        "Paint of another class does not stay there."
    )


def _put_back(
    layer: Labels, box: Region, where: NDArray[np.bool_], before: NDArray[Any], after: NDArray[Any]
) -> None:
    """Put back what a stroke painted in some voxels of a box, unless they are others meanwhile."""
    values = layer.data[box]
    if values.shape == where.shape:
        painted = where & (values == after)
        values[painted] = before[painted]
        layer.data[box] = values
        layer.refresh(extent=False)
