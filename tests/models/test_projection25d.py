from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.errors import InputError
from napari_volseg.data.volume import Volume
from napari_volseg.inference.predict import predict_volume
from napari_volseg.models.projection25d import (
    Projection25D,
    ProjectionConfig,
    build,
    path_balance,
    probabilities,
    project_image,
    stages,
)
from napari_volseg.models.registry import get_architecture
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.losses import dice_loss
from napari_volseg.sparse.pool import build_pool
from napari_volseg.training.events import Command
from napari_volseg.training.loop import train

SMALL = ProjectionConfig(
    channels=2, levels=2, directions=6, random_directions=3, epoch_steps=2, voxel=(2.0, 1.0, 1.0)
)
CPU = torch.device("cpu")
PAPER = TrainingConfig(
    model="projection25d",
    preset="paper",
    options={
        "channels": 4, "levels": 3, "directions": 12, "random_directions": 4, "epoch_steps": 5
    },
    device="cpu",
    steps=8,
)  # fmt: skip


def tubes(size: int = 24, seed: int = 0, name: str = "tubes") -> Case:
    """Bright tubes along z in noise; a few slices of each orientation are labeled."""
    random = np.random.default_rng(seed)
    _, y, x = np.indices((9, size, size))
    truth = np.ones((9, size, size), np.uint8)
    for cy, cx in ((7, 8), (15, 17)):
        truth[(y - cy) ** 2 + (x - cx) ** 2 < 8] = 2
    image = truth * 100.0 + random.normal(0, 10, truth.shape)
    labels = np.zeros_like(truth)
    labels[2], labels[6] = truth[2], truth[6]
    return Case(Volume(image[None].astype(np.float32), name=name), Annotation(labels))


def seeded(config: ProjectionConfig, channels: int, classes: int) -> Projection25D:
    """A network of a fixed seed."""
    torch.manual_seed(0)
    return build(config, channels, classes)


def last(events):
    return list(events)[-1]


def test_the_papers_count():
    """U with 8,629,921; two weights for each of 12 + 60 directions; twice scale and shift."""
    architecture = get_architecture("projection25d")
    assert architecture.paper_parameters() == 8_629_921 + 2 * (12 + 60) + 2 * 2


@given(
    size=st.tuples(*[st.integers(1, 9)] * 3),
    classes=st.integers(2, 4),
    axis=st.sampled_from("zyx"),
    projection=st.sampled_from(["maximum", "mean"]),
)
def test_any_size_gives_its_own_size_about_any_axis(size, classes, axis, projection):
    config = replace(SMALL, axis=axis, projection=projection)
    logits = seeded(config, 2, classes)(torch.randn(2, 2, *size))
    assert logits.shape == (2, classes, *size)
    assert logits.isfinite().all()


def test_turning_the_volume_turns_the_prediction():
    """What turns about y sees what the same network sees that turns about z."""
    image = torch.randn(1, 1, 5, 6, 7)
    about_z = seeded(replace(SMALL, voxel=(3.0, 2.0, 1.0)), 1, 3)
    about_y = seeded(replace(SMALL, voxel=(2.0, 3.0, 1.0), axis="y"), 1, 3)
    turned = about_y(image.transpose(2, 3)).transpose(2, 3)
    torch.testing.assert_close(turned, about_z(image))


@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_are_the_sigmoids_of_the_maps(classes):
    module, image = seeded(SMALL, 1, classes), torch.randn(1, 1, 3, 8, 9)
    projections = project_image(image, SMALL.all_directions, SMALL)
    maps = module.segment(projections)
    assert maps.shape[1] == (1 if classes == 2 else 3)
    raw = []
    module.full.register_forward_hook(lambda part, inputs, output: raw.append(output))
    core = (slice(1, 3), slice(0, 8), slice(2, 9))
    found = probabilities(module, SMALL, image, core)
    sigmoids = raw[0].sigmoid()[(0, slice(None), *core)]
    expected = sigmoids[0] if classes == 2 else sigmoids[1] / sigmoids.sum(0)
    torch.testing.assert_close(found[1], expected)


def test_path_1_trains_u_and_path_2_its_own_reconstruction_only():
    module, image = seeded(SMALL, 1, 2), torch.randn(1, 1, 4, 10, 11)
    degrees = (10.0, 70.0, 130.0)

    def moved(logits: torch.Tensor) -> set[str]:
        module.zero_grad()
        logits[:, 1].square().sum().backward()
        return {n for n, p in module.named_parameters() if p.grad is not None and p.grad.any()}

    names = {n for n, _ in module.named_parameters()}
    first = moved(module.random_path(project_image(image, degrees, SMALL), degrees, (4, 10, 11)))
    assert first == {n for n in names if n.startswith(("unet.", "random."))}
    second = moved(module(image))
    assert second == {"full.filters", "full.scale", "full.shift"}


def test_path_2_holds_no_more_images_at_once_than_path_1():
    module, seen = seeded(SMALL, 1, 2), []
    module.unet.register_forward_hook(lambda unet, inputs, out: seen.append(inputs[0].shape[0]))
    module(torch.randn(1, 1, 4, 8, 8))
    assert max(seen) <= SMALL.random_directions
    assert sum(seen) == SMALL.directions


def test_the_balance_of_the_paths():
    expected = 0.99
    for epoch in range(1, 12):
        assert path_balance(epoch) == pytest.approx(expected)
        expected *= 0.99**epoch


def test_the_loss_is_the_balanced_dice_of_both_paths(monkeypatch):
    """With the same angles throughout an epoch, and others in the next."""
    case = tubes()
    pool = build_pool([case], TrainingConfig(), CPU)
    (stage,) = stages(SMALL, TrainingConfig(), pool)
    module = seeded(SMALL, 1, 2)
    assert list(stage.prepare(module))[-1] == 1
    batch = stage.sample(torch.Generator().manual_seed(0))
    drawn, one = [], Projection25D.random_path

    def noted(self, projections, degrees, shape):
        drawn.append(degrees)
        return one(self, projections, degrees, shape)

    monkeypatch.setattr(Projection25D, "random_path", noted)
    losses = [stage.loss(module, batch, step).detach() for step in range(4)]
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3]
    image = pool.cases[0].standardized[None]
    target = torch.from_numpy(pool.cases[0].target).long()[None]
    for step in (0, 2):
        degrees, c = drawn[step], (0.99, 0.99**2)[step // 2]
        first = one(module, project_image(image, degrees, SMALL), degrees, target.shape[1:])
        scores = [
            dice_loss(x, target, class_weights=torch.tensor([0.0, 1.0]))
            for x in (first, module(image))
        ]
        torch.testing.assert_close(losses[step], c * scores[0] + (1 - c) * scores[1])


def test_the_papers_training_runs_and_resumes():
    cases = [tubes(24, 0, "one"), tubes(19, 1, "two")]
    whole = last(train(cases, PAPER)).checkpoint
    running = train(cases, PAPER)
    while (event := next(running)).step < 6 or event.loss is None:
        pass
    stopped = running.send(Command.STOP)
    resumed = last(train(cases, PAPER, resume=stopped.checkpoint)).checkpoint
    assert all(torch.equal(whole.state[k], v) for k, v in resumed.state.items())
    assert predict_volume(whole, cases[1].volume, device="cpu").shape == (9, 19, 19)


@pytest.mark.parametrize(("projection", "steps"), [("maximum", 50), ("mean", 30)])
def test_it_finds_tubes(projection, steps):
    case = tubes()
    config = replace(
        PAPER,
        preset="auto",
        steps=steps,
        held_out=0.0,
        options={"projection": projection},
    )
    found = predict_volume(last(train(case, config)).checkpoint, case.volume, device="cpu")
    truth = case.annotation.labels[2] == 2
    unpainted = found[4] == 2
    assert (truth & unpainted).sum() / (truth | unpainted).sum() > 0.5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"channels": 0}, "channels is 0"),
        ({"random_directions": 181}, "random_directions is 181; choose 1 to 180"),
        ({"directions": 0}, "directions is 0"),
        ({"epoch_steps": 0}, "epoch_steps is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"voxel": (1.0, 0.0, 1.0)}, "must have positive sides"),
        ({"axis": "t"}, "axis is 't'; choose one of z, y, x"),
        ({"projection": "sum"}, "projection is 'sum'; choose one of maximum, mean"),
    ],
)
def test_settings_that_build_no_network_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        ProjectionConfig(**wrong)


def test_settings_follow_the_device_and_the_voxels():
    case = tubes()
    coarse = Case(replace(case.volume, spacing=(4.0, 2.0, 2.0)), case.annotation)
    auto = get_architecture("projection25d").auto
    on_cpu, on_gpu = (auto([coarse], torch.device(d), TrainingConfig()) for d in ("cpu", "cuda"))
    assert on_cpu.voxel == on_gpu.voxel == (2.0, 1.0, 1.0)
    paper = ProjectionConfig()
    assert (on_gpu.channels, on_gpu.directions) == (paper.channels, paper.directions)
    assert on_cpu.channels < paper.channels
    assert on_cpu.levels < paper.levels
    assert on_cpu.projection == on_gpu.projection == "mean"
