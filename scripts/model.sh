#!/usr/bin/env bash
# Plays random sequences of everything that a sale can be asked for, on a real Redis and store, against a simple model of a sale, and compares
# the two after each step: tests/model/model_main.c and model.h say how.
#
#   scripts/model.sh                            3000 sequences, about 12 minutes on 2 busy cores
#   scripts/model.sh --sequences N --seed S     sequence i has the seed S + i; a seed gives the same steps on every machine
#   scripts/model.sh --steps N                  so long (40 is usual)
#   scripts/model.sh --replay FILE…             what was printed by a failure, or tests/model/regressions/*.steps
#   scripts/model.sh --self-test                falsifies the model in each of its ways: would it be noticed?
#
# Builds into build-test with the flags of scripts/test.sh. DOORBUSTER_BIN=DIR uses the program in DIR and builds nothing.
# Exits 0 only if nothing differed; a sequence that failed is printed, shrunk, to be put into tests/model/regressions/.
set -euo pipefail
cd "$(dirname "$0")/.."

build=build-test
bin=${DOORBUSTER_BIN:-$PWD/$build/bin}

build() {
    local log=$build.model.log
    scripts/deps.sh build run test
    if ! { cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DDOORBUSTER_SANITIZE=ON \
        -DDOORBUSTER_FAILPOINTS=ON &&
        cmake --build "$build" --parallel "$(nproc)" --target model; } >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        echo "model: the build does not go through" >&2
        exit 2
    fi
    rm -f "$log"
}

[[ -n ${DOORBUSTER_BIN:-} ]] || build
export ASAN_OPTIONS=${ASAN_OPTIONS:-abort_on_error=1:detect_leaks=1}
[[ $* == *--sequences* || $* == *--replay* || $* == *--self-test* ]] || set -- --sequences 3000 "$@"
exec "$bin/model" "$@"
