#!/usr/bin/env bash
# Builds the Debian package from the Release build in build/ (made or brought up to date first) and prints the file's name.
#
#   scripts/package.sh [FOLDER]      where to put it; default build/package
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:-build/package}
mkdir -p "$out"
out=$(cd "$out" && pwd)
log=$out/package.log

build() {
    local generator=()
    # A build folder keeps the generator that it was made with.
    if [ ! -e build/CMakeCache.txt ] && command -v ninja >/dev/null; then generator=(-G Ninja); fi
    cmake -S . -B build "${generator[@]}" -DCMAKE_BUILD_TYPE=Release
    cmake --build build --parallel "$(nproc)" --target server setup verify
    rm -rf "$out"/_CPack_Packages "$out"/doorbuster_*.deb
    (umask 022 && cpack --config build/CPackConfig.cmake -G DEB -B "$out")
}

build >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
rm -rf "$out/_CPack_Packages"
ls "$out"/doorbuster_*.deb
