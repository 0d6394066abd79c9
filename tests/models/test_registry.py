"""What every architecture must do, whichever it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.errors import InputError
from napari_volseg.data.volume import Volume
from napari_volseg.inference.predict import predict_volume
from napari_volseg.models.registry import architectures, get_architecture
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.training.loop import train

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
def test_a_few_steps_lower_the_loss(name):
    """Of the last stage: losses of different stages are not of one kind."""
    events = run(odd_case(), name, steps=36, augmentation=0.0)
    losses = [e.loss for e in events if e.loss is not None and e.stage == events[-1].stage]
    # The first one may be of the step that ended the stage before.
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[1:3])


@every_architecture
def test_the_same_seed_gives_the_same_model_and_another_one_another(name):
    one, two, other = (
        run(odd_case(), name, steps=2, seed=s)[-1].checkpoint.weights for s in (4, 4, 5)
    )
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not all(torch.equal(one[k], other[k]) for k in one)


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
