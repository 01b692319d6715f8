#!/usr/bin/env bash
# Installs what is missing, builds with the sanitizers, runs every test, then the demo for a few seconds as a newcomer would.
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

failed=0
# Most tests wait more than they work.
(cd "$build" && ctest --parallel $((2 * jobs)) --output-on-failure --no-tests=error --timeout 300 "$@") || failed=1
if [ $# -eq 0 ]; then
    echo "== docker-compose.yml"
    docker-compose config --quiet && docker-compose --profile redlock config --quiet && docker-compose --profile monitoring config --quiet && docker-compose --profile cluster config --quiet &&
        LISTEN=127.0.0.1:8080 SERVER_A=127.0.0.1:8081 SERVER_B=127.0.0.1:8082 /usr/sbin/haproxy -c -q -f cluster/haproxy.cfg && echo "docker-compose.yml and cluster/haproxy.cfg are accepted" || failed=1
    echo "== the demo, shortened"
    scripts/demo.sh -t 15s --report "$build/report.html" || failed=1
    scripts/demo.sh -t 10s --scenario v2_multi --report "$build/report-v2.html" || failed=1
    scripts/demo.sh -t 15s --scenario v3_redlock --report "$build/report-v3.html" || failed=1
    scripts/demo.sh -t 20s --store postgres --users 150 --rate 15 --kill --report "$build/report-v5.html" || failed=1
    echo "== no failpoint in the release build"
    "$build/bin/server" --failpoints >"$build/failpoints"
    found=0
    grep -aFf "$build/failpoints" build/bin/server || found=$?
    [ "$found" -eq 1 ] || failed=1 # 0: it has some; 2: there is no such program
    echo "== the Debian package"
    scripts/try_package.sh || failed=1
    echo "== the commands of README.md"
    scripts/try_readme.sh || failed=1
fi
exit "$failed"
