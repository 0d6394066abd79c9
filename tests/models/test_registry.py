"""What every architecture must do, whichever it is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.errors import InputError
from napari_volseg.data.volume import Volume
from napari_volseg.inference.predict import predict_volume
from napari_volseg.models.checkpoint import load_model, save_model
from napari_volseg.models.registry import architectures, get_architecture
from napari_volseg.sparse import losses
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.losses import cross_entropy, dice_loss
from napari_volseg.sparse.pool import build_pool
from napari_volseg.sparse.stage import IGNORE
from napari_volseg.training.events import Command, PreviewRequest
from napari_volseg.training.loop import train

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

every_architecture = pytest.mark.parametrize("name", architectures())


def odd_case(channels: int = 2, seed: int = 0) -> Case:
    """A thin, odd-sized, anisotropic volume with three classes on a few slices."""
    random = np.random.default_rng(seed)
    shape = (7, 21, 26)
    _, y, _ = np.indices(shape)
    truth = (1 + (y // 7) % 3).astype(np.uint8)
    image = np.stack([truth * 50 + c + random.normal(0, 3, shape) for c in range(channels)])
    labels = np.zeros(shape, np.uint8)
    labels[3], labels[:, 10], labels[:, :, 13] = truth[3], truth[:, 10], truth[:, :, 13]
    return Case(Volume(image.astype(np.float32), (4.0, 1.0, 1.0)), Annotation(labels))


def run(case: Case, name: str, **settings: object) -> list:
    return list(train(case, TrainingConfig(model=name, device="cpu", **settings)))


@every_architecture
def test_trains_and_predicts_an_odd_volume_with_any_channels_and_classes(name):
    case = odd_case()
    events = run(case, name, steps=3)
    checkpoint = events[-1].checkpoint
    labels = predict_volume(checkpoint, case.volume, device="cpu")
    assert labels.shape == case.volume.shape
    assert set(np.unique(labels)) <= {1, 2, 3}
    assert all(np.isfinite(e.loss) for e in events if e.loss is not None)


@every_architecture
def test_a_previewed_slice_is_that_of_the_predicted_volume(name):
    case = odd_case()
    z, y, x = (slice(0, n) for n in case.volume.shape)
    # Nothing is held out: the checkpoint holds the weights of the moment, not the best.
    running = train(case, TrainingConfig(model=name, device="cpu", steps=12, held_out=0.0))
    while next(running).step < 7:
        pass
    for region in ((slice(2, 3), y, x), (z, y, slice(20, 21))):
        preview = running.send(PreviewRequest(region)).preview
    labels = predict_volume(running.send(Command.STOP).checkpoint, case.volume, device="cpu")
    np.testing.assert_array_equal(preview.labels, labels[region])
    assert preview.labels.dtype == labels.dtype


@every_architecture
def test_a_few_steps_lower_the_loss(name):
    """Of the network's last stage: losses of different stages are not of one kind."""
    events = run(odd_case(), name, steps=32, augmentation=0.0, held_out=0.0)
    stages = [e.stage for e in events if e.stage != "second look"]
    losses = [e.loss for e in events if e.loss is not None and e.stage == stages[-1]]
    # The first one may be of the step that ended the stage before.
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[1:3])


@every_architecture
def test_the_same_seed_gives_the_same_model_and_another_one_another(name):
    one, two, other = (
        run(odd_case(), name, steps=2, seed=s, held_out=0.0)[-1].checkpoint.weights
        for s in (4, 4, 5)
    )
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not all(torch.equal(one[k], other[k]) for k in one)


@every_architecture
def test_what_a_network_says_of_unlabeled_voxels_changes_nothing(name, monkeypatch):
    """Their logits are replaced by noise on the way to the losses."""
    # Nothing is held out: what is judged by the losses are the steps alone.
    plain = run(odd_case(), name, steps=4, held_out=0.0)[-1].checkpoint.weights
    replaced = []

    def with_noise(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def noisy(logits: Tensor, target: Tensor, *more: Any, **named: Any) -> Tensor:
            unlabeled = (target == IGNORE).unsqueeze(1).expand_as(logits)
            replaced.append(int(unlabeled.sum()))
            generator = torch.Generator().manual_seed(len(replaced))
            noise = 9 * torch.randn(logits.shape, generator=generator)
            return loss(torch.where(unlabeled, noise, logits), target, *more, **named)

        return noisy

    for module in [m for n, m in sys.modules.items() if n.startswith("napari_volseg.")]:
        for loss in (cross_entropy, dice_loss):
            if module is not losses and getattr(module, loss.__name__, None) is loss:
                monkeypatch.setattr(module, loss.__name__, with_noise(loss))
    noisy = run(odd_case(), name, steps=4, held_out=0.0)[-1].checkpoint.weights
    assert replaced
    assert all(torch.equal(plain[k], noisy[k]) for k in plain)


@every_architecture
def test_every_parameter_of_a_stage_learns(name):
    """One left out of the graph, or behind a dead unit from the start, never would."""
    case = odd_case()
    training = TrainingConfig(model=name, device="cpu", held_out=0.0)
    device = torch.device("cpu")
    architecture = get_architecture(name)
    config = architecture.configure(training, [case], device)
    pool = build_pool([case], training, device)
    torch.manual_seed(0)
    module = architecture.build(config, 2, 3).train()
    for stage in architecture.stages(config, training, pool):
        for _ in stage.prepare(module):
            pass
        names = {id(p): n for n, p in module.named_parameters()}
        moving = list(stage.parameters(module))
        optimizer = stage.optimizer(moving)
        still = {names[id(p)] for p in moving}
        # The classifier starts at zero, and lets gradients through after its first step.
        for step in range(4):
            optimizer.zero_grad()
            stage.loss(module, stage.sample(torch.Generator().manual_seed(step)), step).backward()
            assert all(p.grad is None or p.grad.isfinite().all() for p in moving)
            still -= {names[id(p)] for p in moving if p.grad is not None and p.grad.any()}
            optimizer.step()
        assert not still, stage.name


@every_architecture
def test_saved_in_the_middle_and_resumed_it_predicts_as_if_uninterrupted(name, tmp_path):
    # Enough that no architecture is between two of its stages when it stops.
    case, config = odd_case(), TrainingConfig(model=name, device="cpu", steps=6)
    whole = list(train(case, config))[-1].checkpoint
    running = train(case, config)
    while next(running).step < 4:
        pass
    save_model(running.send(Command.STOP).checkpoint, tmp_path / "half.volseg")
    resumed = list(train(case, config, resume=load_model(tmp_path / "half.volseg")))
    assert resumed[0].step == 4
    one, two = whole, resumed[-1].checkpoint
    assert all(torch.equal(one.weights[k], two.weights[k]) for k in one.weights)
    labels = [predict_volume(c, case.volume, device="cpu") for c in (one, two)]
    np.testing.assert_array_equal(*labels)


def test_unknown_names_presets_and_options_are_refused():
    with pytest.raises(InputError, match=r"there are: .*unet3d"):
        get_architecture("unet4d")
    unet = get_architecture("unet3d")
    with pytest.raises(InputError, match="no preset 'large'; choose one of auto, paper"):
        unet.configure(TrainingConfig(preset="large"), [odd_case()], torch.device("cpu"))
    with pytest.raises(InputError, match=r"no option widht; it has .*channels"):
        unet.configure(TrainingConfig(options={"widht": 3}), [odd_case()], torch.device("cpu"))


def test_options_go_over_a_preset():
    unet = get_architecture("unet3d")
    config = unet.configure(
        TrainingConfig(preset="paper", options={"channels": 4}), [odd_case()], torch.device("cpu")
    )
    assert config.channels == 4
    assert config.padding == "valid"
