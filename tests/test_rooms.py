"""Imports go one way: from data up to the command line and the window, room by room."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import napari_volseg

PACKAGE = Path(napari_volseg.__file__).parent
ROOMS = ("data", "sparse", "models", "inference", "training", "review", "cli", "widgets")
# The entrance: it names what the rooms offer, and imports it on first use.
ENTRANCE = "napari_volseg"
WINDOW_ONLY = (
    "napari",
    "magicgui",
    "superqt",
    "pyqtgraph",
    "qtpy",
    "PyQt5",
    "PyQt6",
    "PySide2",
    "PySide6",
)


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(module):
    """Modules that stand outside the folders make up the command line."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "cli"


def targets(node):
    """Modules of ours that an import statement names."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        names = [name if name in MODULES else node.module for name in names]
    return {name for name in names if name in MODULES}


def imports(module, *, when_loaded):
    """Modules of ours that a module imports: when it is loaded, or whenever."""
    found = set()
    pending = [ast.parse(MODULES[module].read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= targets(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and when_loaded:
            continue
        elif isinstance(node, ast.If) and when_loaded and "TYPE_CHECKING" in ast.dump(node.test):
            pending.extend(node.orelse)
        else:
            pending.extend(ast.iter_child_nodes(node))
    return found - {module}


@pytest.mark.parametrize("module", [m for m in MODULES if m != ENTRANCE])
def test_imports_never_lead_back(module):
    # The command line may open the window, but imports it only then.
    own = room(module)
    found = imports(module, when_loaded=own == "cli") - {ENTRANCE}
    allowed = set(ROOMS[: ROOMS.index(own) + 1]) - ({"cli"} if own == "widgets" else set())
    assert {target for target in found if room(target) not in allowed} == set()


def test_no_module_imports_itself_in_a_circle():
    graph = {m: imports(m, when_loaded=True) - {ENTRANCE} for m in MODULES if m != ENTRANCE}
    assert list(TopologicalSorter(graph).static_order())


def test_everything_but_the_window_works_without_napari_and_qt():
    modules = [m for m in MODULES if room(m) != "widgets" and not m.endswith("__main__")]
    assert len(modules) > len(ROOMS)
    code = f"""
import importlib, sys
for name in {WINDOW_ONLY!r}:
    sys.modules[name] = None  # every import of it now fails
for module in {modules!r}:
    importlib.import_module(module)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_importing_the_package_loads_neither_torch_nor_napari():
    code = """
import sys, napari_volseg
assert not {"torch", "napari", "numpy"} & set(sys.modules)
napari_volseg.TrainingConfig(minutes=1)
assert not {"torch", "napari"} & set(sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", napari_volseg.__all__)
def test_the_package_offers_what_it_names(name):
    value = getattr(napari_volseg, name)
    assert value.__name__ == name
    assert name in dir(napari_volseg)


def test_the_package_offers_nothing_else():
    with pytest.raises(AttributeError, match="no attribute 'segment'"):
        napari_volseg.segment  # noqa: B018
