from __future__ import annotations

from dataclasses import asdict, replace
from itertools import combinations

import numpy as np
import pytest
import torch

from napari_volseg.data.annotation import default_classes
from napari_volseg.data.errors import InputError
from napari_volseg.data.intensity import ChannelIntensity, Window, measure_intensity
from napari_volseg.data.volume import Volume
from napari_volseg.inference import memory
from napari_volseg.inference import predict as predict_module
from napari_volseg.inference.device import pick_device
from napari_volseg.inference.predict import (
    intensity_for,
    likeliest,
    plan_region,
    predict,
    predict_region,
    predict_volume,
    prepare,
)
from napari_volseg.models.belief import Belief
from napari_volseg.models.checkpoint import Checkpoint
from napari_volseg.models.registry import get_architecture
from napari_volseg.models.unet3d import UNet3D, build
from napari_volseg.models.unet3d_config import UNet3DConfig
from napari_volseg.sparse.config import TrainingConfig

PADDED = UNet3DConfig(
    channels=4, pooling=((1, 2, 2), (2, 2, 2)), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    padding="same", test_statistics="running", tile=(8, 12, 12),
)  # fmt: skip
VALID = replace(PADDED, padding="valid", normalization="none", tile=(10, 14, 14))
FILTERED = replace(PADDED, filter_scales=(1.0, 2.0), voxel=(2.0, 1.0, 1.0))
BLOCKS = {
    "padded": PADDED,
    "cells": replace(FILTERED, cells=(1, 2, 2), pooling=((1, 2, 2),), kernels=((3, 3, 3),) * 2),
    "valid": VALID,
    "filtered": FILTERED,
    "second look": replace(FILTERED, second_look=True),
    "second look at cells": replace(FILTERED, second_look=True, cells=(1, 2, 2)),
    "widely filtered": replace(PADDED, filter_scales=(1.0, 8.0), voxel=(2.0, 1.0, 1.0)),
}
every_padding = pytest.mark.parametrize("config", BLOCKS.values(), ids=BLOCKS.keys())


def checkpoint_of(config: UNet3DConfig, ids=(1, 2, 5), seed=0) -> Checkpoint:
    torch.manual_seed(seed)
    module = build(config, 1, len(ids))
    torch.nn.init.normal_(module.classify.weight)
    if module.second is not None:
        for parameter in module.second.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.3)
    return Checkpoint(
        model="unet3d", config=asdict(config), training=TrainingConfig().to_json(), channels=1,
        classes=default_classes(ids), spacing=(1, 1, 1), unit="pixel",
        intensity=(ChannelIntensity(0.0, 1.0, 0.0, 1.0),),
        step=1, seconds=1, score=None, iou=(None,) * len(ids), belief=Belief(),
        weights=module.state_dict(),
    )  # fmt: skip


def noise(shape, seed=0) -> Volume:
    image = np.random.default_rng(seed).normal(100, 20, (1, *shape))
    return Volume(image.astype(np.float32), name="noise")


def whole(pieces, shape, classes=3) -> np.ndarray:
    probabilities = np.full((classes, *shape), np.nan, np.float32)
    for piece in pieces:
        target = probabilities[(slice(None), *piece.region)]
        assert np.isnan(target).all(), "a voxel was predicted twice"
        target[...] = piece.probabilities
    return probabilities


@every_padding
@pytest.mark.parametrize("shape", [(17, 25, 29), (3, 40, 17), (20, 9, 20)])
def test_tiled_equals_whole(config, shape):
    """Without seams: tiles give what one tile over everything gives."""
    volume = noise(shape)
    tiled = whole(predict(checkpoint_of(config), volume, device="cpu"), shape)
    one_tile = replace(config, tile=tuple(2 * n for n in shape))
    at_once = list(predict(checkpoint_of(one_tile), volume, device="cpu"))
    assert len(at_once) == 1
    np.testing.assert_allclose(tiled, at_once[0].probabilities, atol=1e-5)


@every_padding
@pytest.mark.parametrize("shape", [(17, 25, 29), (3, 75, 17)])
def test_a_region_is_what_the_whole_volume_has_there(config, shape):
    volume, checkpoint = noise(shape), checkpoint_of(config)
    labels = predict_volume(checkpoint, volume, device="cpu")
    module, settings = checkpoint.module(torch.device("cpu"))
    z, y, x = (slice(0, n) for n in shape)
    far = slice(shape[1] - 10, shape[1] - 9)
    for region in ((slice(2, 3), y, x), (z, far, x), (z, slice(7, 15), slice(16, 17))):
        found = predict_region(
            module, settings, get_architecture("unet3d"), volume,
            intensity_for(checkpoint, volume), torch.device("cpu"), (1, 2, 5), Belief(), region,
        )  # fmt: skip
        np.testing.assert_array_equal(found, labels[region])


def test_flip_averaging_is_the_mean_over_mirrored_volumes():
    volume = noise((8, 9, 10))
    checkpoint = checkpoint_of(replace(PADDED, tile=(8, 24, 24)))
    (found,) = predict(checkpoint, volume, device="cpu", flips=True)
    mean = np.zeros_like(found.probabilities)
    for axes in ((), (1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3)):
        mirrored = replace(volume, image=np.flip(volume.image, axes).copy())
        (seen,) = predict(checkpoint, mirrored, device="cpu")
        mean += np.flip(seen.probabilities, axes) / 8
    np.testing.assert_allclose(found.probabilities, mean, atol=1e-5)
    (plain,) = predict(checkpoint, volume, device="cpu")
    assert not np.allclose(plain.probabilities, mean, atol=1e-3)


@pytest.mark.parametrize(
    "config", [VALID, replace(PADDED, position=True)], ids=["valid", "padded with position"]
)
def test_flip_averaging_in_tiles_equals_whole(config):
    shape = (3, 73, 9)
    one_tile = replace(config, tile=tuple(2 * n for n in shape))
    (at_once,) = predict(checkpoint_of(one_tile), noise(shape), device="cpu", flips=True)
    pieces = list(predict(checkpoint_of(config), noise(shape), device="cpu", flips=True))
    assert len(pieces) > 1
    np.testing.assert_allclose(whole(pieces, shape), at_once.probabilities, atol=1e-5)


def test_flip_averaging_mirrors_positions_with_their_voxels(monkeypatch):
    """Every mirrored image is seen with the positions that its voxels have unmirrored."""
    right, seen = UNet3D.unet, []

    def unet(module, image):
        seen.append(image.clone())
        return right(module, image)

    monkeypatch.setattr(UNet3D, "unet", unet)
    checkpoint = checkpoint_of(replace(PADDED, position=True, tile=(8, 24, 24)))
    list(predict(checkpoint, noise((8, 9, 10)), device="cpu", flips=True))
    first = seen[0]
    assert len(seen) == 8 and first.shape[1] > 1
    by_gray = [
        dict(zip(i[0, 0].ravel().tolist(), i[0, 1:].flatten(1).T, strict=True)) for i in seen
    ]
    for other in by_gray[1:]:
        assert all(torch.equal(other[gray], at) for gray, at in by_gray[0].items())


def test_a_slice_can_be_seen_before_the_regions_that_it_crosses():
    volume = noise((60, 40, 40))
    checkpoint = checkpoint_of(replace(PADDED, tile=(64, 16, 16)))
    predictor = prepare(checkpoint, volume, "cpu")
    seen = np.zeros((60, 40, 40), np.uint8)
    for piece in predictor.look((0, 30)):
        assert (piece.done, piece.total) == (0, len(predictor.tiles))
        assert not seen[piece.region].any()
        seen[piece.region] = piece.labels
    assert not seen[:30].any() and not seen[31:].any()
    np.testing.assert_array_equal(seen[30], predict_volume(checkpoint, volume, device="cpu")[30])


def test_a_slice_that_takes_as_long_as_its_regions_waits_for_them():
    predictor = prepare(checkpoint_of(PADDED), noise((8, 9, 10)), "cpu")
    assert list(predictor.look((0, 3))) == []


def test_a_slice_costs_no_more_than_its_context():
    unet, shape = get_architecture("unet3d"), (300, 200, 200)
    walk = unet.walk(replace(FILTERED, tile=(112, 112, 112)), shape)
    region = (slice(150, 151), slice(0, 200), slice(0, 200))
    tiles = plan_region(walk, shape, region)
    assert sum(np.prod([s.stop - s.start for s in t.write]) for t in tiles) == 200 * 200
    thickest = max(t.read[0].stop - t.read[0].start for t in tiles)
    assert thickest <= 1 + 2 * walk.halo[0] + walk.align[0] < 112


@every_padding
def test_probabilities_add_up_and_labels_are_the_largest(config):
    shape = (13, 20, 20)
    for piece in predict(checkpoint_of(config), noise(shape), device="cpu"):
        np.testing.assert_allclose(piece.probabilities.sum(0), 1, atol=1e-5)
        ids = np.array([1, 2, 5])
        np.testing.assert_array_equal(piece.labels, ids[piece.probabilities.argmax(0)])
        assert piece.labels.dtype == np.uint8


def test_trust_changes_how_sure_a_network_is_and_not_what_it_says():
    checkpoint, volume = checkpoint_of(PADDED), noise((8, 9, 10))
    (plain,) = predict(checkpoint, volume, device="cpu")
    (sure,) = predict(replace(checkpoint, belief=Belief((2.0,))), volume, device="cpu")
    np.testing.assert_array_equal(sure.labels, plain.labels)
    squared = plain.probabilities**2
    np.testing.assert_allclose(sure.probabilities, squared / squared.sum(0), atol=1e-5)


def test_a_network_and_its_instant_answer_are_believed_as_trust_says():
    checkpoint, volume = checkpoint_of(FILTERED), noise((8, 9, 10))
    alone = np.eye(3).tolist()
    (network,), (placed,), (near,), (all_three,), (unknown,) = (
        predict(replace(checkpoint, belief=Belief(tuple(trust))), volume, device="cpu")
        for trust in (*alone, (0.25, 2.0, 0.5), ())
    )
    parts = network, placed, near
    assert all((a.labels != b.labels).any() for a, b in combinations(parts, 2))
    for trust, found in (((0.25, 2.0, 0.5), all_three), ((1 / 3,) * 3, unknown)):
        pooled = np.prod([p.probabilities**t for p, t in zip(parts, trust, strict=True)], 0)
        np.testing.assert_allclose(found.probabilities, pooled / pooled.sum(0), atol=1e-4)


def test_a_stretched_gray_scale_changes_nothing():
    volume = noise((12, 20, 20))
    stretched = replace(volume, image=volume.image * 7 - 300)
    checkpoint = checkpoint_of(PADDED)
    np.testing.assert_array_equal(
        predict_volume(checkpoint, volume, device="cpu"),
        predict_volume(checkpoint, stretched, device="cpu"),
    )


def test_another_volume_is_seen_through_the_window_of_the_training():
    window = Window(-0.5, 0.05)
    how = (ChannelIntensity(100.0, 20.0, 0.0, 1.0, window),)
    checkpoint, volume = replace(checkpoint_of(PADDED), intensity=how), noise((12, 20, 20))
    assert prepare(checkpoint, volume, "cpu").intensity == measure_intensity(volume, (window,))


def test_training_statistics_keep_absolute_gray_values():
    checkpoint = replace(
        checkpoint_of(PADDED),
        training=TrainingConfig(normalization="training").to_json(),
        intensity=(ChannelIntensity(100.0, 20.0, 0.0, 1.0),),
    )
    volume = noise((12, 20, 20))
    brighter = replace(volume, image=volume.image + 200)
    one = whole(predict(checkpoint, volume, device="cpu"), volume.shape)
    two = whole(predict(checkpoint, brighter, device="cpu"), volume.shape)
    assert not np.allclose(one, two, atol=1e-3)


def test_the_slice_on_view_comes_first():
    volume = noise((40, 30, 30))
    pieces = list(predict(checkpoint_of(PADDED), volume, device="cpu", near=(0, 21)))
    meets = [p.region[0].start <= 21 < p.region[0].stop for p in pieces]
    assert any(meets) and not all(meets)
    assert meets == sorted(meets, reverse=True)
    assert [p.done for p in pieces] == list(range(1, len(pieces) + 1))
    assert {p.total for p in pieces} == {len(pieces)}


def test_closing_cancels():
    pieces = predict(checkpoint_of(PADDED), noise((40, 30, 30)), device="cpu")
    assert next(pieces).done == 1
    pieces.close()
    assert list(pieces) == []


def test_more_than_255_classes_ids_need_uint16():
    labels = predict_volume(checkpoint_of(PADDED, ids=(1, 2, 300)), noise((6, 9, 9)), device="cpu")
    assert labels.dtype == np.uint16


def test_input_that_does_not_fit_is_refused_in_words():
    two = Volume(np.zeros((2, 8, 8, 8), np.uint8), name="two")
    with pytest.raises(InputError, match="two: 2 channels, but the model was trained on 1"):
        next(predict(checkpoint_of(PADDED), two, device="cpu"))
    bad = noise((4, 8, 8))
    bad.image[0, 2, 2, 2] = np.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        next(predict(checkpoint_of(PADDED), bad, device="cpu"))
    with pytest.raises(InputError, match="device 'warp'"):
        pick_device("warp")


def test_the_likeliest_class_is_that_of_argmax():
    probabilities = torch.rand(4, 3, 4, 5, generator=torch.Generator().manual_seed(0)).round(
        decimals=1
    )
    table = np.array([1, 2, 7, 300], np.uint16)
    expected = table[probabilities.numpy().argmax(0)]
    np.testing.assert_array_equal(likeliest(probabilities, table), expected)


@pytest.mark.parametrize("config", [PADDED, FILTERED], ids=["padded", "filtered"])
def test_tiles_are_halved_where_memory_runs_out(config, monkeypatch):
    """As long as it does; the regions stay, and what is predicted."""
    shape, checkpoint = (8, 90, 90), checkpoint_of(replace(config, tile=(8, 48, 48)))
    expected = whole(predict(checkpoint, noise(shape), device="cpu"), shape)
    right, seen = UNet3D.unet, []

    def unet(module, image):
        seen.append(image.numel())
        if image.numel() > 0.6 * max(seen):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return right(module, image)

    monkeypatch.setattr(UNet3D, "unet", unet)
    pieces = list(predict(checkpoint, noise(shape), device="cpu"))
    assert len(pieces) == 4 and len(seen) > 12
    np.testing.assert_allclose(whole(pieces, shape), expected, atol=1e-5)


@pytest.mark.parametrize("first", [1, 2, 8])
@pytest.mark.parametrize("config", [PADDED, FILTERED], ids=["padded", "filtered"])
def test_mirrored_tiles_are_halved_where_memory_runs_out(config, first, monkeypatch):
    """Be it in the first pass over a tile or in a later one."""
    shape, checkpoint = (8, 40, 56), checkpoint_of(replace(config, tile=(8, 64, 64)))
    predictor = prepare(checkpoint, noise(shape), "cpu", flips=True)
    expected = whole(predictor.predict(predictor.tiles), shape)
    right, seen = UNet3D.unet, []

    def unet(module, image):
        seen.append(image.numel())
        if image.numel() == seen[0] and len(seen) >= first:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return right(module, image)

    monkeypatch.setattr(UNet3D, "unet", unet)
    (piece,) = predictor.predict(predictor.tiles)
    assert len(seen) == first + 2 * 8 and max(seen[first:]) < seen[0]
    np.testing.assert_allclose(piece.probabilities, expected, atol=1e-5)


def test_flip_averaging_can_be_cancelled_between_its_passes(monkeypatch):
    right, seen = UNet3D.unet, []
    monkeypatch.setattr(UNet3D, "unet", lambda *a: seen.append(1) or right(*a))
    predictor = prepare(checkpoint_of(PADDED), noise((8, 9, 70)), "cpu", flips=True)
    events = list(predictor.passes(predictor.tiles))
    regions = [n for n, event in enumerate(events) if event is not None]
    assert len(regions) == len(predictor.tiles) > 1 and regions == list(range(7, len(events), 8))
    seen.clear()
    passes = predictor.passes(predictor.tiles)
    for wanted in (1, 2, 3):
        assert next(passes) is None and len(seen) == wanted
    passes.close()
    assert list(passes) == []


def test_a_tile_in_halves_can_be_cancelled_between_them(monkeypatch):
    predictor = prepare(checkpoint_of(replace(PADDED, tile=(8, 24, 80))), noise((8, 9, 80)), "cpu")
    monkeypatch.setattr(predict_module, "most_voxels", lambda *arguments: 8 * 9 * 60)
    *between, region = predictor.passes(predictor.tiles)
    assert between and set(between) == {None}
    assert region.labels.shape == (8, 9, 80)


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), InputError),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), InputError),
        (RuntimeError("shapes do not fit"), RuntimeError),
    ],
)
def test_where_a_tile_cannot_be_smaller_the_user_is_told_what_to_do(error, refusal, monkeypatch):
    def unet(module, image):
        raise error

    monkeypatch.setattr(UNet3D, "unet", unet)
    with pytest.raises(refusal) as raised:
        next(predict(checkpoint_of(VALID), noise((8, 9, 10)), device="cpu"))
    if refusal is InputError:
        said = str(raised.value)
        assert said.startswith("noise: memory ran out on CPU") and "train another" in said
    else:
        assert raised.value is error


def test_tiles_that_would_not_fit_are_computed_in_halves_with_the_same_result(monkeypatch):
    volume = Volume(np.random.default_rng(0).normal(size=(1, 16, 40, 160)).astype(np.float32))
    checkpoint = checkpoint_of(replace(FILTERED, tile=(16, 40, 160)))
    expected = predict_volume(checkpoint, volume, device="cpu")
    seen = []
    unet = UNet3D.unet

    def watched(module, image):
        if image.device.type == "cpu":
            seen.append(image[0, 0].numel())
        return unet(module, image)

    monkeypatch.setattr(UNet3D, "unet", watched)
    predict_volume(checkpoint, volume, device="cpu")
    whole = len(seen), max(seen)
    needed = memory.tile_memory(
        get_architecture("unet3d"), checkpoint.module()[1],
        prepare(checkpoint, volume, "cpu").tiles.largest,
        volume.image.shape, 3, torch.device("cpu"),
    )  # fmt: skip
    monkeypatch.setattr(memory, "free_memory", lambda device: int(0.9 * needed))
    seen.clear()
    found = predict_volume(checkpoint, volume, device="cpu")
    assert len(seen) > whole[0] and max(seen) < whole[1]
    np.testing.assert_array_equal(found, expected)


def test_a_slice_that_is_looked_at_first_waits_for_no_estimate(monkeypatch):
    volume = Volume(np.random.default_rng(0).normal(size=(1, 40, 40, 40)).astype(np.float32))
    predictor = prepare(checkpoint_of(PADDED), volume, "cpu")
    monkeypatch.setattr(predict_module, "most_voxels", lambda *arguments: asked.append(1) or 0)
    asked = []
    assert list(predictor.look((0, 20))) and not asked
    next(predictor.predict(predictor.tiles))
    assert asked == [1]
