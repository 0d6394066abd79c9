"""How far a model is to be relied on, in words: what the held-out voxels tell, and what not."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_volseg.data.annotation import AXIS_OF_VIEW
from napari_volseg.data.units import short_unit

if TYPE_CHECKING:
    from napari_volseg.models.checkpoint import Checkpoint
    from napari_volseg.models.evidence import Evidence

GAP = 0.1
"""Difference of IoU that a user should know of: one that is seen in the picture."""

UNCHECKED = 0.1
"""Part of a volume of which a user should know that nothing is known of it."""

WORSE = " !"


def held_out_figures(checkpoint: Checkpoint) -> str:
    """Write what is known of a model as "held-out IoU 0.84 ± 0.03 · near paint 0.86 · ...".

    A figure with "!" is lower by more than ``GAP`` than the one that it belongs beside. "" if
    nothing was held out.
    """
    if checkpoint.score is None:
        return ""
    evidence = checkpoint.evidence
    mean = f"held-out IoU {checkpoint.score:.2f}"
    if evidence.interval is not None:
        mean += f" \N{PLUS-MINUS SIGN} {evidence.interval:.2f}"
    parts = [mean]
    if evidence.near is not None:
        parts.append(f"near paint {evidence.near:.2f}")
    if evidence.far is None:
        parts.append("far from paint: cannot tell")
    else:
        parts.append(f"far from paint {evidence.far:.2f}{WORSE * worse_between(evidence)}")
    views, worse = iou_of_views(evidence), worse_views(evidence)
    if len(views) > 1:
        parts += [f"{view} {iou:.2f}{WORSE * (view in worse)}" for view, iou in views.items()]
    return " \N{MIDDLE DOT} ".join(parts)


def reliability_advice(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Say where a model is not to be relied on, or nothing is known, and what to paint then."""
    if checkpoint.score is None:
        return ("No painted voxel was held out, so nothing tells how good it is.",)
    evidence = checkpoint.evidence
    away = f"more than {evidence.reach:.3g} {short_unit(checkpoint.unit)} from paint"
    advice = []
    if worse_between(evidence):
        advice.append(
            f"Good on your slices, unreliable between them ({away}): paint a slice in the widest "
            "gap."
        )
    if evidence.far is None or evidence.unchecked > UNCHECKED:
        # What is far is half of the volume.
        part = max(evidence.unchecked, 0.5) if evidence.far is None else evidence.unchecked
        advice.append(
            f"Nothing tells how good it is in {part:.0%} of the volume: no paint that was held "
            "out is so far from the rest. More slices, evenly spaced, make it known."
        )
    views, worse = iou_of_views(evidence), worse_views(evidence)
    if len(views) == 1:
        (view,) = views
        others = " or ".join(other for other in AXIS_OF_VIEW if other != view)
        advice.append(
            f"Only {view} slices hold enough paint that was held out to judge by: one more "
            f"{others} slice tells what it is like across them."
        )
    elif worse:
        advice.append(
            f"Worse on {' and '.join(worse)} than on the other slices: paint another slice there."
        )
    return tuple(advice)


def worse_between(evidence: Evidence) -> bool:
    """Whether held-out voxels tell that it is worse far from paint than near it."""
    near, far = evidence.near, evidence.far
    return near is not None and far is not None and near - far > GAP


def worse_views(evidence: Evidence) -> tuple[str, ...]:
    """Return the views of which held-out voxels tell that it is worse there than in another."""
    views = iou_of_views(evidence)
    return tuple(view for view, iou in views.items() if max(views.values()) - iou > GAP)


def iou_of_views(evidence: Evidence) -> dict[str, float]:
    """Return the held-out IoU of the views of which it is known."""
    of_views = zip(AXIS_OF_VIEW, evidence.views, strict=True)
    return {view: iou for view, iou in of_views if iou is not None}


def evidence_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the evidence as plain values that json can write, the views by their names."""
    evidence = checkpoint.evidence
    values = asdict(evidence) | {"views": dict(zip(AXIS_OF_VIEW, evidence.views, strict=True))}
    return values | {"unit": checkpoint.unit}
