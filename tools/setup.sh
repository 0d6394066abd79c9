#!/usr/bin/env bash
# Makes a clone ready to run: virtual environment, packages, and the system libraries that
# Qt, OpenGL and a virtual screen need. Does nothing that is done already. Honors $PYTHON.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly venv=.venv
readonly stamp=$venv/.set-up

# What Qt 6 and OpenGL load at run time, and the Debian package of each.
readonly libraries="
libEGL.so.1 libegl1
libGL.so.1 libgl1
libxkbcommon-x11.so.0 libxkbcommon-x11-0
libxcb-cursor.so.0 libxcb-cursor0
libxcb-icccm.so.4 libxcb-icccm4
libxcb-image.so.0 libxcb-image0
libxcb-keysyms.so.1 libxcb-keysyms1
libxcb-randr.so.0 libxcb-randr0
libxcb-render-util.so.0 libxcb-render-util0
libxcb-shape.so.0 libxcb-shape0
libxcb-xinerama.so.0 libxcb-xinerama0
libxcb-xkb.so.1 libxcb-xkb1
libdbus-1.so.3 libdbus-1-3
libfontconfig.so.1 libfontconfig1
libglib-2.0.so.0 libglib2.0-0
"

fail() {
    echo "setup: $*" >&2
    exit 1
}

missing_packages() {
    local cache soname package
    cache=$(/sbin/ldconfig -p)
    while read -r soname package; do
        [ -z "$soname" ] || grep -qF "$soname " <<<"$cache" || echo "$package"
    done <<<"$libraries"
    # Software OpenGL: loaded by its path, so not in the linker's cache.
    dpkg -s libgl1-mesa-dri &>/dev/null || compgen -G "/usr/lib*/dri/swrast_dri.so" >/dev/null ||
        echo libgl1-mesa-dri
    if [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
        command -v Xvfb >/dev/null || echo xvfb
        command -v xauth >/dev/null || echo xauth
    fi
    "$python" -c "import ensurepip, venv" 2>/dev/null || [ -x "$venv/bin/pip" ] ||
        echo "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
}

install_packages() {
    [ $# -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        fail "not found, and no apt-get to install them: the equivalents of $*; install them with your system's package manager"
    local root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "as root, run: apt-get install $*"
        root=(sudo)
    fi
    echo "setup: installing $*"
    "${root[@]}" apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

install_python_packages() {
    if [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt constraints.txt ]; then
        return 0
    fi
    [ -x "$venv/bin/pip" ] || "$python" -m venv "$venv"
    echo "setup: installing Python packages into $venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check \
        --constraint constraints.txt --editable ".[all,test]"
    touch "$stamp"
}

python=${PYTHON:-python3}
command -v "$python" >/dev/null || fail "no $python; install Python 3.11 or newer"
"$python" -c "import sys; sys.exit(sys.version_info < (3, 11))" ||
    fail "$("$python" --version) is too old; set PYTHON to a Python 3.11 or newer"
if [ "$(uname -s)" = Linux ]; then
    missing=$(missing_packages)
    # shellcheck disable=SC2086  # one word for each package
    install_packages $missing
fi
install_python_packages
