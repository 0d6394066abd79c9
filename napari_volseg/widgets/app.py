"""The window as the command line opens it: napari with the dock, and something to work on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import napari
from napari.layers import Layer

from napari_volseg.data.phantom import kidney_phantom
from napari_volseg.data.samples import annotate_slices
from napari_volseg.widgets.contributions import image_layers, labels_layer, read_layers
from napari_volseg.widgets.dock import TRAIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from napari_volseg.widgets.contributions import LayerTuple
    from napari_volseg.widgets.dock import VolSegDock

PLUGIN = "napari-volseg"
DEMO_SHAPE = (48, 160, 160)
DEMO_SLICES = (3, 3, 2)


def open_window(layers: Iterable[LayerTuple] = ()) -> tuple[napari.Viewer, VolSegDock]:
    """Open napari with the dock and these layers; the event loop is the caller's."""
    viewer = napari.Viewer()
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN)
    for layer in layers:
        viewer.add_layer(Layer.create(*layer))
    return viewer, dock


def launch(files: Sequence[Path] = ()) -> None:
    """Open the window on files, and stay until it is closed.

    Raises
    ------
    InputError
        If a file cannot be read; no window is opened then.
    """
    layers = [layer for file in files for layer in read_layers(str(file))]
    open_window(layers)
    napari.run()


def launch_demo() -> None:
    """Open the window on a phantom with annotated slices, ready to train."""
    volume, truth = kidney_phantom(DEMO_SHAPE)
    annotation = annotate_slices(truth, DEMO_SLICES)
    annotated = labels_layer(annotation, volume, f"{volume.name} annotation")
    _, dock = open_window([*image_layers(volume), annotated])
    dock.go_to(TRAIN)
    napari.run()
