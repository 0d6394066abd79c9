from __future__ import annotations

import os
import socket
import time
from dataclasses import replace

import pytest
import torch
from torch import multiprocessing, nn

from napari_volseg.models.unet3d import UNet3D
from napari_volseg.sparse import patches
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.training import loop
from napari_volseg.training.loop import train
from napari_volseg.training.processes import (
    anywhere,
    average_gradients,
    of_the_first,
    processes_joined,
    several,
)
from tests.training.test_loop import make_case

SHAPE = (8, 24, 24)
OPTIONS = {
    "channels": 2,
    "pooling": ((1, 2, 2),),
    "kernels": ((1, 3, 3), (3, 3, 3)),
    "filter_scales": (1.0,),
    "learned_filters": False,
    "patches": ((8, 16, 16),),
}
CONFIG = TrainingConfig(steps=8, device="cpu", options=OPTIONS, held_out=0.2)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict]:
    """What each of two processes found, started as torchrun does: once, for it takes seconds."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(one_process, (port, str(folder)), nprocs=2)
    return [torch.load(folder / f"{number}.pt", weights_only=False) for number in range(2)]


def one_process(number: int, port: int, folder: str) -> None:
    os.environ |= {
        "RANK": str(number),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    with processes_joined() as joined:
        assert joined == number
        jobs = (by_steps, gradients, out_of_memory, by_time)
        torch.save({job.__name__: job(number) for job in jobs}, f"{folder}/{number}.pt")


def by_steps(number: int) -> tuple:
    drawn = []
    sample = patches.sample_batch

    def noted(*args, **kwargs):
        drawn.append(sample(*args, **kwargs))
        return drawn[-1]

    patches.sample_batch = noted
    events = list(train(make_case(shape=SHAPE), CONFIG))
    patches.sample_batch = sample
    # The memory was foreseen on the meta device.
    images = [batch.image for batch in drawn if batch.image.device.type == "cpu"]
    return events[-1].checkpoint.state, images, events[-1].step


def test_processes_take_the_same_steps_from_patches_of_their_own(results):
    (state, drawn, steps), (other, others, _) = (found["by_steps"] for found in results)
    assert steps == CONFIG.steps and state.keys() == other.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, other[name]), name
    assert len(drawn) == len(others) > 2
    assert not all(torch.equal(a, b) for a, b in zip(drawn, others, strict=True))
    alone = list(train(make_case(shape=SHAPE), CONFIG))[-1].checkpoint.state
    moved = "module.down.0.0.weight"
    assert alone.keys() == state.keys() and not torch.equal(alone[moved], state[moved])


def gradients(number: int) -> tuple:
    layer = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    for index, parameter in enumerate(layer.parameters()):
        parameter.grad = torch.full_like(parameter, 10.0 * index + number)
    layer[1].running_mean.fill_(number)
    layer[0].bias.grad = None
    average_gradients(layer, layer.parameters())
    return (
        [None if p.grad is None else p.grad.unique().tolist() for p in layer.parameters()],
        layer[1].running_mean.tolist(),
        of_the_first({"I am": number}),
        (anywhere(number == 1), anywhere(number == 5)),
    )


def test_gradients_and_statistics_are_averaged_and_decisions_shared(results):
    for grads, mean, first, happened in (found["gradients"] for found in results):
        assert grads == [[0.5], None, [20.5], [30.5]]
        assert mean == [0.5, 0.5]
        assert first == {"I am": 0} and happened == (True, False)


def out_of_memory(number: int) -> tuple:
    right, left = UNet3D.unet, [2]

    def wrong(module, image):
        if number == 1 and module.training and image.device.type == "cpu" and left[0]:
            left[0] -= 1
            raise MemoryError("out of memory")
        return right(module, image)

    UNet3D.unet = wrong
    events = list(train(make_case(shape=SHAPE), replace(CONFIG, batch_size=2)))
    UNet3D.unet = right
    return [e.note for e in events if e.note], events[-1].checkpoint.state


def test_where_one_runs_out_of_memory_all_take_smaller_steps(results):
    (notes, state), (others, other) = (found["out_of_memory"] for found in results)
    steps = "features computed twice instead of kept", "1 patches a step, not 2"
    assert notes == others == ["; ".join(f"memory ran out: now {one}" for one in steps)]
    # What was computed before another process failed has been counted.
    shared = [name for name in state if "num_batches_tracked" not in name]
    assert all(torch.equal(state[name], other[name]) for name in shared)


def by_time(number: int) -> list[int]:
    class Clock:
        """Of each process its own, and one runs three times as fast."""

        now = 0.0

        @classmethod
        def perf_counter(cls) -> float:
            cls.now += 0.05 + 0.1 * number
            return cls.now

    loop.time = Clock
    steps = [
        event.step
        for event in train(make_case(shape=SHAPE), replace(CONFIG, steps=0, minutes=0.05))
    ]
    loop.time = time
    return steps


def test_a_training_by_time_ends_in_all_processes_with_the_same_step(results):
    steps, others = (found["by_time"] for found in results)
    assert steps == others and steps[-1] > 5


def test_without_torchrun_there_is_one_process_only(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with processes_joined() as number:
        assert number == 0 and not several()
    assert of_the_first("mine") == "mine" and not anywhere(False)
