#!/usr/bin/env bash
# Installs what is missing of Doorbuster's needs, all of it from the distribution's own packages.
#
#   scripts/deps.sh [GROUP]...      groups: build run test browser load cluster bench fuzz coverage; none: build run
#
# Asks for nothing, and touches nothing if nothing is missing: then it needs neither the network nor root.
set -euo pipefail

# file: CPack asks it what is a program.
declare -A PACKAGES=(
  [build]="build-essential cmake ninja-build pkg-config libmicrohttpd-dev libgnutls28-dev libhiredis-dev libuv1-dev libsqlite3-dev libpq-dev libcjson-dev
           libsodium-dev libcmocka-dev file"
  [run]="redis-server curl"
  [test]="redis-server redis-tools sqlite3 postgresql docker-compose prometheus systemd mandoc curl python3 python3-jsonschema"
  [browser]="chromium chromium-driver python3-selenium"
  [load]="python3-locust"
  [cluster]="postgresql haproxy redis-server redis-tools curl"
  [fuzz]="clang libclang-rt-14-dev"
  [coverage]="gcovr"
  [bench]="wrk nginx-light redis-server redis-tools postgresql haproxy python3"
)
# Packages that bring a daemon. We want their programs only: Doorbuster starts its own, on private sockets.
DAEMONS="redis-server nginx-light prometheus postgresql haproxy"
POLICY=/usr/sbin/policy-rc.d

say() { printf 'deps: %s\n' "$*"; }
refuse() {
  printf 'deps: %s\n' "$*" >&2
  exit 2
}

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
}

as_root() {
  if ((EUID == 0)); then "$@"; else sudo -- "$@"; fi
}

is_installed() {
  [[ $(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null) == ii* ]]
}

# Sets `missing` to the packages of the groups in "$@" that are not installed.
find_missing() {
  local group package
  missing=()
  for group in "$@"; do
    [[ -n ${PACKAGES[$group]:-} ]] || refuse "unknown group '$group'; there are: build run test browser load cluster bench fuzz coverage"
    for package in ${PACKAGES[$group]}; do
      is_installed "$package" || [[ " ${missing[*]-} " == *" $package "* ]] || missing+=("$package")
    done
  done
}

require_debian() {
  local id="" like=""
  if [[ -r /etc/os-release ]]; then
    id=$(. /etc/os-release && printf '%s' "${ID:-}")
    like=$(. /etc/os-release && printf '%s' "${ID_LIKE:-}")
  fi
  if [[ " $id $like " != *" debian "* && $id != ubuntu ]] || ! command -v apt-get >/dev/null; then
    refuse "this is not Debian or Ubuntu. Install what these packages hold by other means, then start again: ${missing[*]}"
  fi
  if ((EUID != 0)) && ! command -v sudo >/dev/null; then
    refuse "needs root to install ${missing[*]}, and there is no sudo"
  fi
}

# While packages are being installed no daemon may start: that is what Debian's policy-rc.d is for. One that is already there is the
# machine's own decision and stays.
forbid_daemons() {
  [[ ! -e $POLICY ]] || return 0
  trap allow_daemons EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  printf '#!/bin/sh\nexit 101\n' | as_root tee "$POLICY" >/dev/null
  as_root chmod 755 "$POLICY"
}

allow_daemons() {
  trap - EXIT
  as_root rm -f "$POLICY"
}

# Nor may one that we brought start by itself at the next boot. `update-rc.d` covers machines without systemd.
keep_daemons_off() {
  local package service
  for package in $DAEMONS; do
    [[ " ${missing[*]} " == *" $package "* ]] || continue
    service=${package%-light}
    if command -v systemctl >/dev/null; then as_root systemctl disable "$service" >/dev/null 2>&1 || true; fi
    if command -v update-rc.d >/dev/null; then as_root update-rc.d "$service" disable >/dev/null 2>&1 || true; fi
  done
}

apt() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o Acquire::Retries=2 "$@"
}

install_missing() {
  local log
  log=$(mktemp)
  say "installing ${missing[*]}"
  if ! apt update >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    rm -f "$log"
    refuse "cannot fetch the package lists: is there a network? Needed: ${missing[*]}"
  fi
  forbid_daemons
  if ! apt install --yes --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    refuse "the packages could not be installed (apt-get's last lines are above): ${missing[*]}"
  fi
  keep_daemons_off
  if [[ $(trap -p EXIT) == *allow_daemons* ]]; then allow_daemons; fi
  rm -f "$log"
}

main() {
  case ${1:-} in -h | --help) usage && return ;; esac
  (($#)) || set -- build run
  find_missing "$@"
  if ((${#missing[@]} == 0)); then
    return
  fi
  require_debian
  install_missing
  say "done"
}

main "$@"
