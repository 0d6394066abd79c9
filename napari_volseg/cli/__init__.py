"""The command line: the same functions as the window's, without it."""

from napari_volseg.cli.app import main

__all__ = ["main"]
