#!/usr/bin/env bash
# The Black Friday sale, from nothing to a result table: installs what is missing, builds, starts a server of its own, lets the
# people in, and asks the store what was sold.
#
#   scripts/demo.sh [-t 60s] [--scenario NAME] [--users N] [--rate N] [--report FILE] [--keep]
#   scripts/demo.sh --store postgres [--servers N] [--kill] [...]
#
#   -t, --time      how long the people are there: 60s, 2m, 1h            default 60s; v4_soak 10m, with --store postgres 90s
#   --scenario      v1_stress: 300 people, hardly waiting, 100 units      default v1_stress
#                   v1_basic:  100 people in no hurry, 100 units
#                   v2_multi:  300 people with carts, ten products, two bundles, a clerk who restocks
#                   v3_redlock: those of v1_stress at the Redlock gate; two of its five lock nodes are killed in mid-sale
#                   v4_baseline, v4_ramp, v4_spike, v4_step, v4_soak: up to 1,000 people in this shape, while an admin restocks and puts
#                              products on sale; in spike and soak Redis and a worker are killed in the middle
#   --store postgres  several servers on one PostgreSQL and one Redis, behind HAProxy with cluster/haproxy.cfg, and 1,000 people
#                   (v1_stress; v1_basic and v2_multi go too). All of it on this machine, and stopped at the end
#   --servers N     with --store postgres: 1 to 4 servers, who share the processors     default 2
#   --kill          with --store postgres, v1_stress: the server whose recorder records is killed, all its processes, when half is sold, and started
#                   again; there is half a unit a head then, so that there is something to sell
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
HAPROXY=/usr/sbin/haproxy
SERVER_NAMES=(A B C D)
SESSIONS_A_WORKER=24     # with PostgreSQL, at most

duration=
scenario=v1_stress
shape= # of v4: baseline, ramp, spike, step, soak
gate=lua
store=sqlite
servers=
kill=0
report=
users=
rate=
keep=0
work=
server_pids=()
server_ports=()
redis_pid=
proxy_pid=
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
      --kill) kill=1 && shift && continue ;;
      -t | --time | --users | --rate | --scenario | --report | --store | --servers) (($# >= 2)) || refuse "$1 needs a value" ;;
      *) refuse "unknown option $1; see scripts/demo.sh --help" ;;
    esac
    case $1 in
      -t | --time) duration=$2 ;;
      --users) require_number "$1" "$2" && users=$2 ;;
      --rate) require_number "$1" "$2" && rate=$2 ;;
      --scenario) scenario=$2 ;;
      --report) report=$2 ;;
      --store) store=$2 ;;
      --servers) servers=$2 ;;
    esac
    shift 2
  done
  read_store
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

# What several servers can do, and what only goes with them.
read_store() {
  case $store in
    sqlite)
      [[ -z $servers ]] || refuse "--servers goes with --store postgres"
      ((!kill)) || refuse "--kill goes with --store postgres"
      servers=1
      ;;
    postgres)
      [[ $scenario =~ ^(v1_stress|v1_basic|v2_multi)$ ]] || refuse "--store postgres goes with v1_stress, v1_basic and v2_multi"
      servers=${servers:-2}
      [[ $servers =~ ^[1-4]$ ]] || refuse "--servers $servers: must be from 1 to 4"
      # Signing up is hashing, which is slow on purpose: they come no faster than two processors can hash beside the sale.
      if [[ $scenario == v1_stress ]]; then users=${users:-1000} rate=${rate:-20} duration=${duration:-90s}; fi
      ((!kill || (servers > 1 && users > 1))) || refuse "--kill needs two servers, so that one is left, and two people"
      ((!kill)) || [[ $scenario == v1_stress ]] || refuse "--kill goes with v1_stress"
      ;;
    *) refuse "--store $store: must be sqlite or postgres" ;;
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
  local status=$? pid
  trap - EXIT
  trap '' INT TERM HUP # a second Ctrl-C must not leave a server behind
  stop "$outage_pid"
  stop "$locust_pid"
  stop "$watch_pid"
  stop "$proxy_pid"
  for pid in "${server_pids[@]}"; do stop "$pid"; done
  stop "$redis_pid"
  if [[ -n $work ]]; then "$ROOT/scripts/postgres.sh" stop "$work/postgres" || true; fi
  if [[ -n $work ]]; then
    if ((keep)); then
      say "Kept: $work (data/ and logs/)"
    elif ((status == 0 || status >= 128)); then
      rm -rf -- "$work"
    else
      if [[ -e $work/postgres/postgres.log ]]; then cp -- "$work/postgres/postgres.log" "$work/logs"; fi
      rm -rf -- "$work"/data* "$work/postgres" "$work/redis"
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
  [[ $store == sqlite ]] || groups+=(cluster)
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
  "$PYTHON" -B -c 'import sys; sys.path.insert(0, sys.argv[1]); import processes; print(processes.free_port())' "$ROOT/load_tests/bench"
}

# Server 1's data folder is where the tools look.
data_of() { # NUMBER
  if (($1 == 1)); then printf '%s' "$work/data"; else printf '%s' "$work/data-$1"; fi
}

# One server is on its own, with a Redis and a store in its folder; of several each has a part of the processors.
start_server() { # NUMBER
  local log=$work/logs/server-$1.log settings=(DOORBUSTER_RATE_LIMITS=off)
  if [[ $store == postgres ]]; then
    settings+=("DOORBUSTER_WORKERS=$workers" "JWT_SECRET_KEY=$secret" DOORBUSTER_TRUSTED_PROXIES=127.0.0.1)
  fi
  : >>"$log"
  # In a session of its own, so that Ctrl-C reaches this script alone, which then stops things in order.
  env "${settings[@]}" setsid "$BIN/server" --listen "127.0.0.1:${server_ports[$1]}" --data "$(data_of "$1")" --gate "$gate" >>"$log" 2>&1 </dev/null &
  server_pids[$1]=$!
  if ((kill)); then disown "$!"; fi # so that bash does not tell of its death
}

await_server() { # NUMBER
  local log=$work/logs/server-$1.log deadline=$((SECONDS + READY_SECONDS_MAX))
  until grep -q "ready on " "$log"; do
    if ! is_alive "${server_pids[$1]}"; then
      tail -n 20 "$log" >&2
      fail "the server has not come up"
    fi
    ((SECONDS < deadline)) || fail "the server was not ready within $READY_SECONDS_MAX s"
    sleep 0.1
  done
  grep -m 1 "ready on " "$log" | sed 's/^/  /'
}

start_servers() {
  local number
  for ((number = 1; number <= servers; number++)); do server_ports[number]=$(free_port); done
  port=${server_ports[1]}
  if [[ $store == postgres ]]; then start_surroundings; fi
  step "Starting $( ((servers == 1)) && printf 'the server' || printf '%s servers' "$servers") on 127.0.0.1:${server_ports[*]}$([[ $gate == lua ]] || printf ', with the gate %s' "$gate")"
  for ((number = 1; number <= servers; number++)); do start_server "$number"; done
  for ((number = 1; number <= servers; number++)); do await_server "$number"; done
  if [[ $store == postgres ]]; then start_proxy; fi
  "$PYTHON" -B "$ROOT/load_tests/report_page/machine.py" --bin "$BIN" --data "$work/data" --scenario "$scenario" --gate "$gate" \
    --servers "$servers" --store "$store" --out "$work/run/machine.json"
}

# --- what several servers share -------------------------------------------------------------------------------------------------

start_surroundings() {
  local deadline=$((SECONDS + READY_SECONDS_MAX))
  step "Starting PostgreSQL and Redis, each on a socket in $work"
  chmod 711 "$work" # PostgreSQL is another user's; what is in here is closed to him, but for his own
  chmod 700 "$work/logs" "$work/run"
  workers=$((($(nproc) + servers - 1) / servers))
  DATABASE_URL=$("$ROOT/scripts/postgres.sh" start "$work/postgres" max_connections=$((servers * (workers * SESSIONS_A_WORKER + 1) + 20))) || fail "PostgreSQL has not come up"
  mkdir -m 700 "$work/redis"
  setsid redis-server --port 0 --unixsocket "$work/redis/redis.sock" --dir "$work/redis" --save "" --appendonly yes --appendfsync everysec \
    --maxmemory-policy noeviction >"$work/logs/redis.log" 2>&1 </dev/null &
  redis_pid=$!
  REDIS_URL=unix:$work/redis/redis.sock
  export DATABASE_URL REDIS_URL # for the servers, and for setup and verify, Locust's too
  secret=$("$PYTHON" -c 'import secrets; print(secrets.token_urlsafe(32))')
  until [[ -S $work/redis/redis.sock ]]; do
    is_alive "$redis_pid" || fail "Redis has not come up: $(tail -n 3 "$work/logs/redis.log")"
    ((SECONDS < deadline)) || fail "Redis was not ready within $READY_SECONDS_MAX s"
    sleep 0.05
  done
}

# cluster/haproxy.cfg, whose two servers become as many as there are.
start_proxy() {
  local deadline=$((SECONDS + READY_SECONDS_MAX)) number addresses=() names="${SERVER_NAMES[*]:0:servers}"
  for ((number = 1; number <= servers; number++)); do addresses+=("SERVER_${SERVER_NAMES[number - 1]}=127.0.0.1:${server_ports[number]}"); done
  awk -v names="$names" '
    /^    server a / { n = split(names, name, " "); for (i = 1; i <= n; i++) printf "    server %s \"${SERVER_%s}\"\n", tolower(name[i]), name[i]; next }
    /^    server / { next }
    { print }' "$ROOT/cluster/haproxy.cfg" >"$work/run/haproxy.cfg"
  port=$(free_port)
  step "Starting HAProxy on 127.0.0.1:$port"
  env "LISTEN=127.0.0.1:$port" "${addresses[@]}" setsid "$HAPROXY" -db -f "$work/run/haproxy.cfg" >"$work/logs/haproxy.log" 2>&1 </dev/null &
  proxy_pid=$!
  until curl -fs -o /dev/null "http://127.0.0.1:$port/health/ready"; do
    is_alive "$proxy_pid" || fail "HAProxy has not come up: $(tail -n 3 "$work/logs/haproxy.log")"
    ((SECONDS < deadline)) || fail "nobody was ready behind HAProxy within $READY_SECONDS_MAX s"
    sleep 0.1
  done
}

# A server that was killed is started again, once whoever killed it has seen the sale go on.
start_killed_again() {
  local number
  if ! ((kill)) || is_alive "$outage_pid"; then return 0; fi
  for ((number = 1; number <= servers; number++)); do
    is_alive "${server_pids[number]}" && continue
    start_server "$number"
    printf '        server %s: started again\n' "$number" >>"$work/logs/progress.log"
    printf '{"at": %s, "what": "server %s started again"}\n' "$EPOCHREALTIME" "$number" >>"$work/run/events.jsonl"
  done
}

require_servers() {
  local number
  ((!kill)) || return 0
  for ((number = 1; number <= servers; number++)); do
    is_alive "${server_pids[number]}" || fail "the server has gone away during the run"
  done
}

set_up() {
  local setup_scenario=${shape:+v4_production} stock=()
  setup_scenario=${setup_scenario:-$scenario}
  step "Setting up $setup_scenario"
  # For setup, which makes the account, and Locust, one of whose people restocks. Good for this run only.
  DOORBUSTER_ADMIN_PASSWORD=$("$PYTHON" -c 'import secrets; print(secrets.token_urlsafe(16))')
  export DOORBUSTER_ADMIN_PASSWORD
  if ((kill)); then stock=(--stock "$((users / 2))"); fi
  if ! "$BIN/setup" --scenario "$setup_scenario" --data "$work/data" "${stock[@]}" >"$work/logs/setup.log" 2>&1; then
    cat "$work/logs/setup.log" >&2
    fail "setup has failed"
  fi
  sed 's/^/  /' "$work/logs/setup.log"
}

# In the middle of some runs processes are killed; they come back by themselves.
start_outage() {
  local outage number
  if ((kill)); then
    outage=("$ROOT/load_tests/v1_stress/outage.py" --host "http://127.0.0.1:$port" --redis "$work/redis/redis.sock" --out "$work/run/killed.json")
    for ((number = 1; number <= servers; number++)); do outage+=("$(data_of "$number")=${server_pids[number]}"); done
    run_outage "${outage[@]}"
  fi
  case $scenario in
    v3_redlock)
      outage=("$ROOT/load_tests/v3_redlock/outage.py" --host "http://127.0.0.1:$port" --after "$((seconds / 2))" --nodes "$NODES_TO_KILL"
        --out "$work/run/outages.json" --server "${server_pids[1]}")
      ;;
    # When the first answers come, the shape has begun; the accounts are signed in before that.
    v4_spike | v4_soak)
      until [[ -s $work/run/timeline.jsonl ]] || ! is_alive "$locust_pid"; do sleep 0.1; done
      outage=("$ROOT/load_tests/v4_production/outage.py" "$((seconds * 9 / 20))=redis" "$((seconds * 12 / 20))=worker 0"
        --server "${server_pids[1]}")
      ;;
    *) return 0 ;;
  esac
  run_outage "${outage[@]}"
}

run_outage() { # COMMAND...
  "$PYTHON" -B "$@" --events "$work/run/events.jsonl" --progress "$work/logs/progress.log" >"$work/logs/outage.log" 2>&1 </dev/null 4<&- &
  outage_pid=$!
}

# Looks at the server from outside, once a second, until Locust has ended.
start_watch() {
  local deadline=$((SECONDS + READY_SECONDS_MAX)) beside=()
  if [[ $store == postgres ]]; then beside=(--beside "$redis_pid" "$(head -n 1 "$work/postgres/data/postmaster.pid")"); fi
  "$PYTHON" -B "$ROOT/load_tests/common/watch.py" --host "http://127.0.0.1:$port" --server "${server_pids[@]}" "${beside[@]}" --load "$work/logs/locust.pid" \
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
  local folder=$scenario killing=${kill#0} arguments=(-u "$users" -r "$rate" -t "${seconds}s")
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
    DOORBUSTER_KILLS=${killing:-} DOORBUSTER_PROGRESS=$work/logs/progress.log DOORBUSTER_ACKS=$work/logs/acks.txt PYTHONDONTWRITEBYTECODE=1 \
    setsid "$LOCUST" -f "$ROOT/load_tests/$folder/locustfile.py" --headless --only-summary \
    --host "http://127.0.0.1:$port" "${arguments[@]}" \
    >"$work/logs/locust.log" 2>&1 </dev/null 4<&- &
  locust_pid=$!
  printf '%s\n' "$locust_pid" >"$work/logs/locust.pid"
  start_outage
  while is_alive "$locust_pid"; do
    show_progress
    start_killed_again
    require_servers
    ((SECONDS < deadline)) || fail "Locust has not come to an end"
    sleep 0.3
  done
  wait "$locust_pid" || status=$?
  locust_pid=
  while is_alive "$outage_pid"; do # a short run ends before the nodes vote again
    show_progress
    sleep 0.3
  done
  if ((kill)); then wait "$outage_pid" || fail "$(tail -n 1 "$work/logs/outage.log")"; fi
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
  start_servers
  set_up
  run_locust
  verify_store
  judge
}

main "$@"
