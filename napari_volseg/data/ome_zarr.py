"""OME-Zarr 0.4 and 0.5: the full-resolution level, lazily (https://ngff.openmicroscopy.org)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import zarr

from napari_volseg.data.annotation import LabelClass, default_classes
from napari_volseg.data.contents import Contents, Spacing, arrange_axes
from napari_volseg.data.errors import InputError
from napari_volseg.data.lazy_array import on_disk
from napari_volseg.data.tiles import TileGrid, tile_grid
from napari_volseg.data.units import PIXEL, convert_length, normalize_unit

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK = (64, 256, 256)
_ZARR_FORMAT: dict[str, Literal[2, 3]] = {"0.4": 2, "0.5": 3}
_SPACE = "zyx"
_LABELS = "labels"

GROUP_FILES = ("zarr.json", ".zgroup", ".zattrs")
"""A folder with one of these is a Zarr group."""

_NOTES = "napari-volseg"
_CHANNEL_AXIS = {"name": "c", "type": "channel"}
# Of a source's attributes, what is written anew, or does not describe the image alone.
_NOT_KEPT = (
    *("multiscales", "image-label", "labels", "plate", "well", "bioformats2raw.layout", "series"),
    *("ome", _NOTES),
)

Json = Mapping[str, Any]
Share = Callable[[Callable[[int, int], None], int], None]
"""Has work that is counted in pieces done; see ``add_levels``."""


def read(path: Path) -> Contents:
    """Read level 0 of the first multiscale image in a group.

    Raises
    ------
    InputError
        For a group without an image, another version, a time series or a 2D image.
    """
    group = zarr.open_group(path, mode="r")
    attributes: dict[str, Any] = group.attrs.asdict()
    version, ome = _ome(attributes)
    if "multiscales" not in ome:
        inside = ", ".join(sorted(str(path / name) for name in group.group_keys()))
        raise InputError(
            f"{path}: no OME-Zarr image at this level" + f"; perhaps in {inside}" * bool(inside)
        )
    multiscale = ome["multiscales"][0]
    if version not in _ZARR_FORMAT:
        raise InputError(
            f"{path}: OME-Zarr version {version}; convert it to 0.4 or 0.5 to open it here"
        )
    array: Any = group[multiscale["datasets"][0]["path"]]
    axes = "".join(axis["name"][:1].upper() for axis in multiscale["axes"])
    image = arrange_axes(on_disk(array, path), axes, path)
    spacing, unit = _geometry(multiscale)
    affine = attributes.get(_NOTES, {}).get("affine")
    return Contents(
        image,
        spacing,
        unit,
        None if affine is None else np.array(affine, np.float64),
        channel_names=_channel_names(ome),
        classes=_classes(ome),
        source={"ome_zarr": attributes},
    )


def write(path: Path, contents: Contents) -> None:
    """Write an OME-Zarr in the version of the source, else 0.5; labels get coarser levels.

    Labels become an image-label with names and colors. Scale, translation and units of
    the source are kept as they were, for the axes that are written.
    """
    array = create(path, contents, _CHUNK)
    image = contents.image[0] if contents.channels == 1 else contents.image
    depth = array.chunks[-3]
    for start in range(0, image.shape[-3], depth):
        slab = (..., slice(start, start + depth), slice(None), slice(None))
        array[slab] = np.asarray(image[slab])
    if contents.classes:
        add_levels(path)


def create(path: Path, contents: Contents, chunks: Sequence[int]) -> zarr.Array[Any]:
    """Make an OME-Zarr whose voxels are still to be written.

    Parameters
    ----------
    contents : Contents
        Of its image, only the shape and the dtype are looked at.
    chunks : (z, y, x)
        At most; an axis may be shorter.

    Returns
    -------
    zarr array (Z, Y, X), or (C, Z, Y, X) for several channels
    """
    axes = _SPACE if contents.channels == 1 else "c" + _SPACE
    attributes = _attributes(contents, axes)
    version, ome = _ome(attributes)
    if is_label(path) and "image-label" in ome:
        ome["image-label"]["source"] = {"image": "../../"}
    group = zarr.create_group(path, zarr_format=_ZARR_FORMAT[version], attributes=attributes)
    shape = contents.image.shape[-len(axes) :]
    return _create_array(group, "0", axes, shape, contents.image.dtype, chunks)


def is_label(path: Path) -> bool:
    """Whether a path is the place of labels inside an image: ``IMAGE.ome.zarr/labels/NAME``."""
    image = path.parent.parent
    return path.parent.name == _LABELS and any((image / name).is_file() for name in GROUP_FILES)


def check_label(path: Path, contents: Contents) -> None:
    """Refuse labels that do not fit the image that they are to be stored in.

    Raises
    ------
    InputError
        If the image is of another shape, or another version than the labels would be.
    """
    image = read(path.parent.parent)
    versions = [_ome(c.source.get("ome_zarr", {}))[0] for c in (image, contents)]
    if image.image.shape[1:] != contents.image.shape[1:] or versions[0] != versions[1]:
        raise InputError(
            f"{path}: these labels, of shape {tuple(contents.image.shape[1:])}, belong to another "
            f"image than the one they would be stored in, of {tuple(image.image.shape[1:])}; "
            "choose a place of their own"
        )


def holds_labels(group: zarr.Group) -> bool:
    """Whether a group is an image of labels."""
    return "image-label" in _ome(group.attrs.asdict())[1]


def list_label(path: Path) -> None:
    """Name labels inside an image in the list that viewers look at."""
    form = zarr.open_group(path, mode="r").metadata.zarr_format
    group = zarr.open_group(path.parent, mode="a", zarr_format=form)
    attributes: dict[str, Any] = group.attrs.asdict()
    ome = attributes if form == 2 else attributes.setdefault("ome", {"version": "0.5"})
    names = ome.setdefault(_LABELS, [])
    if path.name not in names:
        names.append(path.name)
    group.attrs.update(attributes)


def _create_array(
    group: zarr.Group,
    name: str,
    axes: str,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    chunks: Sequence[int],
) -> zarr.Array[Any]:
    layout: dict[str, Any] = (
        {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
        if group.metadata.zarr_format == 2
        else {"dimension_names": list(axes)}
    )
    sides = (1,) * (len(axes) - 3) + tuple(map(min, chunks, shape[-3:]))
    return group.create_array(
        name, shape=tuple(shape), dtype=dtype, chunks=sides, overwrite=True, **layout
    )


def do_all(work: Callable[[int, int], None], pieces: int) -> None:
    """Do work that is counted in pieces, here and now."""
    work(0, pieces)


def add_levels(path: Path, share: Share = do_all) -> None:
    """Add levels of half the resolution to labels, until one chunk holds all of it.

    An axis is halved where its voxels are not yet twice as long as the shortest side.
    A voxel of a coarser level is one of its voxels in the finer one: labels have no mean.
    Levels that are there are made anew.

    Parameters
    ----------
    share : callable (work, pieces)
        Sees to it that ``work(start, stop)`` is done for all of so many pieces, in any order
        and by anyone who sees the path.
    """
    group = zarr.open_group(path, mode="r+")
    attributes: dict[str, Any] = group.attrs.asdict()
    _, ome = _ome(attributes)
    datasets: list[dict[str, Any]] = ome["multiscales"][0]["datasets"]
    del datasets[1:]
    fine: Any = group[datasets[0]["path"]]
    while any(map(operator.gt, fine.shape, fine.chunks)):
        sides = _scale_of(datasets[-1])
        shortest = min(side for side, size in zip(sides, fine.shape, strict=True) if size > 1)
        steps = [
            2 if size > 1 and side < 2 * shortest else 1
            for size, side in zip(fine.shape, sides, strict=True)
        ]
        shape = [-(-size // step) for size, step in zip(fine.shape, steps, strict=True)]
        name = str(len(datasets))
        coarse = _create_array(group, name, _SPACE, shape, fine.dtype, fine.chunks)
        chunks = len(_chunks_of(coarse))
        share(partial(_fill_level, path, datasets[-1]["path"], name, steps), chunks)
        datasets.append(_coarser(datasets[-1], name, steps))
        fine = coarse
    group.attrs.update(attributes)


def _fill_level(
    path: Path, finer: str, name: str, steps: Sequence[int], start: int, stop: int
) -> None:
    """Write some chunks of a level: every so many-th voxel of a finer one."""
    group = zarr.open_group(path, mode="r+")
    fine, coarse = cast("Any", group[finer]), cast("Any", group[name])
    every = tuple(slice(None, None, step) for step in steps)
    for tile in _chunks_of(coarse)[start:stop]:
        region = tuple(
            slice(side.start * step, side.stop * step)
            for side, step in zip(tile.write, steps, strict=True)
        )
        coarse[tile.write] = np.asarray(fine[region])[every]


def _chunks_of(array: Any) -> TileGrid:
    return tile_grid(array.shape, array.chunks)


def _scale_of(dataset: Json) -> list[float]:
    """Return the sides of a voxel of a level, in the units of its axes."""
    for transformation in dataset.get("coordinateTransformations", ()):
        if transformation["type"] == "scale":
            return list(transformation["scale"])
    return [1.0, 1.0, 1.0]


def _coarser(dataset: Json, name: str, steps: Sequence[int]) -> dict[str, Any]:
    """Describe a level with every so many-th voxel of another; the first is the same."""
    scale = [side * step for side, step in zip(_scale_of(dataset), steps, strict=True)]
    others = [t for t in dataset.get("coordinateTransformations", ()) if t["type"] != "scale"]
    return {
        "path": name,
        "coordinateTransformations": [{"type": "scale", "scale": scale}, *others],
    }


def _ome(attributes: Json) -> tuple[str, Json]:
    """Return the version and the OME part of a group's attributes."""
    if "ome" in attributes:
        return str(attributes["ome"].get("version", "0.5")), attributes["ome"]
    multiscales = attributes.get("multiscales", [{}])
    return str(multiscales[0].get("version", "0.4")), attributes


def _transformations(multiscale: Json) -> Iterator[Json]:
    """Yield the transformations of level 0, those of the level before those of the whole."""
    yield from multiscale["datasets"][0].get("coordinateTransformations", ())
    yield from multiscale.get("coordinateTransformations", ())


def _geometry(multiscale: Json) -> tuple[Spacing, str]:
    axes = {axis["name"]: i for i, axis in enumerate(multiscale["axes"])}
    units = [normalize_unit(multiscale["axes"][axes[name]].get("unit")) for name in _SPACE]
    spacing = [1.0, 1.0, 1.0]
    for transformation in _transformations(multiscale):
        if transformation["type"] == "scale":
            factors = (transformation["scale"][axes[name]] for name in _SPACE)
            spacing = [size * factor for size, factor in zip(spacing, factors, strict=True)]
    z, y, x = (convert_length(s, unit, units[2]) for s, unit in zip(spacing, units, strict=True))
    return (z, y, x), units[2]


def _attributes(contents: Contents, axes: str) -> dict[str, Any]:
    """Return the attributes of the group to write: the source's, with ours in their places."""
    attributes = dict(contents.source.get("ome_zarr", {}))
    version, ome = _ome(attributes) if attributes else ("0.5", {})
    ome = {key: value for key, value in ome.items() if key not in _NOT_KEPT}
    multiscale = _multiscale(contents, axes)
    if version == "0.4":
        multiscale["version"] = version
    else:
        ome["version"] = version
    ome["multiscales"] = [multiscale]
    if contents.classes:
        ome["image-label"] = _image_label(contents.classes) | (
            {"version": version} if version == "0.4" else {}
        )
    if contents.classes or len(_channel_names(ome)) != contents.channels:
        ome.pop("omero", None)
    if contents.channel_names and contents.channel_names != _channel_names(ome):
        dtype = contents.image.dtype
        top = float(np.iinfo(dtype).max) if dtype.kind in "ui" else 1.0
        ome["omero"] = {"channels": [_omero_channel(name, top) for name in contents.channel_names]}
    others: dict[str, Any] = {}
    if version != "0.4":
        others = {key: value for key, value in attributes.items() if key not in _NOT_KEPT}
    if contents.affine is not None:
        others[_NOTES] = {"affine": contents.affine.tolist()}
    return others | (ome if version == "0.4" else {"ome": ome})


def _multiscale(contents: Contents, axes: str) -> dict[str, Any]:
    """Describe a single level, in the source's own numbers if they still hold."""
    _, ome = _ome(contents.source.get("ome_zarr", {}))
    old = ome.get("multiscales", [None])[0]
    if old is None or _geometry(old) != (contents.spacing, contents.unit):
        unit = {} if contents.unit == PIXEL else {"unit": contents.unit}
        scale = [1.0] * (len(axes) - 3) + list(contents.spacing)
        return {
            "axes": [_CHANNEL_AXIS] * (len(axes) - 3)
            + [{"name": name, "type": "space"} | unit for name in _SPACE],
            "datasets": [
                {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
            ],
        }
    entries = {axis["name"]: axis for axis in old["axes"]}
    names = list(entries)

    def restricted(transformations: Sequence[Json]) -> list[dict[str, Any]]:
        return [
            {"type": kind, kind: [values[names.index(a)] if a in names else rest for a in axes]}
            for kind, rest in (("scale", 1.0), ("translation", 0.0))
            for values in (t[kind] for t in transformations if t["type"] == kind)
        ]

    level = old["datasets"][0].get("coordinateTransformations", ())
    new: dict[str, Any] = {
        "axes": [entries.get(name, _CHANNEL_AXIS) for name in axes],
        "datasets": [{"path": "0", "coordinateTransformations": restricted(level)}],
    }
    if "name" in old:
        new["name"] = old["name"]
    if "coordinateTransformations" in old:
        new["coordinateTransformations"] = restricted(old["coordinateTransformations"])
    return new


def _channel_names(ome: Json) -> tuple[str, ...]:
    names = [channel.get("label") for channel in ome.get("omero", {}).get("channels", ())]
    return tuple(names) if all(names) else ()


def _omero_channel(name: str, top: float) -> dict[str, Any]:
    window = {"start": 0.0, "end": top, "min": 0.0, "max": top}
    return {"label": name, "color": "FFFFFF", "active": True, "window": window}


def _classes(ome: Json) -> tuple[LabelClass, ...]:
    """Read the classes of an image-label; those without a name or a color get the default."""
    label = ome.get("image-label", {})
    colors = {entry["label-value"]: entry.get("rgba") for entry in label.get("colors", ())}
    names = {entry["label-value"]: entry.get("name") for entry in label.get("properties", ())}
    ids = [i for i in sorted(set(colors) | set(names)) if i > 0]
    found = []
    for default in default_classes(ids):
        rgba = colors.get(default.id)
        color = "#{:02x}{:02x}{:02x}".format(*rgba[:3]) if rgba else default.color
        found.append(LabelClass(default.id, names.get(default.id) or default.name, color))
    return tuple(found)


def _image_label(classes: Sequence[LabelClass]) -> dict[str, Any]:
    return {
        "colors": [
            {"label-value": c.id, "rgba": [*bytes.fromhex(c.color.removeprefix("#")), 255]}
            for c in classes
        ],
        "properties": [{"label-value": c.id, "name": c.name} for c in classes],
    }
