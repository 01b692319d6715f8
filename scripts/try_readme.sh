#!/usr/bin/env bash
# Runs the commands of README.md's "Your own sale" as they stand there (on a free port and in a temporary folder), and looks at what they
# print; and makes sure that README.ko.md has the same commands. What the README says must work.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
server_pid=
stop_server() {
    if [ -n "$server_pid" ]; then
        kill -TERM "$server_pid" 2>/dev/null || true
        wait "$server_pid" 2>/dev/null || true
    fi
    server_pid=
}
clean_up() {
    stop_server
    rm -rf "$work"
}
trap clean_up EXIT

fail() {
    echo "try_readme: $*" >&2
    exit 1
}

# blocks FILE: all shell commands of a README, in order.
blocks() {
    awk '/^```sh$/ { inside = 1; next } /^```$/ { inside = 0 } inside' "$1" | sed 's/ *#.*//'
}

# section N: the N-th shell block of README.md, with our port and folder.
section() {
    awk -v wanted="$1" '/^```sh$/ { inside = 1; n++; next } /^```$/ { inside = 0 } inside && n == wanted' README.md |
        sed "s#127\.0\.0\.1:808[01]#127.0.0.1:$port#g; s#\./data#$work/data#g"
}

expect() { # FILE TEXT
    grep -qF -- "$2" "$1" || { cat "$1" >&2; fail "the output above lacks: $2"; }
}

# The server of the N-th block, on any free port. Sets server_pid and port.
start_server() {
    port=0
    : >"$work/server.log"
    $(section "$1" | grep bin/server) 2>"$work/server.log" &
    server_pid=$!
    for _ in $(seq 150); do
        grep -q 'ready on' "$work/server.log" && break
        kill -0 "$server_pid" 2>/dev/null || break
        sleep 0.1
    done
    expect "$work/server.log" "ready on http://127.0.0.1:"
    port=$(sed -n 's/.*ready on http:\/\/127\.0\.0\.1:\([0-9]*\).*/\1/p' "$work/server.log")
}

diff <(blocks README.md) <(blocks README.ko.md) >&2 || fail "README.ko.md has other commands than README.md"

# The second block builds and starts the server, in the foreground.
port=0
bash -euo pipefail -c "$(section 2 | grep -v bin/server)" >"$work/build.log" 2>&1 || { cat "$work/build.log" >&2; fail "the build failed"; }
start_server 2

bash -euo pipefail -c "$(section 3)" >"$work/tools.log" || { cat "$work/tools.log" >&2; fail "setup or verify failed"; }
expect "$work/tools.log" "Black Friday Limited Edition"
expect "$work/tools.log" "every book equal"
expect "$work/tools.log" "rows of the audit log; checked"
expect "$work/tools.log" "restored  $work/data-restored/doorbuster.db"
bash -euo pipefail -c "$(section 4; section 5)" >"$work/calls.log"
expect "$work/calls.log" '"username":"kim"'
expect "$work/calls.log" '"remaining_stock":99'
expect "$work/calls.log" '"synced":true'
expect "$work/calls.log" '"items":[{"product_id":4,"quantity":2,'
expect "$work/calls.log" '"cancelled_at":'
expect "$work/calls.log" '"delta":50,"reason":"a pallet was found","stock":150,'
expect "$work/calls.log" '"cause":"restock","delta":50,"from":100,"to":150,'
stop_server
start_server 7 # the sixth and the eighth are demos, which scripts/test.sh runs
for _ in $(seq 100); do # "ready" is said when a majority of the nodes votes; the others follow
    bash -euo pipefail -c "$(section 7 | grep -v bin/server)" >"$work/redlock.log"
    grep -qF '"missing":[]' "$work/redlock.log" && break
    sleep 0.1
done
expect "$work/redlock.log" '"gate":"redlock"'
expect "$work/redlock.log" '"missing":[]'
stop_server
bash -euo pipefail -c "$(section 9)" >"$work/chaos.log" 2>&1 || { cat "$work/chaos.log" >&2; fail "chaos found something"; }
expect "$work/chaos.log" "0 violations"
echo "README.md's commands work."
