"""OME-XML: read the geometry of an image from it, and edit it for the file that is written.

Schema 2016-06 is written; what an older or richer document says is kept where it still
holds (https://www.openmicroscopy.org/Schemas/OME/2016-06).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from napari_volseg.data.contents import Contents, notes_from_text, notes_to_text
from napari_volseg.data.errors import InputError
from napari_volseg.data.units import convert_length, normalize_unit

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_volseg.data.annotation import LabelClass

NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
NOTES = "napari-volseg"
_EMPTY = (
    f'<OME xmlns="{NAMESPACE}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    f'xsi:schemaLocation="{NAMESPACE} {NAMESPACE}/ome.xsd" Creator="napari-volseg">'
    '<Image ID="Image:0"><Pixels ID="Pixels:0"/></Image></OME>'
)
# The abbreviations that the schema allows; its default is the micrometer.
_SYMBOLS = {
    "kilometer": "km",
    "meter": "m",
    "decimeter": "dm",
    "centimeter": "cm",
    "millimeter": "mm",
    "micrometer": "µm",
    "nanometer": "nm",
    "angstrom": "Å",
    "picometer": "pm",
    "foot": "ft",
    "inch": "in",
}
_TYPES = {"float32": "float", "float64": "double"}


@dataclass(frozen=True, eq=False)
class OmeDescription:
    """What OME-XML says that we use.

    Attributes
    ----------
    spacing : (z, y, x), each float or None
        In ``unit``; None where it says nothing, or nothing positive.
    """

    spacing: tuple[float | None, float | None, float | None]
    unit: str
    channel_names: tuple[str, ...]
    classes: tuple[LabelClass, ...]
    affine: NDArray[np.float64] | None


def describe(xml: str, path: Path) -> OmeDescription:
    """Read the OME-XML of a file.

    Raises
    ------
    InputError
        If it holds several images.
    xml.etree.ElementTree.ParseError
        If it is no XML.
    """
    root, namespace = _parse(xml)
    images = root.findall(f"{namespace}Image")
    if len(images) != 1:
        raise InputError(
            f"{path}: describes {len(images)} images; save the one you want in a file of its own"
        )
    pixels = _only(images[0], f"{namespace}Pixels")
    spacing, unit = _spacing(pixels)
    names = [c.get("Name", "") for c in pixels.findall(f"{namespace}Channel")]
    classes, affine = notes_from_text(_notes_text(root))
    return OmeDescription(spacing, unit, tuple(names) if all(names) else (), classes, affine)


def document(contents: Contents) -> str:
    """Return the OME-XML for a file with these contents, channel fastest, then z.

    Starts from the OME-XML of the source, if it had any: instrument, objective,
    positions and annotations stay, and so do the sizes of a voxel, to the letter.
    """
    root, namespace = _parse(contents.source.get("ome_xml", _EMPTY))
    _strip(root, namespace)
    root.attrib.pop("UUID", None)  # it identified the source file
    pixels = _only(_only(root, "Image"), "Pixels")
    _set_layout(pixels, contents)
    if _spacing(pixels) != (contents.spacing, contents.unit):
        symbol = _SYMBOLS.get(contents.unit, "pixel")
        for axis, value in zip("ZYX", contents.spacing, strict=True):
            pixels.set(f"PhysicalSize{axis}", repr(float(value)))
            pixels.set(f"PhysicalSize{axis}Unit", symbol)
    _set_channels(pixels, contents)
    for plane in pixels.findall("Plane"):
        if int(plane.get("TheC", 0)) >= contents.channels or int(plane.get("TheT", 0)) > 0:
            pixels.remove(plane)
    _set_notes(root, notes_to_text(contents.classes, contents.affine))
    return '<?xml version="1.0" encoding="UTF-8"?>' + ElementTree.tostring(root, encoding="unicode")


def _parse(xml: str) -> tuple[ElementTree.Element, str]:
    root = ElementTree.fromstring(xml)
    namespace = root.tag.removesuffix("OME")
    return root, namespace


def _only(element: ElementTree.Element, tag: str) -> ElementTree.Element:
    child = element.find(tag)
    if child is None:
        raise ValueError(f"OME-XML without {tag}")
    return child


def _strip(root: ElementTree.Element, namespace: str) -> None:
    """Make the OME namespace the default one, so that it is written without a prefix."""
    for element in root.iter():
        element.tag = element.tag.removeprefix(namespace)
    if namespace:
        root.set("xmlns", namespace.strip("{}"))


def _spacing(
    pixels: ElementTree.Element,
) -> tuple[tuple[float | None, float | None, float | None], str]:
    units = {a: normalize_unit(pixels.get(f"PhysicalSize{a}Unit", "µm")) for a in "ZYX"}

    def size(axis: str) -> float | None:
        value = float(pixels.get(f"PhysicalSize{axis}", "nan"))
        return convert_length(value, units[axis], units["X"]) if value > 0 else None

    spacing = (size("Z"), size("Y"), size("X"))
    return spacing, units["X"] if any(spacing) else "pixel"


def _set_layout(pixels: ElementTree.Element, contents: Contents) -> None:
    channels, z, y, x = contents.image.shape
    dtype = str(contents.image.dtype)
    if pixels.get("Type") != _TYPES.get(dtype, dtype):
        pixels.attrib.pop("SignificantBits", None)
    pixels.attrib.pop("Interleaved", None)
    sizes: dict[str, Any] = {"X": x, "Y": y, "Z": z, "C": channels, "T": 1}
    for axis, size in sizes.items():
        pixels.set(f"Size{axis}", str(size))
    pixels.set("DimensionOrder", "XYCZT")
    pixels.set("Type", _TYPES.get(dtype, dtype))
    pixels.set("BigEndian", "false")
    for tag in ("TiffData", "BinData", "MetadataOnly"):
        for element in pixels.findall(tag):
            pixels.remove(element)
    planes = ElementTree.Element("TiffData", IFD="0", PlaneCount=str(channels * z))
    pixels.insert(len(pixels.findall("Channel")), planes)


def _set_channels(pixels: ElementTree.Element, contents: Contents) -> None:
    old = pixels.findall("Channel")
    names = contents.channel_names
    kept = len(old) == contents.channels and not contents.classes
    if kept and (not names or [c.get("Name", "") for c in old] == list(names)):
        return
    for element in old:
        pixels.remove(element)
    for index in range(contents.channels):
        channel = ElementTree.Element("Channel", ID=f"Channel:0:{index}", SamplesPerPixel="1")
        if names:
            channel.set("Name", names[index])
        pixels.insert(index, channel)


def _notes_text(root: ElementTree.Element) -> str:
    for element in root.iter():
        if element.get("Namespace") == NOTES:
            return "".join(element.itertext()).strip()
    return ""


def _set_notes(root: ElementTree.Element, text: str) -> None:
    annotations = root.find("StructuredAnnotations")
    if annotations is None:
        annotations = ElementTree.Element("StructuredAnnotations")
        last_image = max(i for i, element in enumerate(root) if element.tag == "Image")
        root.insert(last_image + 1, annotations)
    for element in list(annotations):
        if element.get("Namespace") == NOTES:
            annotations.remove(element)
    if text:
        identity = {"ID": "Annotation:napari-volseg", "Namespace": NOTES}
        note = ElementTree.SubElement(annotations, "CommentAnnotation", identity)
        ElementTree.SubElement(note, "Value").text = text
    if not len(annotations):
        root.remove(annotations)
