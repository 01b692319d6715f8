#!/usr/bin/env bash
# Looks for inputs that break what reads bytes from outside: clang's libFuzzer on the targets in tests/fuzz/ (fuzz.h says what they are).
#
#   scripts/fuzz.sh                   every target for a minute
#   scripts/fuzz.sh SECONDS TARGET…   these, each for so long
#   scripts/fuzz.sh --list
#
# Builds preset `fuzz`. Begins with tests/fuzz/corpus/TARGET/ and what earlier runs have learned, in build-fuzz/learned/TARGET/. An input that broke
# something is printed and kept in build-fuzz/found/TARGET/; mend it, and put it under a name that says what it is into tests/fuzz/corpus/TARGET/, where the
# test `fuzz_corpus` runs it for ever. Exits 0 only if nothing was found.
set -euo pipefail
cd "$(dirname "$0")/.."

build=build-fuzz
targets=(tests/fuzz/corpus/*)
targets=("${targets[@]##*/}")

build() {
    local log=$build.log
    scripts/deps.sh build run test fuzz
    if ! { cmake --preset fuzz && cmake --build --preset fuzz --parallel "$(nproc)"; } >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        echo "fuzz: the build does not go through" >&2
        exit 2
    fi
    rm -f "$log"
}

# Prints the last figures, or the fault and its input.
fuzz() { # SECONDS TARGET
    local found=$build/found/$2 learned=$build/learned/$2 log=$build/$2.log
    mkdir -p "$found" "$learned"
    if "$build/bin/fuzz_$2" -max_total_time="$1" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$found/" \
        "$learned" "tests/fuzz/corpus/$2" >"$log" 2>&1; then
        printf '%-10s nothing found in %s inputs\n' "$2" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
        return
    fi
    echo "== $2: found something; the whole of it is in $log"
    grep -m 3 -E 'doorbuster: bug|runtime error|ERROR: |SUMMARY' "$log" || true
    grep -o 'Test unit written to .*' "$log" || true
    return 1
}

case ${1:-} in
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" && exit ;;
    --list) printf '%s\n' "${targets[@]}" && exit ;;
esac
seconds=${1:-60}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "fuzz: \"$seconds\" is no number of seconds; see --help" >&2; exit 2; }
[[ $# -le 1 ]] || targets=("${@:2}")
build
failed=0
for target in "${targets[@]}"; do
    fuzz "$seconds" "$target" || failed=1
done
exit $failed
