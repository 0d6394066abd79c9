from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.errors import InputError
from napari_volseg.data.volume import Volume
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.pool import build_pool
from napari_volseg.sparse.proposals import with_proposals
from napari_volseg.sparse.stage import IGNORE

SHAPE = (24, 30, 36)
CONFIG = TrainingConfig(proposal_weight=0.5, held_out=0.2)


def make_case(proposed: bool = True) -> Case:
    """Two slices painted in two classes, and the same proposed for all voxels."""
    image = np.random.default_rng(0).normal(100, 20, SHAPE)
    labels, truth = np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.uint8)
    truth[:, :, 18:] = 2
    labels[4], labels[:, 10] = truth[4], truth[:, 10]
    case = Case(Volume(image[None].astype(np.float32)), Annotation(labels))
    return replace(case, proposals=truth) if proposed else case


def pools(case: Case, config: TrainingConfig = CONFIG):
    pool = build_pool([case], config, torch.device("cpu"))
    return pool, with_proposals(pool, [case], config)


def test_proposals_weigh_as_much_against_the_paint_as_they_shall():
    pool, learned = pools(make_case())
    (own,), (more,) = pool.cases, learned.cases
    painted, all_of_it = sum(pool.counts), sum(learned.counts)
    # A fifth of the blocks takes none.
    assert 0.35 < all_of_it / painted - 1 < 0.55
    assert np.count_nonzero(more.target != IGNORE) == all_of_it
    assert [len(v) for v in more.voxels] == [len(a) for a in more.axes] == list(learned.counts)
    for k, voxels in enumerate(more.voxels):
        assert (more.target[tuple(voxels.T)] == k).all()
    assert (more.target[own.target != IGNORE] == own.target[own.target != IGNORE]).all()


def test_what_is_held_out_stays_so_and_takes_no_proposals():
    pool, learned = pools(make_case())
    (own,), (more,) = pool.cases, learned.cases
    assert np.array_equal(own.held_out, more.held_out)
    assert (own.held_out != IGNORE).any()
    assert not own.blocks.held_out(np.concatenate(more.voxels)).any()


def test_proposals_where_there_is_paint_change_nothing():
    case = make_case()
    wrong = np.where(case.annotation.labels != 0, 3 - case.proposals, case.proposals)
    one, two = (pools(c)[1].cases[0] for c in (case, replace(case, proposals=wrong)))
    assert np.array_equal(one.target, two.target)
    only_there = np.where(case.annotation.labels != 0, wrong, 0)
    pool, learned = pools(replace(case, proposals=only_there))
    assert learned.counts == pool.counts


@pytest.mark.parametrize(
    ("case", "config"),
    [(make_case(), replace(CONFIG, proposal_weight=0)), (make_case(proposed=False), CONFIG)],
)
def test_without_weight_or_proposals_the_pool_is_the_same_one(case, config):
    pool, learned = pools(case, config)
    assert learned is pool


def test_of_several_cases_one_may_have_none():
    cases = [make_case(proposed=False), make_case()]
    pool = build_pool(cases, CONFIG, torch.device("cpu"))
    first, second = with_proposals(pool, cases, CONFIG).cases
    assert first is pool.cases[0]
    assert np.count_nonzero(second.target != IGNORE) > np.count_nonzero(first.target != IGNORE)


def test_refuses_proposals_that_do_not_fit():
    case = make_case()
    with pytest.raises(InputError, match=r"proposals have shape \(24, 30, 35\)"):
        replace(case, proposals=case.proposals[..., 1:])
    with pytest.raises(InputError, match=r"proposals hold \[7\]"):
        replace(case, proposals=np.full(SHAPE, 7, np.uint8))
