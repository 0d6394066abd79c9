"""``python -m napari_volseg`` is ``napari-volseg``."""

from __future__ import annotations

import sys

from napari_volseg.cli import main

sys.exit(main())
