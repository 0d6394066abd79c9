from __future__ import annotations

import numpy as np
import pytest
import trimesh

from napari_volseg.data.annotation import default_classes
from napari_volseg.data.volume import Volume
from napari_volseg.review.objects import find_objects
from napari_volseg.review.surfaces import (
    SURFACE_SUFFIXES,
    find_surfaces,
    surface_name,
    write_surfaces,
)

ONE = (1.0, 1.0, 1.0)


def ball(radius, spacing):
    """A mask with a ball of a physical radius in its middle."""
    half = [int(np.ceil(radius / s)) + 2 for s in spacing]
    axes = [s * np.arange(-n, n + 1) for n, s in zip(half, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return 1 + (z**2 + y**2 + x**2 <= radius**2).astype(np.uint8)


def surfaces(mask, spacing=ONE, affine=None, **options):
    volume = Volume(mask[None], spacing, "micrometer", affine)
    objects = find_objects(mask, smallest=1)
    ids = [found.id for found in objects.found]
    classes = default_classes((1, 2, 3))
    return {
        surface_name(found): mesh
        for found, mesh in find_surfaces(objects, ids, volume, classes, **options)
    }


@pytest.mark.parametrize("smooth", [0, 10])
@pytest.mark.parametrize("spacing", [ONE, (3.0, 1.0, 1.0), (2.5, 0.5, 0.8)])
def test_a_ball_has_its_volume_in_physical_units(spacing, smooth):
    (mesh,) = surfaces(ball(10, spacing), spacing, smooth=smooth).values()
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.03)
    assert (abs(mesh.extents - 20) <= 1.01 * np.array(spacing[::-1])).all()


def test_smoothing_takes_the_steps_off():
    spacing = (3.0, 1.0, 1.0)
    (rough,) = surfaces(ball(9, spacing), spacing, smooth=0).values()
    (smooth,) = surfaces(ball(9, spacing), spacing).values()
    true = 4 * np.pi * 9**2
    assert smooth.area == pytest.approx(true, rel=0.07)
    assert rough.area > 1.1 * true


def test_a_surface_is_closed_at_the_border_and_around_a_cavity():
    mask = np.ones((8, 9, 10), np.uint8)
    mask[:6] = 2
    mask[2:4, 3:6, 3:7] = 1
    (mesh,) = surfaces(mask, smooth=0).values()
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx((mask == 2).sum(), rel=0.05)
    np.testing.assert_allclose(mesh.bounds, [(-0.5, -0.5, -0.5), (9.5, 8.5, 5.5)], atol=0.01)


@pytest.mark.parametrize("filled", [0.3, 0.4, 0.5, 0.6, 0.7])
def test_the_surface_of_anything_is_closed(filled):
    rng = np.random.default_rng(0)
    for _ in range(4):
        mask = 1 + (rng.random((6, 6, 6)) < filled).astype(np.uint8)
        for mesh in surfaces(mask).values():
            assert mesh.is_watertight
            assert mesh.is_winding_consistent
            assert mesh.volume > 0


def test_vertices_are_x_y_z_where_the_affine_puts_them():
    mask = np.ones((6, 8, 12), np.uint8)
    mask[2, 3:5, 5:9] = 2
    (plain,) = surfaces(mask, (4.0, 2.0, 1.0), smooth=0).values()
    np.testing.assert_allclose(plain.bounds, [(4.5, 5, 6), (8.5, 9, 10)], atol=0.02)
    affine = np.diag([4.0, 2.0, -1.0, 1.0])
    affine[:3, 3] = (100, 200, 300)
    (mirrored,) = surfaces(mask, (4.0, 2.0, 1.0), affine, smooth=0).values()
    np.testing.assert_allclose(mirrored.bounds, [(291.5, 205, 106), (295.5, 209, 110)], atol=0.02)
    assert mirrored.volume == pytest.approx(plain.volume)


@pytest.mark.parametrize("suffix", SURFACE_SUFFIXES)
def test_files_hold_what_was_found(tmp_path, suffix):
    mask = np.ones((8, 10, 24), np.uint8)
    mask[2:6, 2:8, 2:8] = 2
    mask[2:6, 2:8, 12:20] = 3
    meshes = surfaces(mask, (2.0, 1.0, 1.0))
    path = tmp_path / f"all{suffix}"
    write_surfaces(path, meshes)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    read = trimesh.load_mesh(path)
    assert read.is_watertight
    assert read.volume == pytest.approx(sum(m.volume for m in meshes.values()), rel=1e-4)
    parts = read.split()
    assert sorted(part.volume for part in parts) == pytest.approx(
        sorted(m.volume for m in meshes.values()), rel=1e-4
    )
    if suffix == ".obj":
        lines = path.read_text().splitlines()
        assert [line for line in lines if line.startswith("o ")] == [
            "o object_1_class_2",
            "o object_2_class_3",
        ]
    if suffix != ".stl":
        colors = {tuple(int(v) for v in c[:3]) for c in read.visual.vertex_colors}
        assert colors == {(0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9)}
