"""OME-Zarr 0.4 and 0.5: the full-resolution level, lazily (https://ngff.openmicroscopy.org)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import zarr

from napari_volseg.data.annotation import LabelClass, default_classes
from napari_volseg.data.contents import Contents, Spacing, arrange_axes
from napari_volseg.data.errors import InputError
from napari_volseg.data.reading import lazy
from napari_volseg.data.units import PIXEL, convert_length, normalize_unit

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK = (64, 256, 256)
_ZARR_FORMAT: dict[str, Literal[2, 3]] = {"0.4": 2, "0.5": 3}
_SPACE = "zyx"

_NOTES = "napari-volseg"
_CHANNEL_AXIS = {"name": "c", "type": "channel"}
# Of a source's attributes, what is written anew, or does not describe the image alone.
_NOT_KEPT = (
    *("multiscales", "image-label", "labels", "plate", "well", "bioformats2raw.layout", "series"),
    *("ome", _NOTES),
)

Json = Mapping[str, Any]


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
    image = arrange_axes(lazy(array, path, array.chunks), axes, path)
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
    """Write a single-level OME-Zarr in the version of the source, else 0.5.

    Labels become an image-label with names and colors. Scale, translation and units of
    the source are kept as they were, for the axes that are written.
    """
    axes = _SPACE if contents.channels == 1 else "c" + _SPACE
    attributes = _attributes(contents, axes)
    version, _ = _ome(attributes)
    group = zarr.create_group(path, zarr_format=_ZARR_FORMAT[version], attributes=attributes)
    image = contents.image[0] if contents.channels == 1 else contents.image
    chunks = tuple(map(min, _CHUNK, image.shape[-3:]))
    layout: dict[str, Any] = (
        {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
        if version == "0.4"
        else {"dimension_names": list(axes)}
    )
    array = group.create_array(
        "0", shape=image.shape, dtype=image.dtype, chunks=(1,) * (len(axes) - 3) + chunks, **layout
    )
    for start in range(0, image.shape[-3], chunks[0]):
        slab = (..., slice(start, start + chunks[0]), slice(None), slice(None))
        array[slab] = np.asarray(image[slab])


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
