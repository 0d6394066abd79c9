from __future__ import annotations

import math
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from napari_volseg.data.errors import InputError
from napari_volseg.inference.ledger import tensors_in
from napari_volseg.inference.predict import predict_volume
from napari_volseg.models.unet3d import UNet3D
from napari_volseg.sparse import labeled_blocks, patches
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.training import loop, recompute
from napari_volseg.training.events import Command
from napari_volseg.training.loop import train
from napari_volseg.training.memory import step_down
from napari_volseg.training.plan_memory import MemoryPlan
from napari_volseg.training.run import Run
from tests.training.test_loop import make_case

SHAPE = (16, 32, 32)
QUICK = {
    "channels": 4, "filter_scales": (1.0,), "learned_filters": False, "pooling": ((2, 2, 2),),
    "kernels": ((3, 3, 3),) * 2, "patches": ((8, 16, 24),), "batch_size": 4,
}  # fmt: skip
KEEPING = TrainingConfig(steps=4, device="cpu", options=QUICK, held_out=0.2)
CONFIG = replace(KEEPING, recompute="never")
CPU_ERROR = RuntimeError(
    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
)
CUDA_ERROR = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


@pytest.fixture(autouse=True)
def nothing_is_foreseen(monkeypatch):
    """What fails here is to fail in the training, not in the estimate of its memory."""

    def plan(network, model_config, training, *others):
        return MemoryPlan(0, 0, model_config, recompute=training.recompute == "always")

    monkeypatch.setattr(loop, "plan_memory", plan)


def fail(monkeypatch, owner, name, when=lambda *args: True, times=1, error=CPU_ERROR):
    """Let a function run out of memory the first times that a condition on its arguments holds."""
    right, left = getattr(owner, name), [times]

    def wrong(*args, **kwargs):
        if left[0] and when(*args):
            left[0] -= 1
            raise error
        return right(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrong)


def in_training(net, image) -> bool:
    return bool(net.training)


STAGES = {
    "prepare": (labeled_blocks, "block_responses"),
    "sample": (patches, "sample_batch"),
    "forward": (UNet3D, "unet", in_training),
    "backward": (torch.Tensor, "backward"),
    "optimizer step": (torch.optim.AdamW, "step"),
}


@pytest.mark.parametrize("where", STAGES)
def test_a_step_without_memory_is_taken_again_with_half_the_batch(monkeypatch, where):
    fail(monkeypatch, *STAGES[where], error=CPU_ERROR)
    events = list(train(make_case(shape=SHAPE), CONFIG))
    assert [e.step for e in events if e.loss is not None] == list(range(1, 5))
    (said,) = [e for e in events if e.note]
    assert said.note == "memory ran out: now 2 patches a step, not 4"
    assert events[-1].checkpoint.progress["batch_size"] == 2


@pytest.mark.parametrize("where", STAGES)
def test_at_first_features_are_computed_twice(monkeypatch, where):
    fail(monkeypatch, *STAGES[where], error=CUDA_ERROR, times=2)
    events = list(train(make_case(shape=SHAPE), KEEPING))
    assert [e.step for e in events if e.loss is not None] == list(range(1, 5))
    notes = "; ".join(e.note for e in events if e.note)
    assert notes == (
        "memory ran out: now features computed twice instead of kept; "
        "memory ran out: now 2 patches a step, not 4"
    )
    progress = events[-1].checkpoint.progress
    assert progress["recompute"] and progress["batch_size"] == 2


def test_what_is_resumed_goes_on_computing_twice(monkeypatch):
    fail(monkeypatch, UNet3D, "unet", in_training)
    running = train(make_case(shape=SHAPE), KEEPING)
    while next(running).step < 3:
        pass
    stopped = running.send(Command.STOP).checkpoint
    kept = []
    fail(monkeypatch, recompute, "unnoticed", lambda block: kept.append(block))
    list(train(make_case(shape=SHAPE), KEEPING, resume=stopped))
    assert kept


class Capped(TorchDispatchMode):
    """A device with so many bytes: inside, what would take more finds none."""

    def __init__(self, cap: float = math.inf) -> None:
        super().__init__()
        self.cap, self.held, self.peak, self.known = cap, 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **kwargs or {})
        for tensor in tensors_in((made,)):
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key in self.known:
                continue
            self.known.add(key)
            self.held += size
            weakref.finalize(storage, self.drop, key, size)
            self.peak = max(self.peak, self.held)
            # There is always room for single numbers.
            if self.held > self.cap and size > 10_000:
                # A new one: an error holds on to all that was computed where it was raised.
                raise RuntimeError(str(CPU_ERROR))
        return made

    def drop(self, key, size):
        self.known.discard(key)
        self.held -= size


def test_on_a_capped_device_the_first_thing_that_helps_is_done():
    options = QUICK | {"filter_scales": (), "patches": ((8, 32, 32),), "batch_size": 8}
    config = replace(KEEPING, options=options, held_out=0.0)
    case = make_case(shape=SHAPE)

    def run(cap=math.inf, **settings):
        with Capped(cap) as device:
            events = list(train(case, replace(config, **settings)))
        assert [e.step for e in events if e.loss is not None] == list(range(1, 5))
        return device.peak, [e.note for e in events if e.note], events[-1].checkpoint

    (kept, _, all_kept), (twice, _, _) = (run(recompute=way) for way in ("never", "always"))
    assert twice < 0.9 * kept
    peak, notes, found = run(cap=(kept + twice) / 2)
    assert notes == ["memory ran out: now features computed twice instead of kept"]
    assert peak < kept and found.progress["batch_size"] == 0
    for name, tensor in all_kept.weights.items():
        # Statistics have seen the step that failed, too.
        if name.endswith(("weight", "bias")):
            assert torch.equal(found.weights[name], tensor), name
    _, notes, found = run(cap=0.7 * twice)
    assert found.progress["recompute"] and 0 < found.progress["batch_size"] < 8
    assert notes[0].endswith(f"now {found.progress['batch_size']} patches a step, not 8")


def test_patches_become_smaller_once_batches_cannot_and_the_weights_are_kept(monkeypatch):
    config = replace(CONFIG, steps=12)
    running = train(make_case(shape=SHAPE), config)
    for event in running:
        if event.step == 8:
            before = running.send(Command.STOP).checkpoint
            break
    fail(monkeypatch, UNet3D, "unet", lambda net, x: net.training and x.numel() > 4500, 99)
    resumed = train(make_case(shape=SHAPE), config, resume=before)
    first = next(e for e in resumed if e.loss is not None)
    assert first.step == 9 and "patches are now 8 x 8 x 12 voxels" in first.note
    last = list(resumed)[-1]
    monkeypatch.undo()
    assert last.step == 12 and last.checkpoint.config["patches"] == ((8, 8, 12),)
    kept = last.checkpoint.weights["down.0.0.weight"]
    assert torch.allclose(kept, before.weights["down.0.0.weight"], atol=0.1)
    assert (
        predict_volume(last.checkpoint, make_case(shape=SHAPE).volume, device="cpu").shape == SHAPE
    )


def test_scoring_and_prediction_go_on_in_smaller_tiles(monkeypatch):
    case = make_case(shape=SHAPE)
    whole = list(train(case, CONFIG))[-1].checkpoint
    expected = predict_volume(whole, case.volume, device="cpu")
    fail(monkeypatch, UNet3D, "unet", lambda net, x: not net.training and x.numel() > 50000, 999)
    frugal = list(train(case, CONFIG))[-1].checkpoint
    assert frugal.progress["scores"] == pytest.approx(whole.progress["scores"], abs=0.02)
    np.testing.assert_array_equal(predict_volume(whole, case.volume, device="cpu"), expected)


def test_what_is_resumed_goes_on_with_the_batch_that_fits(monkeypatch):
    fail(monkeypatch, UNet3D, "unet", in_training)
    running = train(make_case(shape=SHAPE), CONFIG)
    for event in running:
        if event.step == 3:
            stopped = running.send(Command.STOP).checkpoint
            break
    sizes = set()
    fail(monkeypatch, UNet3D, "unet", lambda net, x: net.training and sizes.add(len(x)))
    list(train(make_case(shape=SHAPE), CONFIG, resume=stopped))
    assert sizes == {2}


def test_a_training_for_which_nothing_is_small_enough_says_what_to_do(monkeypatch):
    fail(monkeypatch, UNet3D, "unet", in_training, times=99)
    with pytest.raises(InputError, match="close other programs"):
        list(train(make_case(shape=SHAPE), CONFIG))


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    run = Run(torch.nn.Identity(), torch.nn.Identity())
    with pytest.raises(RuntimeError, match="size mismatch"):
        step_down(RuntimeError("size mismatch"), run, CONFIG, None, torch.device("cpu"))
    assert run.batch_size == 0


def test_an_optimizer_that_ran_out_of_memory_halfway_steps_on():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    run = Run(module, module, optimizer=torch.optim.AdamW(module.parameters()))
    module(torch.ones(2)).sum().backward()
    run.optimizer.step()
    run.optimizer.state[module[1].bias].popitem()
    step_down(CUDA_ERROR, run, replace(CONFIG, batch_size=2), None, torch.device("cpu"))
    module(torch.ones(2)).sum().backward()
    run.optimizer.step()
