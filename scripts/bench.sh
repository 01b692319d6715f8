#!/usr/bin/env bash
# Measures speed and memory of the whole stack and prints a table of ratios: against nginx, redis-benchmark, pgbench, against itself.
#
#   scripts/bench.sh [--quick] [--only WORDS] [--workers N] [--bin DIR]
#
#   --quick      about four minutes instead of about fifteen
#   --only WORDS only some of it: "Redlock", "idle", "sold-out", "redis-benchmark", "carts", "looking", "storm", "postgres"
#   --workers N  worker processes of the server, and of nginx beside it     default: processors
#   --bin DIR    use the programs in DIR, build nothing                     default: build/bin, built now
#
# A benchmark, not a test: a missed goal is printed, the exit code is 0. It is 1 only if something could not be measured.
# load_tests/bench/README.md says how each figure is taken.
set -euo pipefail

ROOT=$(cd "$(dirname "$0")/.." && pwd)

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
}

build() {
  local generator=() log
  log=$(mktemp)
  printf 'Building (Release, build/)\n'
  # A build folder keeps the generator that it was made with.
  if [[ ! -e $ROOT/build/CMakeCache.txt ]] && command -v ninja >/dev/null; then generator=(-G Ninja); fi
  if ! { cmake -S "$ROOT" -B "$ROOT/build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release &&
    cmake --build "$ROOT/build" --parallel "$(nproc)" --target server setup verify; } >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    rm -f "$log"
    printf 'bench: the build does not go through\n' >&2
    exit 1
  fi
  rm -f "$log"
}

main() {
  local argument groups=(run bench) own_programs=0
  for argument in "$@"; do
    case $argument in
      -h | --help) usage && exit 0 ;;
      --bin | --bin=*) own_programs=1 ;;
    esac
  done
  ((own_programs)) || groups+=(build)
  "$ROOT/scripts/deps.sh" "${groups[@]}"
  ((own_programs)) || build
  # 10,000 connections need as many files, in the server too, which inherits this.
  ulimit -n "$(ulimit -H -n)"
  exec /usr/bin/python3 -B "$ROOT/load_tests/bench/bench.py" "$@"
}

main "$@"
