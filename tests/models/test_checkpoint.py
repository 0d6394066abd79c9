from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from napari_volseg.data.annotation import LabelClass
from napari_volseg.data.errors import InputError
from napari_volseg.data.intensity import ChannelIntensity, Window
from napari_volseg.models.belief import Belief
from napari_volseg.models.checkpoint import Checkpoint, load_model, save_model
from napari_volseg.models.evidence import Evidence
from napari_volseg.models.unet3d import build
from napari_volseg.models.unet3d_config import UNet3DConfig
from napari_volseg.sparse.config import TrainingConfig

CONFIG = UNet3DConfig(channels=2, pooling=((2, 2, 2),), kernels=((3, 3, 3),) * 2, padding="same")


@pytest.fixture
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    module = build(CONFIG, 1, 2)
    return Checkpoint(
        model="unet3d",
        config=asdict(CONFIG),
        training=TrainingConfig(class_weights=(1, 2)).to_json(),
        channels=1,
        classes=(LabelClass(1, "background", "#808080"), LabelClass(4, "Zelle µ", "#ff0000")),
        spacing=(2.04, 1.76, 1.76),
        unit="micrometer",
        intensity=(ChannelIntensity(12.5, 3.25, 0.1, 0.7, Window(0.25, 0.125)),),
        step=7,
        seconds=1.5,
        score=0.25,
        iou=(None, 0.25),
        belief=Belief((0.5, 2.0), (0.1, -0.1)),
        weights=module.state_dict(),
        state={"module.x": torch.arange(3)},
        progress={"stage": 0, "scores": [0.1, 0.25]},
        evidence=Evidence(3, 0.05, 0.3, None, 12.5, 0.6, (0.25, None, 0.2)),
    )


def test_a_model_file_gives_back_all_that_was_put_in(checkpoint, tmp_path):
    path = tmp_path / "tubules.volseg"
    save_model(checkpoint, path)
    again = load_model(path)
    for name in ("model", "channels", "classes", "spacing", "unit", "intensity", "step", "seconds",
                 "score", "iou", "belief", "progress", "evidence"):  # fmt: skip
        assert getattr(again, name) == getattr(checkpoint, name), name
    assert again.weights.keys() == checkpoint.weights.keys()
    assert all(torch.equal(again.weights[k], v) for k, v in checkpoint.weights.items())
    assert torch.equal(again.state["module.x"], torch.arange(3))
    assert TrainingConfig(**again.training) == TrainingConfig(class_weights=(1, 2))


def test_a_file_of_before_gray_values_had_a_window_is_read(checkpoint, tmp_path):
    path = tmp_path / "old.volseg"
    save_model(checkpoint, path)
    with safe_open(path, framework="pt") as file:
        document = json.loads(file.metadata()["napari_volseg"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    document |= {"format": 1, "intensity": [channel[:4] for channel in document["intensity"]]}
    save_file(tensors, path, metadata={"napari_volseg": json.dumps(document)})
    (channel,) = load_model(path).intensity
    assert channel == ChannelIntensity(12.5, 3.25, 0.1, 0.7, Window(0.0, 1.0))


def test_the_network_comes_back_as_it_was(checkpoint, tmp_path):
    save_model(checkpoint, tmp_path / "a.volseg")
    module, config = load_model(tmp_path / "a.volseg").module()
    assert config == CONFIG
    assert not module.training
    image = torch.randn(1, 1, 8, 8, 8)
    before, _ = checkpoint.module()
    assert torch.equal(module(image), before(image))


def test_without_state_only_what_predicts_is_left(checkpoint):
    bare = checkpoint.without_state()
    assert not bare.state and not bare.progress
    assert bare.weights is checkpoint.weights


def test_other_files_are_refused_in_words(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_model(tmp_path / "missing.volseg")
    text = tmp_path / "notes.volseg"
    text.write_text("not a model")
    with pytest.raises(InputError, match="not a napari-volseg model"):
        load_model(text)
    (tmp_path / "empty.volseg").touch()
    with pytest.raises(InputError, match="not a napari-volseg model"):
        load_model(tmp_path / "empty.volseg")


def test_a_truncated_file_is_refused(checkpoint, tmp_path):
    path = tmp_path / "cut.volseg"
    save_model(checkpoint, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a napari-volseg model"):
        load_model(path)


def test_a_pickle_is_never_opened(tmp_path):
    path = tmp_path / "evil.volseg"
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="not a napari-volseg model"):
        load_model(path)


def test_a_failed_write_leaves_the_old_model(checkpoint, tmp_path, monkeypatch):
    path = tmp_path / "a.volseg"
    save_model(checkpoint, path)
    before = path.read_bytes()

    def broken(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("napari_volseg.models.checkpoint.save_file", broken)
    with pytest.raises(InputError, match="disk full"):
        save_model(checkpoint, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_to_is_told(checkpoint, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        save_model(checkpoint, tmp_path / "none" / "a.volseg")
    (tmp_path / "a.volseg").mkdir()
    with pytest.raises(InputError, match=r"a\.volseg: cannot be written"):
        save_model(checkpoint, tmp_path / "a.volseg")


def test_what_the_library_cannot_write_is_told(checkpoint, tmp_path, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr("napari_volseg.models.checkpoint.save_file", full)
    with pytest.raises(InputError, match=r"a\.volseg: cannot be written \(No space left"):
        save_model(checkpoint, tmp_path / "a.volseg")
