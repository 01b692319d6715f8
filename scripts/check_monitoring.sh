#!/usr/bin/env bash
# Checks what is in monitoring/: Prometheus' configuration and rules (promtool), a firing and a silent case of each alert (promtool test rules), the
# Grafana dashboard, and that every metric they ask for is one that a running server shows, at either gate.
#
#   scripts/check_monitoring.sh      DOORBUSTER_BIN=DIR: the programs in DIR, default build/bin
#
# Grafana itself is not started: that its dashboard looks as it should is not checked, only that it can be read and asks for what there is.
set -euo pipefail

ROOT=$(cd "$(dirname "$0")/.." && pwd)
BIN=${DOORBUSTER_BIN:-$ROOT/build/bin}
READY_SECONDS_MAX=30
SHOWN_SECONDS_MAX=10 # a server has just started: some figures come with its first look at the books
work=
pids=()

fail() {
  printf 'check_monitoring: %s\n' "$*" >&2
  exit 1
}

clean_up() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait || true
  rm -rf -- "$work"
}

start_server() { # GATE
  local port
  port=$(/usr/bin/python3 -B -c 'import sys; sys.path.insert(0, sys.argv[1]); import processes; print(processes.free_port())' "$ROOT/load_tests/bench")
  "$BIN/server" --listen "127.0.0.1:$port" --data "$work/$1" --gate "$1" --workers 1 >"$work/$1.log" 2>&1 </dev/null &
  pids+=($!)
  ports[$1]=$port
}

wait_until_ready() { # GATE
  local deadline=$((SECONDS + READY_SECONDS_MAX))
  until grep -q "ready on " "$work/$1.log"; do
    ((SECONDS < deadline)) || fail "the server with the gate $1 was not ready within $READY_SECONDS_MAX s: $(tail -n 3 "$work/$1.log")"
    sleep 0.1
  done
}

main() {
  local gate deadline
  promtool check config "$ROOT/monitoring/prometheus.yml"
  promtool test rules "$ROOT/monitoring/tests/rules_test.yml"
  work=$(mktemp -d "${TMPDIR:-/tmp}/doorbuster-monitoring.XXXXXX")
  trap clean_up EXIT
  declare -A ports
  for gate in lua redlock; do start_server "$gate"; done
  for gate in lua redlock; do wait_until_ready "$gate"; done
  deadline=$((SECONDS + SHOWN_SECONDS_MAX))
  while true; do
    for gate in lua redlock; do curl -fsS --max-time 5 "http://127.0.0.1:${ports[$gate]}/metrics" >"$work/$gate.txt"; done
    if "$ROOT/monitoring/check.py" "$work"/*.txt >"$work/said"; then break; fi
    ((SECONDS < deadline)) || fail "$(cat "$work/said")"
    sleep 0.3
  done
  cat "$work/said"
}

main "$@"
