from __future__ import annotations

import pytest
import torch

from napari_volseg.data.annotation import default_classes
from napari_volseg.data.errors import InputError
from napari_volseg.models.registry import architectures, get_architecture, get_classifier
from napari_volseg.models.vgg13_3d import VGGConfig, auto, build, side
from napari_volseg.review.classify import train_classifier
from napari_volseg.sparse.crops import Examples
from napari_volseg.sparse.object_config import ObjectConfig

# Figure 24, the layers with parameters from top to bottom.
FIGURE_24 = [
    *(1_792, 128, 110_656, 128),
    *(221_312, 256, 442_496, 256),
    *(884_992, 512, 1_769_728, 512),
    *(3_539_456, 1_024, 7_078_400, 1_024),
    *(51_300, 1_010),
]


def test_the_papers_count_and_its_every_layer():
    network = get_classifier("vgg13_3d")
    assert network.paper_parameters() == 14_104_982
    with torch.device("meta"):
        module = build(network.presets["paper"], 1, 10)
    layers = [sum(p.numel() for p in layer.parameters()) for layer in module]
    assert [count for count in layers if count] == FIGURE_24
    assert [type(layer).__name__ for layer in module][:7] == [
        *("Conv3d", "BatchNorm3d", "ReLU") * 2,
        "MaxPool3d",
    ]


def test_a_crop_of_any_channels_becomes_one_row_of_any_classes():
    config = VGGConfig(widths=(2, 3, 4))
    assert side(config) == 8
    assert side(VGGConfig()) == 16
    assert build(config, 3, 5)(torch.zeros(2, 3, 8, 8, 8)).shape == (2, 5)


def test_the_papers_training_runs_as_it_says():
    crops = torch.rand(2, 1, 16, 16, 16)
    examples = Examples(crops, torch.tensor([0, 1]), default_classes((2, 3)), gray_channels=1)
    network = get_classifier("vgg13_3d")
    stage = network.stage(network.presets["paper"], ObjectConfig(), examples)
    optimizer = stage.optimizer(build(VGGConfig(widths=(1,)), 1, 2).parameters())
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.param_groups[0]["lr"] == 1e-5
    assert {stage.schedule(f, []) for f in (0.0, 0.5, 0.99)} == {1.0}
    config = ObjectConfig(preset="paper", options={"batch_size": 2}, steps=1, device="cpu")
    last = list(train_classifier(examples, config))[-1]
    assert last.checkpoint.config["widths"] == (64, 128, 256, 512)
    assert last.loss == pytest.approx(0.7, abs=0.3)


def test_a_cpu_gets_a_narrow_network_and_a_gpu_the_papers():
    assert auto(torch.device("cuda")).widths == VGGConfig().widths
    assert sum(auto(torch.device("cpu")).widths) < sum(VGGConfig().widths) / 2


def test_it_labels_objects_and_is_not_offered_for_voxels():
    assert "vgg13_3d" not in architectures()
    with pytest.raises(InputError, match=r"objects, not voxels.*classify-objects.*unet3d"):
        get_architecture("vgg13_3d")
    with pytest.raises(InputError, match=r"voxels, not objects.*vgg13_3d"):
        get_classifier("unet3d")


@pytest.mark.parametrize(
    "bad", [{"widths": ()}, {"hidden": 0}, {"learning_rate": 0.0}, {"batch_size": 0}]
)
def test_settings_that_build_no_network_are_refused_by_name(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        VGGConfig(**bad)
