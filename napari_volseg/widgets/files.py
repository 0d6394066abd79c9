"""Asking where to save: the dialogs, and the folder they open in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils.notifications import show_info
from qtpy.QtWidgets import QFileDialog, QWidget

if TYPE_CHECKING:
    from napari_volseg.widgets.settings import Memory

LABEL_SUFFIXES = {
    ".ome.tif": "OME-TIFF",
    ".nii.gz": "NIfTI",
    ".zarr": "OME-Zarr",
    ".npy": "NumPy",
}
LONGEST_STEM = 60
"""Characters; some take four bytes, and 255 bytes is the longest name that systems take."""

LABEL_FILES = "Labels (*.tif *.tiff *.nii *.nii.gz *.npy)"
SURFACE_SUFFIXES = {".stl": "STL", ".obj": "Wavefront OBJ", ".ply": "PLY"}
MODEL_SUFFIXES = {".volseg": "VolSeg model"}


def ask_where_to_save(
    parent: QWidget, memory: Memory, title: str, stem: str, suffixes: dict[str, str]
) -> Path | None:
    """Ask for a file to write; None if the user thinks better of it.

    A name without a known suffix gets that of the chosen format.

    Parameters
    ----------
    stem : str
        What to call it; what file systems do not take is left out.
    """
    filters = {f"{words} (*{suffix})": suffix for suffix, words in suffixes.items()}
    preferred = memory.get("format", "")
    chosen = next((f for f, suffix in filters.items() if suffix == preferred), next(iter(filters)))
    start = Path(memory.get("folder", "")) / f"{file_stem(stem)}{filters[chosen]}"
    name, picked = QFileDialog.getSaveFileName(
        parent, title, str(start), ";;".join(filters), chosen
    )
    if not name:
        return None
    suffix = next((s for s in suffixes if name.endswith(s)), "")
    if not suffix:
        suffix = filters.get(picked, filters[chosen])
        name += suffix
    memory.set("folder", str(Path(name).parent))
    if suffix in LABEL_SUFFIXES:
        memory.set("format", suffix)
    return Path(name)


def file_stem(name: str) -> str:
    """Return a name as part of a file's name on any system."""
    kept = "".join(c if c.isprintable() and c not in '<>:"/\\|?*' else "_" for c in name)
    kept = kept.strip(" .") or "volume"
    # The end says what it is of the volume.
    return kept if len(kept) <= LONGEST_STEM else kept[: LONGEST_STEM - 20] + kept[-20:]


def ask_what_to_open(
    parent: QWidget, memory: Memory, title: str, suffixes: dict[str, str]
) -> Path | None:
    """Ask for a file to read; None if the user thinks better of it."""
    filters = ";;".join(f"{words} (*{suffix})" for suffix, words in suffixes.items())
    name, _ = QFileDialog.getOpenFileName(parent, title, memory.get("folder", ""), filters)
    if not name:
        return None
    memory.set("folder", str(Path(name).parent))
    return Path(name)


def ask_for_labels(parent: QWidget, memory: Memory, *, folder: bool) -> Path | None:
    """Ask for a file of labels, or for an OME-Zarr folder; None if the user thinks better of it."""
    title, start = "Import labels", memory.get("folder", "")
    if folder:
        name = QFileDialog.getExistingDirectory(parent, title, start)
    else:
        name, _ = QFileDialog.getOpenFileName(parent, title, start, LABEL_FILES)
    if not name:
        return None
    memory.set("folder", str(Path(name).parent))
    return Path(name)


def say_saved(path: Path) -> None:
    """Tell the user that a file is written."""
    show_info(f"{path.name} is saved in {path.parent}")
