"""The review of a prediction: what is said of its objects, and what that changes where.

What a review says or changes is an act of the undo of the annotation; with
it goes what that changes in the prediction.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_volseg.data.annotation import with_classes
from napari_volseg.data.errors import InputError
from napari_volseg.data.kept import kept_by
from napari_volseg.data.parts import take_over
from napari_volseg.review.again import said_again
from napari_volseg.review.edits import (
    Edit,
    Review,
    apply,
    cut_ahead,
    reject_all,
    restore,
    say_of,
)
from napari_volseg.review.kept import cut_out_all, most_shared, overlap
from napari_volseg.review.queue import (
    ACCEPTED,
    CORRECTED,
    REJECTED,
    UNREVIEWED,
    MeasuredObject,
    measure_objects,
)
from napari_volseg.review.reshape import painted
from napari_volseg.widgets.layers import classes_of, history_of, noted
from napari_volseg.widgets.locks import Locks
from napari_volseg.widgets.parts import count
from napari_volseg.widgets.verdicts import keep_in, kept_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari.layers import Labels
    from numpy.typing import NDArray

    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.data.corrections import Corrections
    from napari_volseg.data.history import Act
    from napari_volseg.data.kept import KeptObject
    from napari_volseg.data.volume import Volume
    from napari_volseg.review.objects import Objects
    from napari_volseg.widgets.finding import FoundObjects
    from napari_volseg.widgets.jobs import Background
    from napari_volseg.widgets.session import Session
    from napari_volseg.widgets.undo import Undo

LIMIT_BYTES = 32 * 1024**2
"""Of what goes with the acts of the annotation's history, and is not in them."""


class Reviewing:
    """What is said of the objects of the prediction; one review at a time, or none.

    Attributes
    ----------
    changed : signal (frozenset of int)
        These objects are others now, or something else was said of them; all at the start.
    measured : mapping of id to MeasuredObject
    unfit : tuple of KeptObject
        What was said before of objects that are not in this mask.
    """

    changed = Signal(frozenset)

    def __init__(self, session: Session, background: Background, undo: Undo) -> None:
        self._session = session
        self._background = background
        self._undo = undo
        self._locks = Locks(session, self)
        undo.hold = self._locks.hold
        self._edits: WeakKeyDictionary[Act, Edit] = WeakKeyDictionary()
        self._working = False
        self._clear()
        undo.recorded.connect(self._on_recorded)
        undo.exchanged.connect(self._on_exchanged)

    def _clear(self) -> None:
        self._locks.watch(None)
        self._prediction: Labels | None = None
        self._review: Review | None = None
        self._volume: Volume | None = None
        self._kept: dict[int, KeptObject] = {}
        self.unfit: tuple[KeptObject, ...] = ()
        self.measured: dict[int, MeasuredObject] = {}
        self.painting = 0
        self._edits.clear()

    def start(self, prediction: Labels, volume: Volume, found: FoundObjects) -> None:
        """Begin with the objects found in the prediction of a volume."""
        self._clear()
        self._prediction, self._volume = prediction, volume
        self._kept, self.unfit = dict(found.kept), found.unfit
        states = {number: one.state for number, one in found.kept.items()}
        self._review = Review(found.objects, prediction.data, states)
        self.measured = {m.id: m for m in found.measured}
        take_over(prediction.data, found.mask, [one.box for one in found.kept.values()])
        prediction.refresh(extent=False)
        keep_in(self._session, self._all_kept())
        self._locks.watch(prediction)
        self.changed.emit(frozenset(self.measured))

    def end(self) -> None:
        """Forget it; what is kept stays with the prediction."""
        self._clear()
        self.changed.emit(frozenset())

    @property
    def painting(self) -> int:
        """The object that strokes change, 0 for none; such strokes are corrections."""
        return self._painting

    @painting.setter
    def painting(self, number: int) -> None:
        self._painting = number
        self._undo.correcting = self._session.annotation if number else None

    @property
    def fixed(self) -> KeptObject | None:
        """The object that strokes change."""
        return self._kept.get(self.painting)

    @property
    def kept(self) -> Mapping[int, KeptObject]:
        """The objects of which something was said, as they are now, by their ids."""
        return self._kept

    def _all_kept(self) -> tuple[KeptObject, ...]:
        return (*self._kept.values(), *self.unfit)

    @property
    def forgotten(self) -> bool:
        """Whether the annotation is another one now, with verdicts of its own."""
        return self._review is not None and kept_in(self._session) != self._all_kept()

    @property
    def objects(self) -> Objects | None:
        """The objects as they are now."""
        return None if self._review is None else self._review.objects

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Of the volume, (z, y, x)."""
        return (1.0, 1.0, 1.0) if self._volume is None else self._volume.spacing

    def number_at(self, voxel: tuple[int, int, int]) -> int:
        """Return the object at a voxel (z, y, x), 0 if there is none."""
        return 0 if self._review is None else self._review.objects.number_at(voxel)

    @property
    def states(self) -> Mapping[int, str]:
        """What was said of the objects; nothing yet of those that are not among them."""
        return {} if self._review is None else self._review.states

    def state(self, number: int) -> str:
        """Return what was said of an object."""
        return self.states.get(number, UNREVIEWED)

    @property
    def possible(self) -> bool:
        """Whether the objects are those of the prediction as it is."""
        return (
            self._review is not None
            and self._prediction is not None
            and self._prediction is self._session.prediction
            and self._review.mask is self._prediction.data
        )

    def accept(self, number: int) -> None:
        """Lock an object as it is; if it was accepted before, take that back."""
        state, review = self.state(number), self._review
        if not self.possible or review is None or self.working or state == CORRECTED:
            return
        if state == REJECTED:
            self.edit(partial(restore, state=ACCEPTED), number)
        else:
            verb, said = ("unlock", UNREVIEWED) if state == ACCEPTED else ("accept", ACCEPTED)
            # At once: the next key may be pressed before a thread is done.
            edit = say_of(review, f"{verb} object {number}", {number: said})
            self._deliver(review, edit, self._session.annotation)

    def accept_all(self, numbers: Sequence[int]) -> None:
        """Lock those of some objects of which nothing is said yet, as one act."""
        left = [n for n in numbers if self.state(n) == UNREVIEWED]
        if left:
            name = f"accept {count(len(left))} objects"
            self.edit(say_of, name, dict.fromkeys(left, ACCEPTED))

    def reject_all(self, numbers: Sequence[int]) -> None:
        """Take those of some objects of which nothing is said yet for background, as one act."""
        left = [n for n in numbers if self.state(n) == UNREVIEWED]
        if left:
            self.edit(reject_all, f"reject {count(len(left))} objects", left)

    def ask(self, make: Callable[..., Any], *arguments: Any, done: Callable[[Any], None]) -> None:
        """Call ``done(make(review, *arguments))``, unless the objects change meanwhile."""
        review = self._review
        if review is not None and self.possible:
            self._background.run(
                make,
                review,
                *arguments,
                done=lambda found: done(found) if review is self._review else None,
            )

    def edit(self, make: Callable[..., Edit], *arguments: Any, paint: int = 0) -> bool:
        """Change objects; what that means for the annotation becomes an act of its undo.

        Parameters
        ----------
        make : callable (review, *arguments) -> Edit
            Called in the background; its InputError is shown.
        paint : int
            The object that strokes change from then on.

        Returns
        -------
        bool
            False if that is not possible, or another change is not done yet.
        """
        review, annotation = self._review, self._session.annotation
        if review is None or not self.possible or self.working:
            return False
        if annotation is None:
            self._working = True
            done = partial(self._deliver, review)
            self._background.run(make, review, *arguments, done=done, failed=self._rest)
            return True
        made: list[tuple[Review, Edit]] = []
        predicted = () if self._prediction is None else classes_of(self._prediction)

        def make_act(
            labels: NDArray[Any], classes: tuple[LabelClass, ...], corrections: Corrections
        ) -> Act:
            now = self._review
            if now is None:
                raise InputError("the objects are gone meanwhile; find them again")
            edit = cut_ahead(now, make(now, *arguments))
            made[:] = [(now, edit)]
            known = with_classes(classes, edit.painted(now), predicted)
            act = edit.write(now, labels, corrections)
            return act if known == classes else replace(act, classes=known)

        self._undo.do(
            annotation,
            make_act,
            lambda put: self._deliver(*made[0], annotation, put, paint),
        )
        return True

    @property
    def working(self) -> bool:
        """Whether a change is being prepared in the background."""
        return self._working or self._undo.working

    def _rest(self) -> None:
        self._working = False

    def _deliver(
        self,
        review: Review,
        edit: Edit,
        annotation: Labels | None = None,
        put: Callable[[], None] | None = None,
        paint: int = 0,
    ) -> None:
        """Do an edit; ``put`` puts what it writes into the annotation, as an act."""
        self._rest()
        if review is not self._review or not self.possible:
            return
        if annotation is not self._session.annotation:
            return
        self.painting = 0
        if annotation is None:
            self._apply(edit)
            return
        if put is not None:
            put()
        also = history_of(annotation).undoable[-1] if put is not None else None
        self._do(edit, annotation, also)
        if paint:
            self.painting = paint
            self.changed.emit(frozenset({paint}))

    def _do(self, edit: Edit, annotation: Labels, also: Act | None) -> None:
        """Put an edit into the prediction, as an act of the annotation or as a part of its last."""
        before = dict.fromkeys((*self._all_kept(), *self._quiet(edit)))
        back = self._apply(edit)
        now = dict.fromkeys((*self._all_kept(), *self._quiet(edit)))
        again, gone = ([x for x in a if x not in b] for a, b in ((before, now), (now, before)))
        self._remember(self._undo.say(annotation, edit.name, again, gone, also), back)

    def _remember(self, act: Act, edit: Edit) -> None:
        """Keep what an act changes beside the annotation, and no more than fits.

        Those kept for longest are the last to be undone or redone. Without them, what the acts
        say of objects is said again, as after a restart.
        """
        self._edits[act] = edit
        size = sum(one.size_bytes for one in self._edits.values())
        for old in list(self._edits)[:-1]:
            if size > LIMIT_BYTES:
                size -= self._edits.pop(old).size_bytes

    def _quiet(self, edit: Edit) -> list[KeptObject]:
        """Cut out the objects that an edit changes and of which nothing is said.

        Without their voxels they would not be as they were when it is undone after a restart.
        """
        objects = self.objects
        if objects is None:
            return []
        changed = [n for n in edit.classes if n in objects and self.state(n) == UNREVIEWED]
        return cut_out_all(objects, dict.fromkeys(changed, UNREVIEWED))

    def _apply(self, edit: Edit) -> Edit:
        """Put an edit into the prediction; return what takes it back."""
        assert self._review is not None and self._prediction is not None
        # They will be as they are now; to cut thousands out again would hold the window up.
        before = {n: self._kept[n] for n in (*edit.states, *edit.classes) if n in self._kept}
        self._review, back = apply(self._review, edit)
        self._prediction.refresh(extent=False)
        self._after(edit)
        return replace(back, kept=before)

    def _after(self, edit: Edit) -> None:
        """Measure objects anew, and keep what is said of them."""
        assert self._review is not None and self._volume is not None
        objects, doubt = self._review.objects, noted(self._prediction).get("doubt")
        changed = [n for n in edit.classes if n in objects]
        now = measure_objects(objects, changed, self._volume.spacing, doubt)
        others = {n: one for n, one in self.measured.items() if n not in edit.classes}
        self.measured = others | {one.id: one for one in now}
        numbers = frozenset({*edit.states, *edit.classes})
        self._kept = {n: kept for n, kept in self._kept.items() if n not in numbers}
        said = {n: self.state(n) for n in numbers if self.state(n) != UNREVIEWED}
        left = {n: state for n, state in said.items() if n not in edit.kept}
        rest = zip(left, cut_out_all(objects, left), strict=True)
        for number, kept in (*edit.kept.items(), *rest):
            self._kept[number] = kept
            self.unfit = tuple(one for one in self.unfit if not overlap(one, kept))
        keep_in(self._session, self._all_kept())
        if self.state(self.painting) != CORRECTED:
            self.painting = 0
        self.changed.emit(numbers)

    def _on_recorded(self, layer: Labels, act: Act) -> None:
        if layer is self._session.annotation and self.possible and self.painting:
            # napari tells of some strokes before it paints them.
            QTimer.singleShot(0, partial(self._on_painted, layer, act))

    def _on_painted(self, layer: Labels, act: Act) -> None:
        is_last = history_of(layer).undoable[-1:] == (act,)
        if self.painting and is_last and act.box is not None and self._review is not None:
            self._do(painted(self._review, self.painting, act.box, layer.data), layer, act)

    def _on_exchanged(self, layer: Labels, act: Act, opposite: Act) -> None:
        review, edit = self._review, self._edits.get(act)
        if layer is not self._session.annotation or review is None or not self.possible:
            return
        if edit is None and (act.said or act.unsaid):
            # It was done before a restart, or to an earlier prediction.
            gone, said = ([kept_by(one) for one in some] for some in (act.unsaid, act.said))
            edit = said_again(review, act.name, gone, said)
        if edit is None and self.painting:
            # What is labeled of it may be no longer: the next stroke would cut off the rest.
            number, self.painting = self.painting, 0
            self.changed.emit(frozenset({number}))
        if edit is not None:
            self._remember(opposite, self._apply(edit))
            told = [state for state in edit.states.values() if state != UNREVIEWED]
            expected = [one for one in act.said if one.name != UNREVIEWED]
            if len(expected) > len(told):
                lost = [one for x in expected if not self._is_said(one := kept_by(x))]
                self.unfit = (*self.unfit, *lost)
                keep_in(self._session, self._all_kept())

    def _is_said(self, one: KeptObject) -> bool:
        """Whether anything is said of the object that lies where this one does."""
        number = 0 if self.objects is None else most_shared(self.objects.labels, one)[0]
        return self.state(number) != UNREVIEWED
