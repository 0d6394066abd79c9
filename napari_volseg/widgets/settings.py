"""What the window remembers from one session to the next, in napari's plugin settings."""

from __future__ import annotations

from typing import Any

PLUGIN = "napari-volseg"


class Memory:
    """The user's choices, as the manifest's ``configurations`` declare them.

    napari before 0.9 has no plugin settings: choices then last as long as the window.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}
        self._choices: Any = None
        try:
            from napari.settings import get_plugin_settings

            self._choices = get_plugin_settings(PLUGIN).choices
        except (ImportError, KeyError):
            return

    def get(self, name: str, default: Any) -> Any:
        """Return a choice, or the default where none was made."""
        return getattr(self._choices, name, self._kept.get(name, default))

    def set(self, name: str, value: Any) -> None:
        """Remember a choice."""
        if hasattr(self._choices, name):
            setattr(self._choices, name, value)
        else:
            self._kept[name] = value
