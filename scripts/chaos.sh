#!/usr/bin/env bash
# Breaks a running sale on purpose, round after round, and audits the store after each: see docs/chaos.md.
#
#   scripts/chaos.sh --rounds 1000 --seed 1     random faults, alone and in pairs; about 1.2 s a round
#   scripts/chaos.sh --fault kill-redis         20 rounds of one fault (NAME+NAME: of two together)
#   scripts/chaos.sh --replay SEED --mode MODE --servers N --fault NAME
#                                               one round again, as its kept folder says
#   scripts/chaos.sh --gate redlock             the Redlock gate only: its nodes, two servers on one store
#   scripts/chaos.sh --several                  two servers: on one file, or on PostgreSQL and a Redis that fails over
#   scripts/chaos.sh --sweep                    every failpoint with every action
#   scripts/chaos.sh --list | --help            the faults, all options
#
# Builds into build-test with the flags of scripts/test.sh. DOORBUSTER_BIN=DIR uses the programs in DIR and builds nothing.
# Exits 0 only if nothing was violated; what a failed round leaves is kept, and named. Ctrl-C ends all that was started.
set -euo pipefail
cd "$(dirname "$0")/.."

build=build-test
bin=${DOORBUSTER_BIN:-$PWD/$build/bin}

build() {
    local log=$build.chaos.log
    scripts/deps.sh build run test cluster
    if ! { cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DDOORBUSTER_SANITIZE=ON \
        -DDOORBUSTER_FAILPOINTS=ON &&
        cmake --build "$build" --parallel "$(nproc)" --target server verify chaos; } >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        echo "chaos: the build does not go through" >&2
        exit 2
    fi
    rm -f "$log"
}

[[ -n ${DOORBUSTER_BIN:-} ]] || build
export DOORBUSTER_BIN=$bin
export ASAN_OPTIONS=${ASAN_OPTIONS:-abort_on_error=1:detect_leaks=1}
exec "$bin/chaos" "$@"
