#!/bin/sh
# Makes a board of this machine: finds out what it is, installs the torch that serves it and Braid into
# /opt/braid/venv, writes the settings, installs the service, and ends with `edge-client doctor`. POSIX sh.
#
#   sudo deploy/install-board.sh --server https://192.0.2.7:8470 --token T --fingerprint F --data /srv/notes.jsonl
#
# Run it again as often as you like: what is there is kept or brought up to date. `--dry-run` says what it would do.
# Lies in a clone, or in a folder with the wheel (braid_fl-….whl) and the rest of deploy/. Fetches with pip alone.
# In Debian's package it is `edge-client-setup`: program and units are then apt's, and the rest is done as anywhere.
set -eu

packaged=${INSTALL_BOARD_PACKAGED:-}
command=install-board.sh
[ -z "$packaged" ] || command=edge-client-setup

usage() {
    sed "s/^usage: install-board.sh/usage: $command/" <<'END'
usage: install-board.sh [options]

  --server URL         the server's address, as `aggregator serve` printed it
  --token TOKEN        join token; needed once
  --token-file FILE    the same from a file's first line, which no list of processes shows; - for standard input
  --fingerprint HEX    of the server's own certificate
  --data PATH          this board's text

  --dry-run            say what would be done, and do nothing
  --offline FOLDER     install from the packages in FOLDER, without a network
  --download FOLDER    only fetch into FOLDER what --offline needs, on a machine with a network
  --build NAME         for this kind of board instead of this machine, as with --download or in a container; NAME is of
                       the table in edge_client/host/torch_build/builds.json, such as armv8.0, aarch64 or jetpack-6.1
  --board-python X.Y   with --download: the board's Python, where it is not this machine's
  --python PROGRAM     the Python to use                        [python3]
  --torch REQUIREMENT  your own torch instead of the table's, as pip takes it
  --no-service         the program alone, without service and settings
  --no-doctor          do not try the board at the end: for a container or an image that is made elsewhere
  --uninstall          remove program and service; settings, identity and state stay
  --purge              with --uninstall: remove these too
  --root FOLDER        work below FOLDER, as for an image or a test; no service is started
  -h, --help           this
END
}

fail() {
    printf 'error: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf '  → %s\n' "$2" >&2
    exit "${3:-3}"
}

say() { printf '%s\n' "$*"; }

# --- what was asked for ------------------------------------------------------------------------------------------------

server='' token='' token_file='' fingerprint='' data=''
dry_run='' offline='' download='' build_name='' board_python='' python=python3 torch='' service=yes doctor=yes uninstall='' purge='' root=''
while [ $# -gt 0 ]; do
    case $1 in
    --server | --token | --token-file | --fingerprint | --data | --offline | --download | --build | --board-python | --python | --torch | --root)
        [ $# -ge 2 ] || fail "$1 needs a value" "see --help" 2
        case $1 in
        --server) server=$2 ;;
        --token) token=$2 ;;
        --token-file) token_file=$2 ;;
        --fingerprint) fingerprint=$2 ;;
        --data) data=$2 ;;
        --offline) offline=$2 ;;
        --download) download=$2 ;;
        --build) build_name=$2 ;;
        --board-python) board_python=$2 ;;
        --python) python=$2 ;;
        --torch) torch=$2 ;;
        --root) root=${2%/} ;;
        esac
        shift
        ;;
    --dry-run) dry_run=yes ;;
    --no-service) service='' ;;
    --no-doctor) doctor='' ;;
    --uninstall) uninstall=yes ;;
    --purge) purge=yes ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) fail "there is no option $1" "see --help" 2 ;;
    esac
    shift
done

case $token_file in
'') ;;
-) read -r token || [ -n "$token" ] || fail "standard input has no token" "see --help" 2 ;;
*) read -r token <"$token_file" || [ -n "$token" ] || fail "$token_file has no token" "write the token into its first line" ;;
esac

newline='
'
for value in "$server" "$token" "$fingerprint" "$data"; do
    case $value in
    *[\"\\]* | *"$newline"*) fail "a value holds a quote, a backslash or a line break: $value" "write that setting by hand" ;;
    esac
done

[ -z "$root" ] || [ -d "$root" ] || fail "there is no folder $root" "make it, or leave --root out"
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
venv=$root/opt/braid/venv
etc=$root/etc/braid
units=$root/etc/systemd/system
state=$root/var/lib/braid

# Do a command, or say it. A token is never said: it is not part of any.
run() {
    if [ -n "$dry_run" ]; then say "+ $*"; else "$@"; fi
}

[ -n "$dry_run" ] || [ -n "$root" ] || [ -n "$download" ] || [ "$(id -u)" = 0 ] ||
    fail "this must be run as root" "sudo $0 …, or look first with --dry-run"

# systemd is asked only about the machine that this runs on, and where it runs: not in an image that is being made.
systemctl_here() {
    if [ -z "$dry_run" ] && { [ -n "$root" ] || [ ! -d /run/systemd/system ]; }; then
        say "left out, for systemd does not run here: systemctl $*"
    else
        run systemctl "$@"
    fi
}

# --- removing ----------------------------------------------------------------------------------------------------------

if [ -n "$uninstall" ]; then
    [ -z "$packaged" ] || fail "apt installed this board" "apt remove braid-edge-client, or apt purge for identity and settings too" 2
    if [ -e "$units/edge-client.service" ] || [ -n "$dry_run" ]; then
        systemctl_here disable --now edge-client.service
        for unit in edge-client edge-client-doctor; do
            run rm -f "$units/$unit.service" "$units/$unit.service.d/jetson.conf" # your own drop-ins stay
        done
        systemctl_here daemon-reload
    fi
    run rm -rf "$venv"
    if [ -n "$purge" ]; then
        # DynamicUser= keeps the state in private/, with a link to it.
        run rm -rf "$etc/edge-client.toml" "$etc/edge-client.env" "$state" "$root/var/lib/private/braid"
        say "Braid is removed, with its settings and the board's identity."
    else
        say "Braid is removed. Kept: $etc and $state (the board's identity); --uninstall --purge removes them too."
    fi
    exit 0
fi

# --- what this board is ------------------------------------------------------------------------------------------------

# The clone above this folder, or the wheel in it (or in the offline folder): what is installed, and what knows the table.
wheel_in() { find "$1" -maxdepth 1 -name 'braid_fl-*.whl' 2>/dev/null | sort | tail -n 1; }
wheel=$(wheel_in "$here")
[ -n "$wheel" ] || [ -z "$offline" ] || wheel=$(wheel_in "$offline")
if [ -n "$wheel" ]; then source=$wheel; else source=$(dirname -- "$here"); fi
[ -z "$offline" ] || [ -d "$offline" ] || fail "there is no folder $offline" "make it with --download"
[ -n "$wheel" ] || [ -e "$source/pyproject.toml" ] ||
    fail "there is neither a clone nor a wheel of Braid here" "copy braid_fl-….whl beside this script: $here"
if [ -z "$wheel" ] && [ -n "$offline" ]; then
    fail "$offline has no wheel of Braid" "make the folder with --download on a machine with a network"
fi

command -v "$python" >/dev/null || fail "there is no $python" "apt-get install python3 python3-venv, or give --python"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$python is older than 3.10" "install a newer system, or give a newer --python"
[ -x "$venv/bin/python" ] || "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python cannot make virtual environments" "apt-get install python3-venv"

# INSTALL_BOARD_FACTS is for tests: flags that say what board this is.
# shellcheck disable=SC2086  # several flags, or none
choose() {
    PYTHONPATH=$source "$python" -m edge_client.host.torch_build ${root:+--root "$root"} \
        ${build_name:+--build "$build_name"} ${board_python:+--python "$board_python"} ${INSTALL_BOARD_FACTS:-} "$@"
}
build=$(choose) || exit 3
field() { printf '%s\n' "$build" | sed -n "s/^$1: //p"; }
index=$(field index)
requirement=${torch:-$(field requirement)}
if [ -n "$offline" ] && [ -z "$torch" ] && [ -n "$(field wheel)" ]; then
    requirement=$offline/$(basename "$(field wheel)")
    [ -e "$requirement" ] || fail "$requirement is missing" "make the folder with --download --build $(field name)"
fi

say "board    $(field board) (kind: $(field name))"
say "python   $("$python" -c 'import platform; print(platform.python_version())')"
say "torch    $requirement"
say "because  $(field why)"

# --- fetching for boards without a network -----------------------------------------------------------------------------

constraints=''
cleanup() { [ -z "$constraints" ] || rm -f "$constraints"; }
trap cleanup EXIT
for file in "$here/constraints.txt" "$here/../constraints.txt"; do
    if [ -e "$file" ] && [ -z "$constraints" ] && [ -z "$torch" ]; then
        constraints=$(mktemp)
        choose --constraints "$file" >"$constraints"
    fi
done

if [ -n "$download" ]; then
    # Wheels alone: a board has no compiler, and pip refuses a source distribution for another machine. So those that
    # have no wheel are made into one here; they are plain Python.
    machine=$(field machine)
    pip="$python -m pip --disable-pip-version-check"
    own_python=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    target="--only-binary :all: --python-version ${board_python:-$own_python}"
    for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 linux; do target="$target --platform ${tag}_$machine"; done
    run mkdir -p "$download"
    if [ -n "$wheel" ]; then
        run cp "$wheel" "$download/"
    else
        # shellcheck disable=SC2086  # a program with its arguments
        run $pip wheel --quiet --no-deps --wheel-dir "$download" "$source"
    fi
    sed -n 's/^\([a-z0-9-]*\) .*# sdist$/\1/p' "$here/offline-packages.txt" | while read -r package; do
        # shellcheck disable=SC2086
        run $pip wheel --quiet --no-deps ${constraints:+--constraint "$constraints"} --wheel-dir "$download" "$package" </dev/null
    done
    # shellcheck disable=SC2086,SC2046
    run $pip download --quiet --no-deps $target --find-links "$download" ${constraints:+--constraint "$constraints"} \
        --dest "$download" --requirement "$here/offline-packages.txt" $(field also | sed 's/numpy<2//')
    # shellcheck disable=SC2086
    run $pip download --quiet --no-deps $target ${index:+--extra-index-url "$index"} --dest "$download" "$requirement"
    run cp -R "$here/install-board.sh" "$here/edge-client.toml" "$here/edge-client.service" \
        "$here/edge-client-doctor.service" "$here/edge-client.service.d" "$download/"
    say "Copy $download to the board, and there: sudo $(basename "$download")/install-board.sh --offline $(basename "$download") --server …"
    exit 0
fi

# --- the program -------------------------------------------------------------------------------------------------------

need_mib=$(($(field disk_mib) + 320)) # Braid and all else but torch: 315 MiB on x86-64
free_mib=$(df -Pm "${root:-/}" | awk 'NR == 2 { print $4 }')
[ "$free_mib" -ge "$need_mib" ] || [ -n "$(find "$venv" -maxdepth 4 -path '*/site-packages/torch' 2>/dev/null)" ] ||
    fail "$root/opt has $free_mib MiB free, and about $need_mib MiB are needed" "free some space, or take a larger card"

if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c '' 2>/dev/null; then
    say "$venv is there, and is brought up to date"
else
    run mkdir -p "$(dirname "$venv")"
    run "$python" -m venv --clear "$venv"
fi

install() {
    # shellcheck disable=SC2086  # words, or nothing
    run "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        ${offline:+--no-index --find-links "$offline"} ${constraints:+--constraint "$constraints"} "$@"
}
# torch first: what comes after it is satisfied with this build, and never asks for another. What torch needs comes with
# the rest, so that an index beside PyPI that cannot be reached is waited for once.
# shellcheck disable=SC2086
install --no-deps ${index:+--extra-index-url "$index" --timeout 10 --retries 1} "$requirement"
# shellcheck disable=SC2046
install "${source}[client]" $(field also)
[ -z "$wheel" ] || install --no-deps --force-reinstall "$wheel" # the same version may be another build

for library in $(field beside_torch); do
    found=$(find "$venv" -name "$library" ! -path '*/torch/lib/*' 2>/dev/null | head -n 1)
    torch_lib=$(find "$venv" -type d -path '*/torch/lib' 2>/dev/null | head -n 1)
    if [ -n "$dry_run" ]; then
        say "+ link $library, of a package that was installed, beside torch's own libraries"
    elif [ -n "$found" ] && [ -n "$torch_lib" ]; then
        ln -sf "$found" "$torch_lib/$library"
    else
        fail "$library was not found among what was installed" "run this again; if it stays so, report it"
    fi
done

# --- settings and service ----------------------------------------------------------------------------------------------

# A setting of the TOML file: in the place of the line that has it, commented out or not; at the end where none has.
set_key() {
    if [ -n "$dry_run" ]; then
        say "+ in $etc/edge-client.toml: $1 = \"$2\""
        return
    fi
    KEY=$1 VALUE=$2 awk '
        BEGIN { line = ENVIRON["KEY"] " = \"" ENVIRON["VALUE"] "\"" }
        !done && index($0, ENVIRON["KEY"] " = ") == 1 { print line; done = 1; next }
        !done && index($0, "#" ENVIRON["KEY"] " = ") == 1 { print line; done = 1; next }
        { print }
        END { if (!done) print line }
    ' "$etc/edge-client.toml" >"$etc/edge-client.toml.new"
    chmod 644 "$etc/edge-client.toml.new"
    mv "$etc/edge-client.toml.new" "$etc/edge-client.toml"
}

if [ -n "$service" ]; then
    run mkdir -p "$etc" "$units"
    if [ ! -e "$etc/edge-client.toml" ]; then
        run cp "$here/edge-client.toml" "$etc/edge-client.toml"
        [ -n "$fingerprint" ] || run sed -i 's/^fingerprint = /#&/' "$etc/edge-client.toml"
    fi
    [ -z "$server" ] || set_key server "$server"
    [ -z "$fingerprint" ] || set_key fingerprint "$fingerprint"
    [ -z "$data" ] || set_key data "$data"
    if [ -n "$token" ]; then
        if [ -n "$dry_run" ]; then
            say "+ write $etc/edge-client.env (mode 600): BRAID_TOKEN=…"
        else
            (umask 077 && printf 'BRAID_TOKEN=%s\n' "$token" >"$etc/edge-client.env")
            chmod 600 "$etc/edge-client.env"
        fi
    fi
    for unit in edge-client edge-client-doctor; do
        if [ -n "$packaged" ]; then
            run rm -f "$units/$unit.service" # of a board that was no package: it would hide the package's
        else
            run cp "$here/$unit.service" "$units/$unit.service"
        fi
        if [ "$(field gpu)" = yes ]; then
            run mkdir -p "$units/$unit.service.d"
            run cp "$here/edge-client.service.d/jetson.conf" "$units/$unit.service.d/jetson.conf"
        else
            run rm -f "$units/$unit.service.d/jetson.conf" # a card that was in a Jetson
        fi
    done
    systemctl_here daemon-reload
fi

# --- does it work? -----------------------------------------------------------------------------------------------------

[ -z "$doctor" ] || run "$venv/bin/edge-client" doctor || fail "this board cannot train yet" "do what the line above says, and run this again" $?
if [ -n "$service" ]; then
    if [ -n "$server" ] || { [ -z "$root" ] && systemctl is-enabled --quiet edge-client.service 2>/dev/null; }; then
        systemctl_here enable edge-client.service
        systemctl_here restart edge-client.service
        say "The board is at work: journalctl -fu edge-client; what the service may reach: systemctl start edge-client-doctor"
    else
        say "Ready. Put the server into $etc/edge-client.toml, then: systemctl enable --now edge-client"
    fi
fi
