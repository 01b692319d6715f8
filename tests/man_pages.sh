#!/usr/bin/env bash
# The man pages say what the programs do: mandoc finds nothing to complain about, and each page has exactly the options and the variables of the
# program's --help.
set -euo pipefail
cd "$(dirname "$0")/../packaging/man"

bin=${DOORBUSTER_BIN:?}
failed=0

options_of_help() { "$1" --help | sed -n 's/^  --\([a-z-]*\).*/\1/p' | sort; }
# In the list of options, not in the synopsis.
options_of_page() { sed -n 's/^\.It Fl -\([a-z-]*\).*/\1/p' "$1" | sort; }

variables_of_help() { { "$1" --help | grep -o '\[[A-Z]*_[A-Z_]*' | tr -d '['; "$1" --help | sed -n 's/^  \([A-Z][A-Z_]*\) .*/\1/p'; } | sort -u; }
# But for those of the service manager and of the C library, which are no settings.
variables_of_page() { sed -n 's/^\.\(It \)\?Ev \([A-Z_]*\).*/\2/p' "$1" | grep -v -e NOTIFY_SOCKET -e RES_OPTIONS | sort -u; }

for command in server setup verify; do
    page=doorbuster-$command.8
    mandoc -T lint -W warning "$page" || failed=1
    diff <(options_of_help "$bin/$command") <(options_of_page "$page") ||
        { echo "$page: its options (>) are not those of $command --help (<)" >&2; failed=1; }
    diff <(variables_of_help "$bin/$command") <(variables_of_page "$page") ||
        { echo "$page: its variables (>) are not those of $command --help (<)" >&2; failed=1; }
done
exit "$failed"
