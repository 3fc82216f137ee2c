#!/bin/sh
# Installs, upgrades, removes and purges this machine's packages in a fresh system, and prints what was seen. Run as root
# by `make deb-check`, as: scripts/deb/check.sh SUITE [FOLDER OF PACKAGES]
#
# The suite is one that debootstrap knows, such as bookworm, trixie or jammy. The bare system is kept in .deb-roots/.
set -eu
suite=$1
packages=$(CDPATH='' cd -- "${2:-dist/deb}" && pwd)
architecture=$(dpkg --print-architecture)
case $suite in
jammy | noble) mirror=http://archive.ubuntu.com/ubuntu ;;
*) mirror=http://deb.debian.org/debian ;;
esac

[ "$(id -u)" = 0 ] || { echo "error: debootstrap and chroot need root" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "error: there is no debootstrap: apt-get install debootstrap" >&2; exit 1; }

bare=.deb-roots/$suite
root=.deb-roots/$suite-check
mkdir -p .deb-roots
# An older debootstrap knows no newer suite by name; the scripts are the same since jammy.
script=/usr/share/debootstrap/scripts/$suite
[ -e "$script" ] || script=/usr/share/debootstrap/scripts/jammy
[ -d "$bare" ] || { debootstrap --variant=minbase "$suite" "$bare.new" "$mirror" "$script" >"$bare.log" 2>&1 && mv "$bare.new" "$bare"; } ||
    { tail -n 3 "$bare.log"; exit 1; }
rm -rf --one-file-system "$root"
cp -a "$bare" "$root"
cp /etc/resolv.conf "$root/etc/resolv.conf"
log=$root.log
: >"$log"

in_root() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive sh -euc "$1" >>"$log" 2>&1; }

failed=0
# What must be so: words for people, and the command that tells, which is run in the new system.
promise() {
    if in_root "$2"; then printf 'ok      %s\n' "$1"; else
        printf 'FAILED  %s\n' "$1"
        tail -n 5 "$log" | sed 's/^/        | /'
        failed=1
    fi
}

# A second version of a package, with the same files.
second() {
    rm -rf "$root/second"
    dpkg-deb --raw-extract "$1" "$root/second"
    sed -i 's/^Version: .*/&+second/' "$root/second/DEBIAN/control"
    dpkg-deb -Zgzip -z1 --build "$root/second" "$root/second.deb" >/dev/null
    rm -rf "$root/second"
}

# One package through its life: name, program, environment, and the folder with its state.
life() {
    name=$1 program=$2 venv=$3 state=$4
    found=$(find "$packages" -name "${name}_*_$architecture.deb" | sort | tail -n 1)
    [ -n "$found" ] || { echo "error: $packages has no $name for $architecture: make deb" >&2; exit 1; }
    cp "$found" "$root/first.deb"
    second "$found"
    echo "$name on $suite"
    promise "apt installs it from its file" "apt-get install -y --no-install-recommends /first.deb"
    promise "$program --version" "$program --version"
    promise "nothing that it installed lacks a requirement" "$venv/bin/python -m pip check"
    promise "nothing is enabled" "! find /etc/systemd/system -name '*$program*' | grep ."
    promise "bash completes its commands" "COMP_WORDS='$program ' COMP_CWORD=1 _$(echo "$program" | tr a-z- A-Z_)_COMPLETE=bash_complete $program | grep plain"
    in_root "mkdir -p /etc/braid $state; touch $state/identity; mkdir -p $venv/lib/own; touch $venv/lib/own/kept; echo old >$venv/wheels.sha256"
    promise "a newer one upgrades it, with other wheels" "apt-get install -y --no-install-recommends /second.deb && cmp $venv/wheels.sha256 /usr/lib/$name/wheels.sha256"
    promise "state and what else is in the environment stay" "test -e $state/identity && test -e $venv/lib/own/kept && $program --version"
    in_root "mv $venv/lib/python3.* $venv/lib/python3.0"
    promise "another Python of the system: a trigger makes the environment anew" "apt-get install -y --reinstall python3-minimal && $program --version"
    promise "removing takes the environment, and state stays" "apt-get remove -y $name && test ! -e $venv && test -e $state/identity"
    promise "it can be installed again" "apt-get install -y --no-install-recommends /first.deb && $program --version && test -e $state/identity"
    promise "purging takes all" "apt-get purge -y $name && test ! -e $state && test ! -e $(dirname "$venv") && test ! -e /etc/braid && test ! -e /usr/lib/$name && ! dpkg -s $name"
}

in_root "apt-get update"
life braid-edge-client edge-client /opt/braid/venv /var/lib/private/braid
life braid-aggregator aggregator /opt/braid-aggregator/venv /var/lib/braid-aggregator
promise "the server's user is gone" "! getent passwd braid"
rm -rf --one-file-system "$root"
exit $failed
