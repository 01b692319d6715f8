#!/usr/bin/env bash
# Installs the Debian package, sells something from it as the service would, and removes it again, all on a copy of this machine that is
# thrown away: an overlay over /, in namespaces of its own. Nothing here is touched. Needs root and overlayfs; without them the package is only unpacked, and
# the sale runs from there.
#
#   scripts/try_package.sh
set -euo pipefail

DATA=/var/lib/doorbuster
UNIT=doorbuster.service
EXPOSURE_MAX=20 # systemd-analyze security: 0 is the best, 100 the worst

fail() {
    echo "try_package: $*" >&2
    exit 1
}

expect() { # FILE TEXT
    grep -qF -- "$2" "$1" || { cat "$1" >&2; fail "the output above lacks: $2"; }
}

# --- the sale: COMMANDS is the folder of the programs, DATA theirs; "$@" becomes the service's user -----------------------------------
sell() {
    local commands=$1 work=$2 port server
    shift 2
    "$@" env DOORBUSTER_LISTEN=127.0.0.1:0 DOORBUSTER_DATA="$DATA" "$commands/doorbuster-server" 2>"$work/log" &
    server=$!
    for _ in $(seq 300); do
        grep -q 'ready on' "$work/log" && break
        kill -0 "$server" 2>/dev/null || break
        sleep 0.05
    done
    expect "$work/log" "ready on http://127.0.0.1:"
    port=$(sed -n 's/.*ready on http:\/\/127\.0\.0\.1:\([0-9]*\).*/\1/p' "$work/log")
    "$@" "$commands/doorbuster-setup" --data "$DATA" --admin shopkeeper >"$work/setup"
    expect "$work/setup" "shown this once"
    "$@" "$commands/doorbuster-setup" --data "$DATA" --scenario v1_stress >"$work/setup"
    expect "$work/setup" "Black Friday Limited Edition"
    buy "http://127.0.0.1:$port" "$work"
    "$@" "$commands/doorbuster-verify" --data "$DATA" >"$work/verify" || { cat "$work/verify" >&2; fail "verify"; }
    expect "$work/verify" "All hold: 1 orders"
    kill -TERM "$server"
    wait "$server" || fail "the server ended with $?"
    expect "$work/log" 'msg="stopped"'
}

buy() {
    local url=$1 work=$2 token
    curl -sSf "$url/api/auth/register" -H 'Content-Type: application/json' \
        -d '{"username":"kim","password":"correct horse"}' >/dev/null
    token=$(curl -sSf "$url/api/auth/login" -d 'username=kim&password=correct horse' | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
    curl -sSf "$url/api/purchases" -H "Authorization: Bearer $token" -H 'Content-Type: application/json' \
        -d '{"product_id":1,"quantity":1}' >"$work/order"
    expect "$work/order" '"remaining_stock":99'
}

# --- inside the copy -----------------------------------------------------------------------------------------------------------------
check_installed() {
    [ "$(stat -c '%U %a' $DATA)" = "doorbuster 700" ] || fail "$DATA is not the service's own"
    [ "$(stat -c '%U %a' /etc/default/doorbuster)" = "root 640" ] || fail "everybody may read the settings, and the passwords in them"
    [ -L /etc/systemd/system/multi-user.target.wants/$UNIT ] || fail "the service is not enabled"
    [ "$(doorbuster-server --version)" = "doorbuster-server $(dpkg-query -W -f '${Version}' doorbuster)" ] || fail "the version"
}

# What the documents link to. A machine may leave /usr/share/doc out when it installs (dpkg's path-exclude), so the package itself is asked.
check_documents() { # DEB
    local file
    dpkg-deb --contents "$1" >"$room/contents"
    for file in docs/operations.md cluster/haproxy.cfg monitoring/rules.yml monitoring/prometheus.yml monitoring/grafana/dashboards/doorbuster.json web/openapi.json; do
        expect "$room/contents" "/usr/share/doc/doorbuster/$file"
    done
}

check_unit() {
    command -v systemd-analyze >/dev/null || { echo "try_package: no systemd-analyze here: the unit is not looked at"; return; }
    systemd-analyze verify --man=no $UNIT || fail "systemd-analyze verify"
    systemd-analyze security --offline=yes --no-pager --threshold=$EXPOSURE_MAX $UNIT >/tmp/security ||
        { cat /tmp/security >&2; fail "systemd-analyze security: the service may do more than before"; }
    tail -n 1 /tmp/security
    sed -E 's/^#(AmbientCapabilities|CapabilityBoundingSet)=/\1=/' /usr/lib/systemd/system/$UNIT >/tmp/low-port.service
    systemd-analyze security --offline=yes --no-pager /tmp/low-port.service >/tmp/security || true
    grep -q '✗ CapabilityBoundingSet=~CAP_NET_(BIND_SERVICE' /tmp/security || fail "what the unit says of ports below 1024 does not help"
}

inside() {
    dpkg --install "$1" >/tmp/dpkg 2>&1 || { cat /tmp/dpkg >&2; fail "dpkg --install"; }
    check_installed
    check_unit
    sell /usr/bin /tmp setpriv --reuid=doorbuster --regid=doorbuster --init-groups --no-new-privs --bounding-set=-all
    dpkg --install "$1" >/tmp/dpkg 2>&1 || { cat /tmp/dpkg >&2; fail "an upgrade"; }
    dpkg --remove doorbuster >/tmp/dpkg 2>&1 && [ -e /etc/default/doorbuster ] || { cat /tmp/dpkg >&2; fail "dpkg --remove"; }
    dpkg --purge doorbuster >/tmp/dpkg 2>&1 || { cat /tmp/dpkg >&2; fail "dpkg --purge"; }
    expect /tmp/dpkg "$DATA"
    [ -s $DATA/doorbuster.db ] || fail "the orders are gone"
    [ ! -e /etc/default/doorbuster ] && [ ! -e /usr/bin/doorbuster-server ] || fail "something is left"
    [ ! -L /etc/systemd/system/multi-user.target.wants/$UNIT ] || fail "the service is still enabled"
    echo "The package was installed, sold, and was removed."
}

# --- the copy ------------------------------------------------------------------------------------------------------------------------
make_copy() { # ROOM: an overlay over / at ROOM/root
    mount -t tmpfs -o mode=0755 try_package "$1"
    mkdir "$1/upper" "$1/work" "$1/root"
    mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
    mount -t proc proc "$1/root/proc"
    mount --rbind /dev "$1/root/dev"
    mount -t tmpfs -o mode=0755 run "$1/root/run" # no systemd runs in it
    mount -t tmpfs -o mode=1777 tmp "$1/root/tmp"
}

# In namespaces of their own, all its processes end with it.
in_copy() {
    make_copy "$1"
    install -m 0755 "$0" "$1/root/tmp/try_package.sh"
    install -m 0644 "$2" "$1/root/tmp/doorbuster.deb"
    exec chroot "$1/root" /bin/bash /tmp/try_package.sh --inside /tmp/doorbuster.deb
}

can_copy() {
    [ "$(id -u)" -eq 0 ] && unshare --mount --pid --fork bash -c "$(declare -f make_copy); make_copy $1" 2>/dev/null
}

main() {
    case ${1:-} in
    --inside) inside "$2" && return ;;
    --in-copy) in_copy "$2" "$3" ;;
    esac
    cd "$(dirname "$0")/.."
    local deb
    deb=$(scripts/package.sh)
    room=$(mktemp -d)
    trap 'rm -rf "$room"' EXIT
    check_documents "$deb"
    if can_copy "$room"; then
        unshare --mount --pid --fork --kill-child bash "$PWD/scripts/try_package.sh" --in-copy "$room" "$deb"
    else
        echo "try_package: not root, or no overlayfs here: the package is unpacked, not installed"
        DATA=$room/data
        dpkg-deb --extract "$deb" "$room/root"
        sell "$room/root/usr/bin" "$room"
        echo "The package was unpacked, and sold."
    fi
}

main "$@"
