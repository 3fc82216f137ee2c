#!/bin/sh
# Makes a board of a machine that is reached by SSH, or brings it up to date: copies the package, installs it, and runs
# edge-client-setup there.
#
#   SERVER=URL TOKEN=T FINGERPRINT=F deploy/fleet/one-board.sh HOST braid-edge-client_….deb /srv/notes.jsonl
#
# TOKEN may be left out for a board that has joined; SERVER too, which then leaves its settings as they are. What the board
# says goes into HOST.log; one line says how it ended. The user there must be able to use sudo without a password.
set -eu
[ $# = 3 ] || {
    echo "usage: $0 HOST PACKAGE DATA-ON-THE-BOARD" >&2
    exit 2
}
host=$1 package=$2 data=$3
file=$(basename "$package")

say() { printf '%s  %s\n' "$host" "$1"; }

if ! scp -q -o BatchMode=yes "$package" "$host:$file" >"$host.log" 2>&1; then
    say "NOT REACHED, see $host.log"
    exit 1
fi
# By standard input: what stands in a command line is in every list of processes, there and here.
if printf '%s\n' "${SERVER:-}" "${TOKEN:-}" "${FINGERPRINT:-}" "$data" "$file" | ssh -o BatchMode=yes "$host" '
    read -r server; read -r token; read -r fingerprint; read -r data; read -r file
    export DEBIAN_FRONTEND=noninteractive
    sudo -E apt-get install --yes --quiet "./$file" </dev/null && rm -f "$file" &&
    printf "%s\n" "$token" | sudo edge-client-setup ${server:+--server "$server"} ${token:+--token-file -} \
        ${fingerprint:+--fingerprint "$fingerprint"} --data "$data"
' >>"$host.log" 2>&1; then
    say "ready"
else
    say "FAILED, see $host.log: $(tail -n 1 "$host.log")"
    exit 1
fi
