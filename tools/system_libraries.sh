#!/usr/bin/env bash
# Install the system libraries that PyQt5 and a virtual screen need, where the system is Debian or Ubuntu and we are
# root; otherwise say which command does it, and stop. Other systems bring them along, or get a hint.
#
#   tools/system_libraries.sh [PACKAGE...]     further packages that are wanted as well
set -euo pipefail

wanted=(
    xvfb xauth                      # the virtual screen, and what xvfb-run calls
    libgl1 libgl1-mesa-dri libegl1  # OpenGL in software
    # What the libraries in the PyQt5 wheel link to and do not carry themselves.
    libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxcb-cursor0
    libxkbcommon-x11-0 libdbus-1-3 libfontconfig1 libglib2.0-0 libgssapi-krb5-2
    "$@"
)

# For people who may not install anything: they go on at their own risk.
if [[ ${SYSTEM_LIBRARIES:-} == no || $(uname -s) != Linux ]]; then
    exit 0
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    if ! command -v xvfb-run >/dev/null; then
        echo "Hint: tests on a machine without a display need xvfb-run and software OpenGL (Mesa) of your system." >&2
    fi
    exit 0
fi

# dpkg-query fails when it knows nothing of one of the names, and still lists the others. Since Debian 13 and
# Ubuntu 24.04 some of them end in t64.
installed=$(dpkg-query --show --showformat='${db:Status-Status} ${Package}\n' \
    "${wanted[@]}" "${wanted[@]/%/t64}" 2>/dev/null || true)

is_installed() {
    [[ $'\n'"$installed"$'\n' == *$'\n'"installed $1"$'\n'* ]]
}

missing=()
for package in "${wanted[@]}"; do
    if ! is_installed "$package" && ! is_installed "${package}t64"; then
        missing+=("$package")
    fi
done

if [[ ${#missing[@]} -eq 0 ]]; then
    exit 0
fi

if [[ $(id -u) -ne 0 ]]; then
    cat >&2 <<MESSAGE
System packages are missing. Install them with this command, then call make again:

    sudo apt-get install -y ${missing[*]}

(Where you cannot, add SYSTEM_LIBRARIES=no to the make command: all that needs no Qt window works without them.)
MESSAGE
    exit 1
fi

echo "Installing system packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# A machine that has just started may still hold the lock for its own updates.
apt=(apt-get -o DPkg::Lock::Timeout=300 --yes)
"${apt[@]}" update </dev/null
"${apt[@]}" install --no-install-recommends "${missing[@]}" </dev/null
