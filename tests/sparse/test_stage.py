"""Schedules of the learning rate."""

from __future__ import annotations

import pytest

from napari_volseg.sparse.stage import plateau


@pytest.mark.parametrize(
    ("scores", "factor"),
    [
        ([], 1),
        ([0.5, 0.4, 0.5], 1),
        ([0.5, 0.4, 0.4, 0.4], 0.5),
        ([0.5, 0.4, 0.4, 0.4, 0.6], 0.5),
        ([0.5, 0.4, 0.4, 0.4, 0.6, 0.5, 0.5, 0.5], 0.25),
        ([0.5, 0.4, 0.4, 0.4, 0.4], 0.5),
        ([0.5, 0.4, 0.4, 0.4, 0.4, 0.4], 0),
        ([0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.6], 0),
        ([0.0] * 9, 1),
        ([0.0] * 9 + [0.1], 1),
    ],
)
def test_the_rate_is_halved_on_a_plateau_and_the_stage_ends(scores, factor):
    assert plateau(0.5, scores) == factor
