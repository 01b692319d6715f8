#!/usr/bin/env bash
# Looks for data races: runs tests with the thread sanitizer (preset `tsan`).
#
#   scripts/tsan.sh                 the tests in which threads meet: work pool, desks, log, breakers, looking up hosts, whole servers (minutes)
#   scripts/tsan.sh -L component    or whatever else ctest takes
#
# A race fails its test, or the server that had it; it is printed at the end. What several processes share, metrics and the board, this sanitizer does not
# see. Tests that measure time may fail without a race: everything is five to fifteen times slower.
set -euo pipefail
cd "$(dirname "$0")/.."

build=build-tsan
reports=$PWD/$build/races
with_threads='^test_(work_pool|log|password|failpoint|selling_jobs|books|redis_found|sale|sale_redlock|carts|answers|idempotency|readiness|figures)$'

scripts/deps.sh build run test
cmake --preset tsan >"$build.log" 2>&1 && cmake --build --preset tsan --parallel "$(nproc)" >>"$build.log" 2>&1 || {
    tail -n 30 "$build.log" >&2
    echo "tsan: the build does not go through" >&2
    exit 2
}
rm -rf "$build.log" "$reports"
mkdir "$reports"
[[ $# -gt 0 ]] || set -- -R "$with_threads"
export TSAN_OPTIONS="log_path=$reports/race second_deadlock_stack=1 ${TSAN_OPTIONS:-}"
failed=0
(cd "$build" && ctest --parallel "$(nproc)" --output-on-failure --no-tests=error --timeout 600 "$@") || failed=1
if compgen -G "$reports/*" >/dev/null; then
    cat "$reports"/*
    echo "tsan: races, see above; the reports are in $build/races/" >&2
    exit 1
fi
echo "tsan: no race"
exit $failed
