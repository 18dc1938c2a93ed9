#!/usr/bin/env bash
# Make an environment, or bring it up to date, and install the package into it in a way that follows the source.
#
#   tools/make_venv.sh PYTHON EXTRAS FOLDER [VENV]
#
# VENV is the environment's folder, .venv if it is left out. The stamp VENV/.complete is written last and holds FOLDER,
# the folder of the project as make calls it. Without the stamp an earlier call was interrupted, and with another folder
# in it the environment was copied or moved and its scripts would run the other folder's code: both start over.
set -euo pipefail

python=$1
extras=$2
folder=$3
venv=${4:-.venv}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
stamp=$venv/.complete

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# On Windows the programs of an environment lie in another folder.
venv_python() {
    if [[ -d $venv/Scripts ]]; then echo "$venv/Scripts/python"; else echo "$venv/bin/python"; fi
}

find_python() {
    local candidates=("$python")
    # Somebody who names a Python means that one.
    if [[ $python == python3 ]]; then
        candidates+=(python3.13 python3.12 python3.11 python)
    fi
    local candidate
    for candidate in "${candidates[@]}"; do
        if new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11 or newer is needed. $python is $("$python" --version 2>&1 || echo "not there")." >&2
    echo "Install a newer Python, or name one: make setup PYTHON=/path/to/python3.11" >&2
    return 1
}

make_venv() {
    local base version
    base=$(find_python)
    version=$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    # Debian and Ubuntu keep the part of Python that makes environments in a package of its own.
    if "$base" -c 'import ensurepip' 2>/dev/null; then
        tools/system_libraries.sh
    else
        tools/system_libraries.sh "python$version-venv"
    fi
    echo "Making $venv with Python $version"
    rm -f "$stamp"
    "$base" -m venv --clear "$venv"
}

if [[ -f $stamp && $(<"$stamp") == "$folder" ]] && new_enough "$(venv_python)"; then
    echo "Bringing $venv up to date"
    rm -f "$stamp"
else
    make_venv
fi

"$(venv_python)" tools/install.py "$extras"

echo "$folder" >"$stamp"
