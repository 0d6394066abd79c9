from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_volseg.sparse.draw import draw_until_enough

TABLES = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 5), st.integers(0, 1)), max_size=30
)  # fmt: skip


@given(TABLES, st.integers(0, 400), st.integers(0, 40))
def test_no_more_is_drawn_than_is_needed_and_no_less(table, most, fewest):
    costs = [1 + sum(row) for row in table]
    drawn = draw_until_enough(table, costs, most, fewest)
    assert len(set(drawn)) == len(drawn) <= len(table)
    assert draw_until_enough(table, costs, most, fewest) == drawn
    if not table:
        return
    counts = np.array(table)
    wanted = np.minimum(counts.sum(0), fewest)
    assert (counts[drawn].sum(0) >= wanted).all()
    assert len(drawn) == len(table) or sum(costs[n] for n in drawn) >= most
    # Whatever came once it was enough had a class that was lacking.
    for last, part in enumerate(drawn):
        before = drawn[:last]
        if sum(costs[n] for n in before) >= most:
            lacking = counts[before].sum(0) < wanted
            assert counts[part][lacking].any()


def test_a_class_with_little_paint_does_not_draw_all_of_the_others():
    table = [(100, 0)] * 50 + [(100, 3)]
    assert len(draw_until_enough(table, [1] * 51, 5, 2_000)) <= 25
