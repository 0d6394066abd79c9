"""What the user works on: image, annotation, classes, model, prediction.

Free of Qt. The steps of the dock read it, change it through its methods, and listen to
its signals; they know nothing of each other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels, Layer
from psygnal import Signal, SignalGroup

from napari_volseg.data.annotation import COLORS, LabelClass, default_classes, with_classes
from napari_volseg.data.errors import InputError
from napari_volseg.data.volume import Volume
from napari_volseg.widgets.checks import check_annotation
from napari_volseg.widgets.layers import (
    ANNOTATION,
    MAX_CLASSES,
    PREVIEW,
    PROPOSALS,
    UNCERTAINTY,
    classes_of,
    empty_prediction,
    new_annotation,
    new_prediction,
    note,
    noted,
    set_classes,
    volume_of,
)
from napari_volseg.widgets.painted import Painted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from napari.components import ViewerModel
    from numpy.typing import NDArray

    from napari_volseg.models.checkpoint import Checkpoint
    from napari_volseg.review.suggest import UncertaintyMap


GEOMETRY_EVENTS = ("data", "name", "scale", "translate", "rotate", "shear", "affine", "units")


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network that the window holds.

    Attributes
    ----------
    checkpoint : Checkpoint
    name : str
        What to call it: the volume or the file it comes from.
    """

    checkpoint: Checkpoint
    name: str


class Changes(SignalGroup):
    """What a session tells: one signal for each part of it."""

    layers = Signal()
    image = Signal()
    annotation = Signal()
    classes = Signal()
    classes_edited = Signal(str, tuple)
    """What the user did to the classes, and what they were before."""
    painted = Signal()
    model = Signal()
    prediction = Signal()
    uncertainty = Signal()
    busy = Signal()


class Session:
    """The state of one dock.

    Attributes
    ----------
    viewer : napari viewer
    changed : Changes
    image, volume : Image layer and Volume, or None
        The volume is None also where ``image_refusal`` says why the layer cannot be used.
    annotation : Labels layer or None
        None also where ``annotation_refusal`` says why the chosen one cannot be used.
    painted : Painted
        What the annotation held at the last look.
    model : Model or None
    prediction : Labels layer or None
        The overlay that predictions of this volume are written into.
    uncertainty : UncertaintyMap or None
        What the prediction is unsure of; None unless it is of the whole volume.
    proposals : unsigned integer (Z, Y, X) or None
        What is proposed between painted slices, if it is to be trained on.
    busy : str
        "training", "predicting" or "": one at a time, so that they share no memory.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.changed = Changes()
        self.image: Image | None = None
        self.volume: Volume | None = None
        self.image_refusal = ""
        self.annotation: Labels | None = None
        self.annotation_refusal = ""
        self._refused: Labels | None = None
        self.painted = Painted()
        self.model: Model | None = None
        self.prediction: Labels | None = None
        self.uncertainty: UncertaintyMap | None = None
        self.proposals: NDArray[np.unsignedinteger] | None = None
        self.busy = ""
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.events.renamed.connect(self._on_renamed)
        self.choose_image(next(iter(self.images()), None))

    def close(self) -> None:
        """Listen to the viewer no more, and tell nothing more."""
        self.changed.block()
        self._follow_image(None)
        self._follow_refused(None)
        events = self.viewer.layers.events
        events.inserted.disconnect(self._on_inserted)
        events.removed.disconnect(self._on_removed)
        events.renamed.disconnect(self._on_renamed)

    def images(self) -> list[Image]:
        """Return the image layers to choose from, one for each volume of several channels."""
        found: dict[int, Image] = {}
        for layer in self.viewer.layers:
            if isinstance(layer, Image) and noted(layer).get("role") != UNCERTAINTY:
                found.setdefault(id(noted(layer).get("volume", layer)), layer)
        return list(found.values())

    def image_name(self, layer: Image) -> str:
        """Return what to call an entry of ``images``."""
        volume = noted(layer).get("volume")
        return volume.name if isinstance(volume, Volume) and volume.channels > 1 else layer.name

    def labels(self) -> list[Labels]:
        """Return the labels layers to choose from."""
        labels = [layer for layer in self.viewer.layers if isinstance(layer, Labels)]
        return [x for x in labels if noted(x).get("role") not in (PREVIEW, PROPOSALS)]

    def choose_image(self, layer: Image | None) -> None:
        """Work on the volume of this image layer, or on none."""
        same = layer is self.image
        self._follow_image(layer)
        self._read_volume()
        if not same:
            self.set_prediction(None)
        self.changed.image.emit()
        self.choose_annotation(self._fitting_annotation())

    def _follow_image(self, layer: Image | None) -> None:
        for old_or_new, act in ((self.image, "disconnect"), (layer, "connect")):
            if old_or_new is not None:
                for name in GEOMETRY_EVENTS:
                    getattr(getattr(old_or_new.events, name), act)(self._on_image_edited)
        self.image = layer

    def _read_volume(self) -> None:
        self.volume, self.image_refusal = None, ""
        if self.image is not None:
            try:
                self.volume = volume_of(self.image)
            except InputError as error:
                self.image_refusal = str(error)

    def _on_image_edited(self, event: Any) -> None:
        shape = self.volume and self.volume.shape
        self._read_volume()
        if (self.volume and self.volume.shape) != shape:
            self.choose_image(self.image)

    def _fitting_annotation(self) -> Labels | None:
        candidates = [self.annotation] if self.annotation is not None else []
        candidates += [x for x in self.labels() if noted(x).get("role") == ANNOTATION]
        for layer in candidates:
            if self.volume is not None and tuple(layer.data.shape) == self.volume.shape:
                return layer
        return None

    def choose_annotation(self, layer: Labels | None) -> None:
        """Paint into this labels layer, or into none."""
        self.annotation, self.annotation_refusal, self.painted = None, "", Painted()
        self._follow_refused(None)
        if layer is not None and self.volume is not None:
            try:
                check_annotation(layer, self.volume)
            except InputError as error:
                self.annotation_refusal = str(error)
                self._follow_refused(layer)
            else:
                self.annotation = layer
                note(layer, role=ANNOTATION)
                set_classes(layer, classes_of(layer))
                if self.model is None and "model" in noted(layer):
                    self.set_model(noted(layer)["model"])
                if layer is self.prediction:
                    layer.editable = True
                    self.set_prediction(None)
        self.changed.annotation.emit()
        self.changed.classes.emit()
        self.changed.painted.emit()

    def _follow_refused(self, layer: Labels | None) -> None:
        """Look again at a layer that was refused as soon as it holds other data."""
        if self._refused is not None:
            self._refused.events.data.disconnect(self._on_refused_edited)
        self._refused = layer
        if layer is not None:
            layer.events.data.connect(self._on_refused_edited)

    def _on_refused_edited(self, event: Any) -> None:
        self.choose_annotation(self._refused)

    def start_annotation(self) -> Labels:
        """Make an empty annotation of the volume, with the brush ready for its first class.

        Raises
        ------
        InputError
            If there is no volume to annotate.
        """
        if self.image is None or self.volume is None:
            raise InputError(self.image_refusal or "open a 3D image first")
        layer = new_annotation(self.image, self.volume)
        self.viewer.layers.append(layer)
        # Without another annotation, it was chosen when it came.
        if self.annotation is not layer:
            self.choose_annotation(layer)
        self.paint_with(self.classes[-1].id)
        return layer

    def paint_with(self, class_id: int) -> None:
        """Pick the brush and a class, ready to paint."""
        if self.annotation is not None:
            self.viewer.layers.selection.active = self.annotation
            self.annotation.selected_label = class_id
            self.annotation.mode = "paint"

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """The classes of the annotation; none without one."""
        return () if self.annotation is None else classes_of(self.annotation)

    def classes_with(self, ids: Iterable[int]) -> tuple[LabelClass, ...]:
        """Return the classes and those of other ids, as the prediction has them or by default."""
        predicted = () if self.prediction is None else classes_of(self.prediction)
        return with_classes(self.classes, ids, predicted)

    def painted_classes(self) -> tuple[LabelClass, ...]:
        """Return the classes that have paint, as of the last look."""
        return tuple(c for c in self.classes if c.id in self.painted.counts)

    def edit_class(self, class_id: int, **values: Any) -> None:
        """Change name or color of a class, in the annotation and in the prediction."""
        before = self.classes
        self.set_classes([replace(c, **values) if c.id == class_id else c for c in before])
        name = "rename a class" if "name" in values else "recolor a class"
        self.changed.classes_edited.emit(name, before)

    def add_class(self) -> LabelClass:
        """Add a class with the next id, and pick the brush with it.

        Raises
        ------
        InputError
            If there is no annotation, or there are too many classes already.
        """
        if self.annotation is None:
            raise InputError("press New to make an annotation first")
        if len(self.classes) >= MAX_CLASSES:
            raise InputError(f"{MAX_CLASSES} classes are the most there can be")
        new_id = max(c.id for c in self.classes) + 1
        used = {c.color for c in self.classes}
        free = [color for color in COLORS if color not in used]
        added = default_classes([new_id])[0]
        added = replace(added, color=free[0]) if free else added
        before = self.classes
        self.set_classes([*before, added])
        self.changed.classes_edited.emit("add a class", before)
        self.paint_with(new_id)
        return added

    def set_classes(self, classes: Sequence[LabelClass]) -> None:
        """Take these classes for the annotation, and their names and colors for the prediction."""
        if self.annotation is None:
            return
        set_classes(self.annotation, classes)
        if self.prediction is not None:
            edited = {c.id: c for c in classes}
            set_classes(self.prediction, [edited.get(c.id, c) for c in classes_of(self.prediction)])
        self.changed.classes.emit()

    def set_painted(self, layer: Labels, painted: Painted) -> None:
        """Take what a look at a labels layer found, unless another was chosen meanwhile."""
        if layer is not self.annotation:
            return
        known = self.classes_with(painted.counts)
        if len(known) > MAX_CLASSES:
            self.choose_annotation(None)
            self._follow_refused(layer)
            self.annotation_refusal = (
                f"{layer.name} holds {len(painted.counts)} labels, more than {MAX_CLASSES} "
                "classes; an annotation has one label for each class, not for each object"
            )
            self.changed.annotation.emit()
            return
        if known != self.classes:
            self.set_classes(known)
        if painted != self.painted:
            self.painted = painted
            self.changed.painted.emit()

    def set_model(self, model: Model) -> None:
        """Predict with this model from now on."""
        self.model = model
        if self.annotation is not None:
            # Where a dock that is closed and opened again finds it.
            note(self.annotation, model=model)
        self.changed.model.emit()

    def set_busy(self, busy: str) -> None:
        """Say that a long job started, or ("") ended."""
        self.busy = busy
        self.changed.busy.emit()

    def set_prediction(self, layer: Labels | None) -> None:
        """Take this labels layer as the overlay of the volume."""
        if layer is not self.prediction:
            self.prediction = layer
            self.set_uncertainty(None)
            self.changed.prediction.emit()

    def set_uncertainty(self, uncertainty: UncertaintyMap | None) -> None:
        """Take what the prediction, now complete, is unsure of."""
        if uncertainty is not self.uncertainty:
            self.uncertainty = uncertainty
            self.changed.uncertainty.emit()

    def start_prediction(self, classes: Sequence[LabelClass]) -> Labels:
        """Make the overlay, or empty it, below the annotation; the brush stays where it is.

        Raises
        ------
        InputError
            If there is no volume to predict.
        """
        if self.image is None or self.volume is None:
            raise InputError(self.image_refusal or "open a 3D image first")
        if self.prediction is not None:
            empty_prediction(self.prediction, classes)
            self.set_uncertainty(None)
            return self.prediction
        layer = new_prediction(self.image, self.volume, classes)
        self.insert_overlay(layer)
        self.set_prediction(layer)
        return layer

    def insert_overlay(self, layer: Layer) -> None:
        """Show a layer below the annotation; the one that is painted on stays the active one."""
        layers = self.viewer.layers
        active = layers.selection.active
        below = layers.index(self.annotation) if self.annotation is not None else len(layers)
        layers.insert(below, layer)
        layers.selection.active = active

    def _on_inserted(self, event: Any) -> None:
        layer: Layer = event.value
        self.changed.layers.emit()
        if isinstance(layer, Image) and self.volume is None:
            self.choose_image(layer)
        if isinstance(layer, Labels) and self.annotation is None:
            fitting = self._fitting_annotation()
            if fitting is layer:
                self.choose_annotation(layer)

    def _on_removed(self, event: Any) -> None:
        layer: Layer = event.value
        self.changed.layers.emit()
        if layer is self.prediction:
            self.set_prediction(None)
        if layer is self.annotation or layer is self._refused:
            self.choose_annotation(None)
        if layer is self.image:
            same = [x for x in self.images() if noted(x).get("volume") is self.volume]
            self.choose_image(next(iter(same or self.images()), None))

    def _on_renamed(self, event: Any) -> None:
        self.changed.layers.emit()
