#!/usr/bin/env bash
# Installs what is missing, builds with the sanitizers, runs every test, and beside them what a newcomer would: a Release build, the package, the commands of
# README.md; then the demos for a few seconds each.
#   scripts/test.sh            everything (under 10 minutes on 2 cores)
#   scripts/test.sh -L unit    only the tests with this label: unit, component, process, chaos (further arguments go to ctest)
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/deps.sh build run test browser load cluster

build=build-test
jobs=$(nproc)
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DDOORBUSTER_SANITIZE=ON -DDOORBUSTER_FAILPOINTS=ON \
    >"$build.configure.log" 2>&1 ||
    { cat "$build.configure.log"; exit 1; }
rm -f "$build.configure.log"
cmake --build "$build" --parallel "$jobs"

failed=$build/failed # a line for each step: some run in a process of their own
failed_tests=$build/Testing/Temporary/LastTestsFailed.log
: >"$failed"
rm -f "$failed_tests" # ctest leaves what the last run wrote
step() { # NAME COMMAND...: says what runs, goes on if it fails, and remembers it
    local began=$SECONDS
    echo "== $1"
    "${@:2}" || echo "$1" >>"$failed"
    echo "   ($((SECONDS - began)) s)"
}

tests() { # Most tests wait more than they work.
    (cd "$build" && ctest --parallel $((3 * jobs)) --output-on-failure --no-tests=error --timeout 300 "$@")
}

# All of it, as a newcomer would; it gives way to the tests.
release_build() {
    local log=$build/release.log generator=()
    [ -e build/CMakeCache.txt ] || generator=(-G Ninja) # a build folder keeps the generator that it was made with
    { nice cmake -S . -B build "${generator[@]}" -DCMAKE_BUILD_TYPE=Release && nice cmake --build build --parallel "$jobs"; } >"$log" 2>&1 ||
        { cat "$log"; return 1; }
}

# What looks at no times goes on beside the tests, and is shown after them.
beside_the_tests() {
    step "the Release build" release_build
    step "the Debian package" scripts/try_package.sh
    step "the commands of README.md" scripts/try_readme.sh
}
beside=
end_beside() { # a group of its own, so that nothing of it is left behind
    [ -z "$beside" ] || kill -TERM -- "-$beside" 2>/dev/null || true
}
trap end_beside EXIT

compose() {
    docker-compose config --quiet && docker-compose --profile redlock config --quiet && docker-compose --profile monitoring config --quiet &&
        docker-compose --profile cluster config --quiet &&
        LISTEN=127.0.0.1:8080 SERVER_A=127.0.0.1:8081 SERVER_B=127.0.0.1:8082 /usr/sbin/haproxy -c -q -f cluster/haproxy.cfg &&
        echo "docker-compose.yml and cluster/haproxy.cfg are accepted"
}

# A failpoint is a string of its own in a program: a page that has the same letters within its text is none.
failpoints_in() {
    grep -azFxf "$build/failpoints" "$1" | tr '\0' '\n' | sort -u
}

failpoints() {
    "$build/bin/server" --failpoints | sort -u >"$build/failpoints"
    failpoints_in "$build/bin/server" | diff "$build/failpoints" - || { echo "they are not found where they are"; return 1; }
    [ -x build/bin/server ] || { echo "there is no build/bin/server"; return 1; }
    [ -z "$(failpoints_in build/bin/server)" ] || { echo "build/bin/server has:"; failpoints_in build/bin/server; return 1; }
    echo "$(wc -l <"$build/failpoints") in the build for tests, none in build/bin/server"
}

if [ $# -eq 0 ]; then
    set -m
    beside_the_tests >"$build/beside.log" 2>&1 </dev/null &
    beside=$!
    set +m
fi
step "tests" tests "$@"
if [ $# -eq 0 ]; then
    wait "$beside" || true
    beside=
    cat "$build/beside.log"
    step "docker-compose.yml" compose
    step "the demo, shortened" scripts/demo.sh -t 15s --report "$build/report.html"
    step "the demo of V2" scripts/demo.sh -t 10s --scenario v2_multi --report "$build/report-v2.html"
    step "the demo of V3" scripts/demo.sh -t 15s --scenario v3_redlock --report "$build/report-v3.html"
    step "the demo of two servers, one killed" \
        scripts/demo.sh -t 20s --store postgres --users 150 --rate 15 --kill --report "$build/report-v5.html"
    step "no failpoint in the release build" failpoints
fi

if [ -s "$failed" ]; then
    sed 's/^/== FAILED: /' "$failed"
    # What is printed last is read first.
    [ ! -s "$failed_tests" ] || { echo "   tests that failed:"; sed 's/^/   /' "$failed_tests"; }
    exit 1
fi
echo "== All passed, in $SECONDS s."
