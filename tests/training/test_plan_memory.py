from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_volseg.data.annotation import Annotation
from napari_volseg.data.errors import InputError
from napari_volseg.inference.device import free_memory
from napari_volseg.inference.memory import SAFE
from napari_volseg.models.registry import architectures, get_architecture
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.training import estimate_memory, plan_memory
from napari_volseg.training.estimate_memory import estimate
from napari_volseg.training.events import Command
from napari_volseg.training.loop import train
from napari_volseg.training.memory import patch_shapes
from napari_volseg.training.plan_memory import forecast
from napari_volseg.training.stand_in import Unpainted, volume_like
from tests.training.test_loop import make_case

if TYPE_CHECKING:
    from napari_volseg.data.volume import Volume

every_architecture = pytest.mark.parametrize("name", architectures())
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SHAPE = (16, 32, 32)
QUICK = {
    "channels": 4, "filter_scales": (1.0,), "learned_filters": False, "pooling": ((2, 2, 2),),
    "kernels": ((3, 3, 3),) * 2, "patches": ((8, 32, 32),), "tile": (16, 32, 32), "batch_size": 2,
}  # fmt: skip
CONFIG = TrainingConfig(steps=2, device="cpu", options=QUICK, held_out=0.2)


def empty(*shape: int) -> Volume:
    return volume_like((1, shape, (2.0, 1.0, 1.0)))


def estimated(name, volume, device=CPU, n_classes=3, **settings):
    training = TrainingConfig(model=name, **settings)
    network = get_architecture(name)
    case = Unpainted(volume, Annotation(np.zeros((1, 1, 1), np.uint8)))
    config = network.configure(training, [case], device)
    extent = (volume.channels, volume.shape, volume.spacing)
    return estimate(network, config, training, (extent,), n_classes, device)


@pytest.fixture
def room_for(monkeypatch):
    """Return what leaves a part of what a training needs beyond what it needs at any size."""

    def room_for(part: float, volume: Volume, config: TrainingConfig) -> None:
        own = {name: getattr(config, name) for name in ("options", "held_out", "steps")}
        found = estimated(config.model, volume, n_classes=2, **own)
        free = (found.fixed + part * (found.step + found.tile)) / SAFE
        monkeypatch.setattr(plan_memory, "free_memory", lambda device: int(free))

    return room_for


@every_architecture
def test_any_architecture_is_foreseen_on_a_device_that_is_not_there(name):
    found = estimated(name, empty(16, 200, 210), CUDA)
    assert min(found.step, found.tile) > 10**6


@every_architecture
def test_larger_volumes_take_more(name):
    small, large = (estimated(name, empty(8, n, n)) for n in (40, 160))
    assert small.total < large.total


@every_architecture
def test_a_volume_that_fits_into_no_machine_is_foreseen(name):
    assert estimated(name, empty(1024, 8192, 8192)).total > 8 * 2**36


def test_a_larger_batch_takes_more_and_an_optimizer_with_less_state_less():
    volume = empty(16, 64, 64)
    two, eight = (estimated("unet3d", volume, batch_size=n).step for n in (2, 8))
    assert 2.5 < eight / two < 4.5
    sgd = estimated("unet3d", volume, CUDA, optimizer="sgd").step
    assert sgd < estimated("unet3d", volume, CUDA).step


def test_mixed_precision_takes_less():
    volume = empty(16, 64, 64)
    full, half = (
        estimated("unet3d", volume, CUDA, precision=name).step for name in ("float32", "bfloat16")
    )
    assert half < 0.8 * full


@pytest.mark.parametrize("device", [CPU, CUDA], ids=["cpu", "cuda"])
def test_features_that_are_computed_twice_take_less(device):
    volume = empty(64, 128, 128)
    kept, twice = (
        estimated("unet3d_deep", volume, device, recompute=way).step for way in ("never", "always")
    )
    assert twice < 0.9 * kept


def test_where_there_is_room_nothing_changes():
    plan = next(train(make_case(shape=SHAPE), CONFIG)).memory
    assert plan.parts[0].startswith("needs about 0.") and len(plan.parts) == 1
    assert plan.batch_size == 0 and patch_shapes(plan.model_config) == QUICK["patches"]
    assert plan.needed < plan.free and plan.free == pytest.approx(free_memory(CPU), rel=0.5)


def test_the_memory_that_is_free_is_what_the_machine_has_left():
    assert 0 < free_memory(CPU) < 2**50


def test_what_does_not_fit_is_made_smaller_until_it_does(room_for):
    case = make_case(shape=(16, 64, 128))
    config = replace(CONFIG, held_out=0.0, options=QUICK | {"tile": (16, 64, 128)})
    room_for(0.7, case.volume, config)
    events = list(train(case, config))
    plan = events[0].memory
    assert plan.needed <= SAFE * plan.free and plan.tight
    assert plan.smaller == "tiles of 8 x 32 x 64 voxels, to fit"
    assert [e.note for e in events if e.note] == [plan.smaller]
    assert events[-1].checkpoint.config["tile"] == (8, 32, 64)
    assert [e.step for e in events if e.loss is not None] == [1, 2]


def test_batches_are_made_smaller_before_patches(room_for):
    volume = make_case(shape=SHAPE).volume
    # A tile that cannot be smaller: only the step is left to save on.
    frugal = replace(CONFIG, recompute="never")
    config = replace(frugal, options=QUICK | {"tile": (8, 8, 8), "batch_size": 8})
    room_for(0.99, volume, config)
    plan = forecast(volume, 2, config)
    assert plan.smaller == "4 patches a step, to fit" and plan.batch_size == 4
    one = replace(frugal, options=QUICK | {"tile": (8, 8, 8), "batch_size": 1})
    room_for(0.97, volume, one)
    plan = forecast(volume, 2, one)
    assert plan.smaller == "patches of 8 x 16 x 16 voxels, to fit" and plan.batch_size == 0
    assert patch_shapes(plan.model_config) == ((8, 16, 16),)


def test_features_are_computed_twice_before_anything_learns_less(room_for):
    case = make_case(shape=SHAPE)
    config = replace(CONFIG, options=QUICK | {"tile": (8, 8, 8), "batch_size": 8})
    room_for(0.99, case.volume, config)
    events = list(train(case, config))
    plan = events[0].memory
    assert plan.smaller == "features computed twice instead of kept, to fit" and plan.tight
    assert plan.batch_size == 0 and plan.model_config.patches == QUICK["patches"]
    assert plan.recompute and events[-1].checkpoint.progress["recompute"]
    room_for(0.8, case.volume, config)
    more = forecast(case.volume, 2, config)
    assert more.smaller == "features computed twice instead of kept, 4 patches a step, to fit"
    assert more.recompute and more.batch_size == 4


def test_features_are_kept_where_computing_them_twice_saves_next_to_nothing(room_for):
    # Of so few patches, the pixel classifier's steps take as much.
    volume = make_case(shape=SHAPE).volume
    config = replace(CONFIG, options=QUICK | {"tile": (8, 8, 8), "batch_size": 2})
    room_for(0.99, volume, config)
    plan = forecast(volume, 2, config)
    assert plan.smaller == "1 patch a step, patches of 8 x 16 x 16 voxels, to fit"
    assert not plan.recompute


def test_what_is_always_computed_twice_needs_no_mention():
    plan = forecast(make_case(shape=SHAPE).volume, 2, replace(CONFIG, recompute="always"))
    assert plan.recompute and plan.smaller == ""


def test_sixteen_bits_are_told_and_refused_where_there_are_none(monkeypatch):
    volume = make_case(shape=SHAPE).volume
    with pytest.raises(InputError, match=r"bfloat16 is for newer CUDA GPUs, not for CPU"):
        forecast(volume, 2, replace(CONFIG, precision="bfloat16"))
    assert forecast(volume, 2, CONFIG).to_json()["precision"] == "float32"
    monkeypatch.setattr(plan_memory, "pick_device", lambda name: CUDA)
    monkeypatch.setattr(plan_memory, "free_memory", lambda device: 10**12)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    plans = [forecast(volume, 2, replace(CONFIG, precision=p)) for p in ("auto", "float32")]
    assert [plan.precision for plan in plans] == ["bfloat16", "float32"]
    assert plans[0].parts[1:] == ("computes in bfloat16",) and len(plans[1].parts) == 1
    assert plans[0].needed < plans[1].needed


def test_a_training_that_goes_on_keeps_to_what_fits(room_for):
    case = make_case(shape=SHAPE)
    options = QUICK | {"tile": (8, 8, 8), "batch_size": 8}
    config = replace(CONFIG, steps=6, options=options, recompute="never")
    running = train(case, config)
    while next(running).step < 4:
        pass
    stopped = running.send(Command.STOP).checkpoint
    room_for(0.99, case.volume, config)
    last = list(train(case, config, resume=stopped))[-1]
    assert last.step == 6 and last.checkpoint.progress["batch_size"] == 4


@pytest.mark.parametrize("name", ["unet3d", "two_stage", "plain_unet3d_1"])
def test_what_can_never_fit_is_refused_before_it_begins(name, room_for):
    options = QUICK if name == "unet3d" else {}
    config = TrainingConfig(model=name, steps=1, device="cpu", options=options)
    room_for(0.0, make_case(shape=SHAPE).volume, config)
    with pytest.raises(InputError, match=r"needs about .* GB of memory .* free; close other"):
        next(train(make_case(shape=SHAPE), config))


def test_training_does_not_wait_for_what_was_foreseen(monkeypatch):
    case = make_case(shape=SHAPE)
    foreseen = forecast(case.volume, 2, CONFIG)
    monkeypatch.setattr(estimate_memory, "step_memory", None)
    plan = next(train(case, replace(CONFIG, steps=0, minutes=3.0))).memory
    assert plan.needed == foreseen.needed > 0


def test_a_network_that_defies_the_estimate_is_trained_all_the_same(monkeypatch):
    network = get_architecture("unet3d")

    def stages(*arguments):
        made = network.stages(*arguments)
        return tuple(replace(s, sample=lambda g, s=s: ask_for_values(s.sample(g))) for s in made)

    def ask_for_values(batch):
        if batch.image.device.type == "meta":
            raise NotImplementedError("there are no values")
        return batch

    odd = replace(network, stages=stages, name="odd")
    monkeypatch.setattr("napari_volseg.training.loop.get_architecture", lambda name: odd)
    events = list(train(make_case(shape=SHAPE), CONFIG))
    assert events[0].memory.parts == () and events[0].memory.needed == 0
    assert events[-1].step == 2


def test_estimating_leaves_the_training_as_it_was(monkeypatch):
    def losses() -> list[float | None]:
        estimate_memory.answer.cache_clear()
        return [event.loss for event in train(make_case(shape=SHAPE), CONFIG)]

    with_estimate = losses()
    monkeypatch.setattr(plan_memory, "estimate", lambda *arguments: None)
    assert losses() == with_estimate
