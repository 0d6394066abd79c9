from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from napari_volseg.models.evidence import Evidence
from napari_volseg.review.reliability import (
    evidence_json,
    held_out_figures,
    reliability_advice,
)


def model(score: float | None = 0.84, **values):
    """All that is looked at of a checkpoint."""
    usual = Evidence(5, 0.03, 0.86, 0.84, 12.34, 0.05, (0.86, 0.85, None))
    evidence = replace(usual, **values)
    return SimpleNamespace(score=score, unit="micrometer", evidence=evidence)


def test_a_reliable_model_needs_no_words():
    assert held_out_figures(model()) == (
        "held-out IoU 0.84 ± 0.03 · near paint 0.86 · far from paint 0.84 · xy 0.86 · xz 0.85"
    )
    assert reliability_advice(model()) == ()


def test_good_on_slices_and_unreliable_between_them_is_said():
    worse = model(far=0.74)
    assert "far from paint 0.74 !" in held_out_figures(worse)
    (advice,) = reliability_advice(worse)
    assert advice == (
        "Good on your slices, unreliable between them (more than 12.3 µm from paint): paint a "
        "slice in the widest gap."
    )


def test_what_cannot_be_told_is_said():
    unknown = model(far=None)
    assert "far from paint: cannot tell" in held_out_figures(unknown)
    (advice,) = reliability_advice(unknown)
    assert advice.startswith("Nothing tells how good it is in 50% of the volume")
    (advice,) = reliability_advice(model(unchecked=0.31))
    assert advice.startswith("Nothing tells how good it is in 31% of the volume")
    assert reliability_advice(model(None))[0].startswith("No painted voxel was held out")
    assert held_out_figures(model(None)) == ""
    assert "±" not in held_out_figures(model(interval=None))


@pytest.mark.parametrize(
    ("views", "figures", "words"),
    [
        ((0.86, 0.74, 0.75), "xy 0.86 · xz 0.74 ! · yz 0.75 !", "Worse on xz and yz than"),
        ((None, 0.7, 0.85), "xz 0.70 ! · yz 0.85", "Worse on xz than"),
        ((0.86, None, None), "far from paint 0.84", "one more xz or yz slice"),
    ],
)
def test_orientations_that_differ_or_are_not_known_are_said(views, figures, words):
    assert held_out_figures(model(views=views)).endswith(figures)
    (advice,) = reliability_advice(model(views=views))
    assert words in advice


def test_the_values_name_their_views():
    values = evidence_json(model())
    assert values["views"] == {"xy": 0.86, "xz": 0.85, "yz": None}
    assert values["far"] == 0.84 and values["unit"] == "micrometer"
