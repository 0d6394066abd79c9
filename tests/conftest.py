from __future__ import annotations

import os
import tempfile

import pytest
from hypothesis import HealthCheck, settings

# Journals, settings and caches of a test run must not mix with the user's own; set before
# anything is imported that remembers these folders.
_HOME = tempfile.TemporaryDirectory(prefix="volseg-tests-")
for _name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
    os.environ[_name] = os.path.join(_HOME.name, _name.lower())

# A busy machine must not fail a test, and a failure must come again.
settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("suite")


LONGEST = "test_whole_job", "test_main_job"


def pytest_collection_modifyitems(items):
    """Begin with what takes longest: no worker is to be at it alone in the end."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture
def run(capsys):
    """Run a command line; return exit code, stdout and stderr."""

    from napari_volseg.cli import main

    def run_it(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    return run_it


@pytest.fixture
def refused(run):
    """Run a command line that must be refused in one line; return that line."""

    def refuse_it(*arguments):
        code, out, err = run(*arguments)
        assert code == 2
        assert out == ""
        assert err.count("\n") == 1, err
        assert "Traceback" not in err
        return err

    return refuse_it
