#!/usr/bin/env bash
# Makes one HTML page of a run of scripts/demo.sh: throughput, latency percentiles, stock and people over time, what was killed when, the result
# table, the machine. It needs no network and no script to be read.
#
#   scripts/report.sh RUNFOLDER [-o FILE]      default RUNFOLDER/report.html; demo.sh leaves a RUNFOLDER in reports/, and has made its page
set -euo pipefail

ROOT=$(cd "$(dirname "$0")/.." && pwd)

case ${1:-} in
  -h | --help)
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
    exit 0
    ;;
esac
exec /usr/bin/python3 -B "$ROOT/load_tests/report_page/report_page.py" "$@"
