from __future__ import annotations

import os
import tempfile

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
