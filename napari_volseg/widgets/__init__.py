"""The window: the only room that imports napari, magicgui, superqt or Qt."""
