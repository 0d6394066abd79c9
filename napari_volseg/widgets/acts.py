"""What the user does to an annotation, under a name for the undo of it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari.utils.notifications import show_info, show_warning

from napari_volseg.data.errors import InputError
from napari_volseg.widgets.layers import note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari.layers import Labels


@contextmanager
def acting(layer: Labels, name: str) -> Iterator[None]:
    """Give what is done to a layer meanwhile a name, for the undo of it."""
    note(layer, act=name)
    try:
        yield
    finally:
        note(layer, act="")


def act_on(layer: Labels, name: str, change: Callable[[], int], unchanged: str) -> None:
    """Change labels as an act of that name, or tell the user why not.

    Parameters
    ----------
    change : callable () -> int
        Does it, and returns how many voxels it changed.
    unchanged : str
        What to say if there were none.
    """
    try:
        with acting(layer, name):
            changed = change()
    except InputError as error:
        show_warning(str(error))
        return
    if not changed:
        show_info(unchanged)
