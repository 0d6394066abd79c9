"""A prediction for the window, in a thread: region by region, and what is left once stopped.

torch is imported here, in the thread: the window opens fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from napari_volseg.data.tiles import start_of

if TYPE_CHECKING:
    from collections.abc import Generator

    import numpy as np
    from numpy.typing import NDArray

    from napari_volseg.data.tiles import Region
    from napari_volseg.data.volume import Volume
    from napari_volseg.inference.predict import PredictedRegion
    from napari_volseg.models.checkpoint import Checkpoint
    from napari_volseg.review.suggest import UncertaintyMap
    from napari_volseg.training.events import Command


@dataclass(frozen=True, eq=False)
class RegionUncertainty:
    """How unsure a finished piece of a prediction is.

    Attributes
    ----------
    region : region
        Where it belongs in the volume.
    values : uint8 (z, y, x)
        Normalized entropy: 0 is sure, 255 a mere guess.
    """

    region: Region
    values: NDArray[np.uint8] = field(repr=False)


@dataclass(eq=False)
class Prediction:
    """A prediction of a volume as far as it has come; once stopped, it can go on.

    Attributes
    ----------
    checkpoint : Checkpoint
    volume : Volume
    flips : bool
        Whether it is the mean over mirrored images.
    finished : set of (z, y, x)
        First voxels of the regions that are done.
    uncertainty : UncertaintyMap, optional
        Of these regions; there is none before the first begins.
    """

    checkpoint: Checkpoint
    volume: Volume
    flips: bool
    finished: set[tuple[int, ...]] = field(default_factory=set)
    uncertainty: UncertaintyMap | None = None


def predict_on(
    prediction: Prediction, near: tuple[int, int] | None
) -> Generator[PredictedRegion | RegionUncertainty | Prediction | None, Command | None, None]:
    """Predict what is left of a volume, the slice on view first, then the regions near it.

    The last event is the prediction, once it is complete. None tells nothing: it comes where
    it can be stopped in the middle of a region. ``send(Command.STOP)`` ends it; nothing of what
    is finished then is still to come.

    Raises
    ------
    InputError
        As ``inference.predict.predict``.
    """
    from napari_volseg.inference.predict import order_tiles, prepare
    from napari_volseg.review.suggest import add_region, empty_map
    from napari_volseg.review.uncertainty import doubt_levels
    from napari_volseg.training.events import Command

    checkpoint, volume = prediction.checkpoint, prediction.volume
    predictor = prepare(checkpoint, volume, flips=prediction.flips)
    if near is not None:
        for piece in predictor.look(near):
            if (yield piece and replace(piece, done=len(prediction.finished))) is Command.STOP:
                return
    uncertainty = prediction.uncertainty
    if uncertainty is None:
        uncertainty = empty_map(volume.shape, volume.spacing, len(checkpoint.classes))
        prediction.uncertainty = uncertainty
    ordered = order_tiles(predictor.tiles, near)
    left = [tile for tile in ordered if start_of(tile.write) not in prediction.finished]
    for piece in predictor.passes(left):
        if piece is None:
            if (yield None) is Command.STOP:
                return
            continue
        entropy = add_region(uncertainty, piece.region, piece.probabilities)
        prediction.finished.add(start_of(piece.region))
        heard = yield RegionUncertainty(piece.region, doubt_levels(entropy))
        last = yield replace(piece, done=len(prediction.finished), total=len(ordered))
        if Command.STOP in (heard, last):
            break
    if len(prediction.finished) == len(ordered):
        yield prediction
