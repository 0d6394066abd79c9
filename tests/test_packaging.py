from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from napari_volseg.cli import main

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Asks npe2 for our manifest as napari does.
DISCOVER = """
import json, sys
from npe2 import PluginManager
manager = PluginManager()
manager.discover()
manifest = manager.get_manifest("napari-volseg")
import napari_volseg
print(json.dumps({
    "file": napari_volseg.__file__,
    "version": manifest.package_version,
    "widgets": [w.display_name for w in manifest.contributions.widgets],
    "readers": len(manifest.contributions.readers),
    "writers": len(manifest.contributions.writers),
    "samples": len(manifest.contributions.sample_data),
}))
"""


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Imports all that it names, and with it napari and torch.
VALIDATE = "manifest.validate_imports()"


def discover(cwd, setting="", more=""):
    code = setting + DISCOVER + more
    return json.loads(run(sys.executable, "-c", code, cwd=cwd).splitlines()[-1])


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder with a wheel and a source distribution of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", str(folder), cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def installed_wheel(built, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    (wheel,) = built.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", "--target", str(folder), str(wheel), cwd=folder)
    return folder


def assert_complete(found):
    assert found["widgets"]
    assert found["readers"]
    assert found["writers"]
    assert found["samples"]


def test_npe2_finds_the_manifest_of_an_editable_install(tmp_path):
    found = discover(tmp_path)
    assert Path(found["file"]).parent == ROOT / "napari_volseg"
    assert_complete(found)


def test_npe2_finds_the_manifest_of_a_wheel(installed_wheel, tmp_path):
    setting = f"import sys; sys.path.insert(0, {str(installed_wheel)!r}); "
    found = discover(tmp_path, setting, VALIDATE)
    assert Path(found["file"]).parent == installed_wheel / "napari_volseg"
    assert_complete(found)


def test_the_wheel_brings_the_version_the_types_and_the_command(built):
    import napari_volseg

    (wheel,) = built.glob("*.whl")
    assert wheel.name.startswith(f"napari_volseg-{napari_volseg.__version__}-")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        points = archive.read(next(n for n in names if n.endswith("entry_points.txt"))).decode()
    assert {"napari_volseg/napari.yaml", "napari_volseg/py.typed"} <= set(names)
    assert "napari_volseg/sparse/learned_filters.safetensors" in names
    assert all(name.startswith("napari_volseg") for name in names)
    assert "napari-volseg = napari_volseg.cli:main" in points


def test_the_source_distribution_holds_both_manifests_and_what_the_makefile_needs(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"napari.yaml", "napari_volseg/napari.yaml", "LICENSE", "constraints.txt"} <= names
    assert {"Makefile", "tools/setup.sh", "tests/test_packaging.py"} <= names


def test_the_manifest_at_the_top_is_the_one_in_the_package():
    top = ROOT / "napari.yaml"
    assert top.read_text() == (ROOT / "napari_volseg" / "napari.yaml").read_text()


def test_no_qt_binding_and_no_bound_on_napari_in_the_base_dependencies():
    requirements = {r.name.lower(): r for r in map(Requirement, PROJECT["dependencies"])}
    assert not {"pyqt5", "pyqt6", "pyside2", "pyside6"} & set(requirements)
    napari = requirements["napari"]
    assert not napari.extras
    assert {s.operator for s in napari.specifier} == {">="}


def test_constraints_pin_every_dependency():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all([s.operator for s in pin.specifier] == ["=="] for pin in pins)
    known = {pin.name.lower().replace("_", "-") for pin in pins}
    direct = [*PROJECT["dependencies"]]
    for extra in PROJECT["optional-dependencies"].values():
        direct += extra
    wanted = {Requirement(r).name.lower().replace("_", "-") for r in direct}
    assert wanted <= known
    assert "torch==2.13.0" in lines


def test_the_installed_command_is_ours():
    (command,) = distribution("napari-volseg").entry_points.select(group="console_scripts")
    assert command.load() is main
