#!/usr/bin/env bash
# A PostgreSQL server of one's own, for the demo and the benchmark: its data and its socket are in a folder, and it listens nowhere else.
#
#   scripts/postgres.sh start FOLDER [SETTING=VALUE]...   makes FOLDER and a database "doorbuster" in it, starts the server, prints the database's URL
#   scripts/postgres.sh stop FOLDER                       stops it; FOLDER stays
#
# Started by root it belongs to the user postgres, for PostgreSQL refuses to run as root; FOLDER's parent must let that user through. Whoever
# can enter FOLDER (its owner, root) may do everything. FOLDER/postgres.log says what went wrong.
set -euo pipefail

USER_NAME=doorbuster

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
}

fail() {
  printf 'postgres: %s\n' "$*" >&2
  exit 1
}

# Debian keeps the programs of each version apart; the newest.
find_programs() {
  local found
  found=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
  [[ -n $found ]] || found=$(dirname "$(command -v pg_ctl || fail "there is no pg_ctl; scripts/deps.sh cluster installs it")")
  printf '%s' "$found"
}

as_owner() {
  if ((EUID == 0)); then runuser -u postgres -- "$@"; else "$@"; fi
}

start() { # FOLDER [SETTING=VALUE]...
  local folder=$1 programs setting
  shift
  programs=$(find_programs)
  mkdir -m 0700 -- "$folder"
  if ((EUID == 0)); then chown postgres: -- "$folder"; fi
  cd "$folder"
  if ! as_owner "$programs/initdb" --pgdata="$folder/data" --username="$USER_NAME" --auth=trust --encoding=UTF8 --locale=C.UTF-8 --no-sync \
    >"$folder/initdb.log" 2>&1; then
    fail "initdb: $(tail -n 3 "$folder/initdb.log")"
  fi
  for setting in listen_addresses= unix_socket_directories="'$folder'" "$@"; do
    printf '%s = %s\n' "${setting%%=*}" "${setting#*=}" | sed "s/ = \$/ = ''/" >>"$folder/data/postgresql.conf"
  done
  if ! as_owner "$programs/pg_ctl" start --silent --wait --pgdata="$folder/data" --log="$folder/postgres.log" >/dev/null; then
    fail "it has not come up: $(tail -n 3 "$folder/postgres.log")"
  fi
  as_owner "$programs/createdb" --host="$folder" --username="$USER_NAME" doorbuster
  printf 'postgresql://%s@/doorbuster?host=%s\n' "$USER_NAME" "$folder"
}

stop() { # FOLDER
  [[ -e $1/data/postmaster.pid ]] || return 0
  cd "$1"
  as_owner "$(find_programs)/pg_ctl" stop --silent --wait --mode=fast --pgdata="$1/data" >/dev/null
}

case ${1:-} in
  -h | --help) usage ;;
  start | stop)
    (($# >= 2)) || fail "$1 needs a folder"
    [[ $2 == /* ]] || fail "$2: must be an absolute path"
    "$@"
    ;;
  *) usage >&2 && exit 2 ;;
esac
