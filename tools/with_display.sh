#!/usr/bin/env bash
# Runs a command on the display there is, or else on a virtual one of a laptop's size.
set -euo pipefail
if [ "$(uname -s)" = Linux ] && [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
    exec xvfb-run -a -s "-screen 0 1366x768x24" "$@"
fi
exec "$@"
