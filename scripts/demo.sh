#!/usr/bin/env bash
# The Black Friday sale, from nothing to a result table: installs what is missing, builds, starts a server of its own, lets the
# people in, and asks the store what was sold.
#
#   scripts/demo.sh [-t 60s] [--scenario NAME] [--users N] [--rate N] [--report FILE] [--keep]
#
#   -t, --time      how long the people are there: 60s, 2m, 1h            default 60s; v4_soak 10m
#   --scenario      v1_stress: 300 people, hardly waiting, 100 units      default v1_stress
#                   v1_basic:  100 people in no hurry, 100 units
#                   v2_multi:  300 people with carts, ten products, two bundles, a clerk who restocks
#                   v3_redlock: those of v1_stress at the Redlock gate; two of its five lock nodes are killed in mid-sale
#                   v4_baseline, v4_ramp, v4_spike, v4_step, v4_soak: up to 1,000 people in this shape, while an admin restocks and puts
#                              products on sale; in spike and soak Redis and a worker are killed in the middle
#   --users N       how many people; of v4 at most                        default the scenario's
#   --rate N        how many arrive a second; not for v4                  default the scenario's
#   --report FILE   the run as a page with plots goes there, and nothing else is kept; default reports/SCENARIO-TIME/report.html, beside the
#                   figures it was made of (scripts/report.sh makes it again)
#   --keep          keep the data folder and the logs, and say where
#
# Exits 0 only if every target in the table is met. Everything runs on a free port of the loopback address and in a temporary
# folder; nothing is left behind, except, after a failure, the logs. DOORBUSTER_BIN=DIR uses the programs in DIR and builds nothing.
set -euo pipefail

ROOT=$(cd "$(dirname "$0")/.." && pwd)
BIN=${DOORBUSTER_BIN:-$ROOT/build/bin}
# Debian's Locust belongs to Debian's python3, which need not be the first in PATH.
LOCUST=/usr/bin/locust
PYTHON=/usr/bin/python3
READY_SECONDS_MAX=30
STOP_SECONDS_MAX=20
VERIFY_LINES_MAX=20 # of many products, only the checks that do not hold are shown
LOCUST_EXTRA_SECONDS=120 # on top of the run: preflight, the last answers, verify
NODES_TO_KILL=2,4        # of five, so that a majority is left

duration=
scenario=v1_stress
shape= # of v4: baseline, ramp, spike, step, soak
gate=lua
report=
users=
rate=
keep=0
work=
server_pid=
locust_pid=
outage_pid=
watch_pid=

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
refuse() {
  printf 'demo: %s\n' "$*" >&2
  exit 2
}
fail() {
  printf '\ndemo: FAILED: %s\n' "$*" >&2
  exit 1
}

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
}

require_number() { # OPTION VALUE
  [[ $2 =~ ^[1-9][0-9]{0,4}$ ]] || refuse "$1 $2: must be a whole number from 1 to 99999"
}

read_options() {
  while (($#)); do
    case $1 in
      -h | --help) usage && exit 0 ;;
      --keep) keep=1 && shift && continue ;;
      -t | --time | --users | --rate | --scenario | --report) (($# >= 2)) || refuse "$1 needs a value" ;;
      *) refuse "unknown option $1; see scripts/demo.sh --help" ;;
    esac
    case $1 in
      -t | --time) duration=$2 ;;
      --users) require_number "$1" "$2" && users=$2 ;;
      --rate) require_number "$1" "$2" && rate=$2 ;;
      --scenario) scenario=$2 ;;
      --report) report=$2 ;;
    esac
    shift 2
  done
  case $scenario in v4_soak) duration=${duration:-10m} ;; *) duration=${duration:-60s} ;; esac
  [[ $duration =~ ^([1-9][0-9]{0,4})([smh]?)$ ]] || refuse "-t $duration: must be like 60s, 2m or 1h"
  case ${BASH_REMATCH[2]} in
    m) seconds=$((BASH_REMATCH[1] * 60)) ;;
    h) seconds=$((BASH_REMATCH[1] * 3600)) ;;
    *) seconds=${BASH_REMATCH[1]} ;;
  esac
  case $scenario in
    v1_stress) users=${users:-300} rate=${rate:-30} ;;
    v1_basic) users=${users:-100} rate=${rate:-10} ;;
    v2_multi) users=${users:-300} rate=${rate:-30} ;;
    v3_redlock) users=${users:-300} rate=${rate:-30} gate=redlock ;;
    v4_baseline | v4_ramp | v4_spike | v4_step | v4_soak)
      [[ -z $rate ]] || refuse "--rate does not go with $scenario, whose shape says who comes when"
      shape=${scenario#v4_} users=${users:-0}
      ;;
    *) refuse "--scenario $scenario: must be v1_stress, v1_basic, v2_multi, v3_redlock or v4_baseline, _ramp, _spike, _step, _soak" ;;
  esac
}

# --- what was started must end ------------------------------------------------------------------------------------------------

is_alive() { [[ -n $1 ]] && kill -0 "$1" 2>/dev/null; }

# Politely first; a server that is asked to stop finishes its answers and stops its Redis.
stop() { # PID
  local deadline=$((SECONDS + STOP_SECONDS_MAX))
  is_alive "$1" || return 0
  kill -TERM "$1" 2>/dev/null || true
  while is_alive "$1" && ((SECONDS < deadline)); do sleep 0.1; done
  if is_alive "$1"; then kill -KILL "$1" 2>/dev/null || true; fi
  wait "$1" 2>/dev/null || true
}

clean_up() {
  local status=$?
  trap - EXIT
  trap '' INT TERM HUP # a second Ctrl-C must not leave a server behind
  stop "$outage_pid"
  stop "$locust_pid"
  stop "$watch_pid"
  stop "$server_pid"
  if [[ -n $work ]]; then
    if ((keep)); then
      say "Kept: $work (data/ and logs/)"
    elif ((status == 0 || status >= 128)); then
      rm -rf -- "$work"
    else
      rm -rf -- "$work/data"
      say "The logs are kept:"
      find "$work/logs" -type f -size +0 | sort | sed 's/^/  /'
    fi
  fi
  exit "$status"
}

# --- the steps ------------------------------------------------------------------------------------------------------------------

install_missing() {
  local groups=(run load)
  [[ -n ${DOORBUSTER_BIN:-} ]] || groups+=(build)
  "$ROOT/scripts/deps.sh" "${groups[@]}"
}

build() {
  local log=$work/logs/build.log generator=()
  if [[ -n ${DOORBUSTER_BIN:-} ]]; then
    step "Using the programs in $BIN"
    return
  fi
  step "Building (Release, build/)"
  # A build folder keeps the generator that it was made with.
  if [[ ! -e $ROOT/build/CMakeCache.txt ]] && command -v ninja >/dev/null; then generator=(-G Ninja); fi
  if ! { cmake -S "$ROOT" -B "$ROOT/build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release &&
    cmake --build "$ROOT/build" --parallel "$(nproc)" --target server setup verify; } >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    fail "the build does not go through"
  fi
}

free_port() {
  "$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start_server() {
  local log=$work/logs/server.log deadline=$((SECONDS + READY_SECONDS_MAX))
  port=$(free_port)
  step "Starting the server on 127.0.0.1:$port$([[ $gate == lua ]] || printf ', with the gate %s' "$gate")"
  # In a session of its own, so that Ctrl-C reaches this script alone, which then stops things in order.
  DOORBUSTER_RATE_LIMITS=off setsid "$BIN/server" --listen "127.0.0.1:$port" --data "$work/data" --gate "$gate" >"$log" 2>&1 </dev/null &
  server_pid=$!
  until grep -q "ready on " "$log"; do
    if ! is_alive "$server_pid"; then
      tail -n 20 "$log" >&2
      fail "the server has not come up"
    fi
    ((SECONDS < deadline)) || fail "the server was not ready within $READY_SECONDS_MAX s"
    sleep 0.1
  done
  grep -m 1 "ready on " "$log" | sed 's/^/  /'
  "$PYTHON" -B "$ROOT/load_tests/report_page/machine.py" --bin "$BIN" --data "$work/data" --scenario "$scenario" --gate "$gate" \
    --out "$work/run/machine.json"
}

set_up() {
  local setup_scenario=${shape:+v4_production}
  setup_scenario=${setup_scenario:-$scenario}
  step "Setting up $setup_scenario"
  # For setup, which makes the account, and Locust, one of whose people restocks. Good for this run only.
  DOORBUSTER_ADMIN_PASSWORD=$("$PYTHON" -c 'import secrets; print(secrets.token_urlsafe(16))')
  export DOORBUSTER_ADMIN_PASSWORD
  if ! "$BIN/setup" --scenario "$setup_scenario" --data "$work/data" >"$work/logs/setup.log" 2>&1; then
    cat "$work/logs/setup.log" >&2
    fail "setup has failed"
  fi
  sed 's/^/  /' "$work/logs/setup.log"
}

# In the middle of some runs processes are killed; they come back by themselves.
start_outage() {
  local outage
  case $scenario in
    v3_redlock)
      outage=("$ROOT/load_tests/v3_redlock/outage.py" --host "http://127.0.0.1:$port" --after "$((seconds / 2))" --nodes "$NODES_TO_KILL"
        --out "$work/run/outages.json")
      ;;
    # When the first answers come, the shape has begun; the accounts are signed in before that.
    v4_spike | v4_soak)
      until [[ -s $work/run/timeline.jsonl ]] || ! is_alive "$locust_pid"; do sleep 0.1; done
      outage=("$ROOT/load_tests/v4_production/outage.py" "$((seconds * 9 / 20))=redis" "$((seconds * 12 / 20))=worker 0")
      ;;
    *) return 0 ;;
  esac
  "$PYTHON" -B "${outage[@]}" --server "$server_pid" --events "$work/run/events.jsonl" --progress "$work/logs/progress.log" \
    >"$work/logs/outage.log" 2>&1 </dev/null 4<&- &
  outage_pid=$!
}

# Looks at the server from outside, once a second, until Locust has ended.
start_watch() {
  local deadline=$((SECONDS + READY_SECONDS_MAX))
  "$PYTHON" -B "$ROOT/load_tests/common/watch.py" --host "http://127.0.0.1:$port" --server "$server_pid" --load "$work/logs/locust.pid" \
    --out "$work/run/samples.jsonl" --events "$work/run/events.jsonl" >"$work/logs/watch.log" 2>&1 </dev/null 4<&- &
  watch_pid=$!
  # It signs in before the crowd does.
  until [[ -e $work/run/samples.jsonl ]] || ! is_alive "$watch_pid" || ((SECONDS >= deadline)); do sleep 0.05; done
}

# Prints the lines of the progress file that have come since the last call.
show_progress() {
  local line
  while IFS= read -r line <&4; do say "  $line"; done
}

run_locust() {
  local status=0 deadline=$((SECONDS + seconds + LOCUST_EXTRA_SECONDS))
  local folder=$scenario arguments=(-u "$users" -r "$rate" -t "${seconds}s")
  if [[ -n $shape ]]; then folder=v4_production arguments=(); fi
  if [[ -n $shape ]]; then
    step "Letting people in, in the shape $shape, for $duration"
  else
    step "Letting $users people in, $rate a second, for $duration"
  fi
  : >"$work/logs/progress.log"
  exec 4<"$work/logs/progress.log"
  start_watch
  DOORBUSTER_VERIFY=$BIN/verify DOORBUSTER_DATA=$work/data DOORBUSTER_RESULT=$work/run/result.json \
    DOORBUSTER_TIMELINE=$work/run/timeline.jsonl DOORBUSTER_SHAPE=$shape DOORBUSTER_SECONDS=$seconds DOORBUSTER_USERS=$users \
    DOORBUSTER_PROGRESS=$work/logs/progress.log DOORBUSTER_ACKS=$work/logs/acks.txt PYTHONDONTWRITEBYTECODE=1 \
    setsid "$LOCUST" -f "$ROOT/load_tests/$folder/locustfile.py" --headless --only-summary \
    --host "http://127.0.0.1:$port" "${arguments[@]}" \
    >"$work/logs/locust.log" 2>&1 </dev/null 4<&- &
  locust_pid=$!
  printf '%s\n' "$locust_pid" >"$work/logs/locust.pid"
  start_outage
  while is_alive "$locust_pid"; do
    show_progress
    is_alive "$server_pid" || fail "the server has gone away during the run"
    ((SECONDS < deadline)) || fail "Locust has not come to an end"
    sleep 0.3
  done
  wait "$locust_pid" || status=$?
  locust_pid=
  while is_alive "$outage_pid"; do # a short run ends before the nodes vote again
    show_progress
    sleep 0.3
  done
  show_progress
  exec 4<&-
  locust_status=$status
  if [[ ! -s $work/run/result.json ]]; then
    tail -n 20 "$work/logs/locust.log" >&2
    fail "Locust left no result (exit $status)"
  fi
}

verify_store() {
  step "Asking the store (verify)"
  verify_status=0
  "$BIN/verify" --data "$work/data" --acks "$work/logs/acks.txt" >"$work/logs/verify.log" 2>&1 || verify_status=$?
  if (($(wc -l <"$work/logs/verify.log") <= VERIFY_LINES_MAX)); then
    sed 's/^/  /' "$work/logs/verify.log"
  else
    printf '  %s checks hold\n' "$(grep -c '^ok ' "$work/logs/verify.log")"
    grep -v '^ok ' "$work/logs/verify.log" | sed 's/^/  /'
  fi
}

# A page that shows the run: kept, whatever came out.
make_report() {
  local folder
  wait "$watch_pid" || true # it has ended with Locust
  if [[ -z $report ]]; then
    folder=$ROOT/reports/$scenario-$(date -u +%Y%m%d-%H%M%S)
    mkdir -p "$folder"
    cp -r -- "$work/run/." "$folder"
    report=$folder/report.html
  fi
  "$ROOT/scripts/report.sh" "$work/run" -o "$report" || say "  (no report page could be made)"
}

judge() {
  local table_status=0
  step "Result"
  "$PYTHON" -B "$ROOT/load_tests/common/result_table.py" "$work/run" || table_status=$?
  make_report
  ((table_status == 0)) || fail "a target was missed"
  ((verify_status == 0)) || fail "verify exits $verify_status"
  ((locust_status == 0)) || fail "Locust exits $locust_status though every target is met"
}

main() {
  read_options "$@"
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  work=$(mktemp -d "${TMPDIR:-/tmp}/doorbuster-demo.XXXXXX")
  mkdir "$work/logs" "$work/run"
  install_missing
  build
  start_server
  set_up
  run_locust
  verify_store
  judge
}

main "$@"
