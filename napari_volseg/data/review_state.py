"""What a review said of objects and wrote into an annotation, kept beside the annotation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_volseg.data.corrections import CORRECTIONS, Corrections
from napari_volseg.data.history import History
from napari_volseg.data.history_log import HistoryLog, read_history
from napari_volseg.data.kept import KeptObject, kept_by

if TYPE_CHECKING:
    from pathlib import Path

REVIEW = "review.log"


@dataclass(frozen=True)
class ReviewState:
    """The verdicts on objects, and which voxels of the annotation are corrections."""

    kept: tuple[KeptObject, ...] = ()
    corrections: Corrections = field(default_factory=Corrections)


class ReviewLog:
    """The open log of a review: its objects and blocks of corrections, each an act.

    Parameters
    ----------
    folder : Path
        The journal's.
    """

    def __init__(self, folder: Path) -> None:
        self._log = HistoryLog(folder, REVIEW)

    def write(self, state: ReviewState) -> None:
        """Write what changed since the last call, and force it to disk.

        Raises
        ------
        OSError
            If the disk is full or gone; the next call writes what this one could not.
        """
        objects = [one.act for one in state.kept]
        self._log.write(History((*state.corrections.blocks.values(), *objects)))

    def close(self) -> None:
        """Close the file."""
        self._log.close()


def read_review(folder: Path) -> ReviewState:
    """Read the review that a journal's folder holds; an empty one if there is none."""
    acts = read_history(folder, REVIEW).undoable
    blocks = [act for act in acts if act.name == CORRECTIONS]
    return ReviewState(
        tuple(kept_by(act) for act in acts if act.name != CORRECTIONS),
        Corrections().put(act.patches[0] for act in blocks),
    )
