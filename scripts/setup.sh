#!/bin/sh
# Makes the virtual environment: first torch, in the build that serves this machine, then Braid and everything else.
# Called by make as: scripts/setup.sh PYTHON VENV
set -eu
python=$1
venv=$2

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Braid needs Python 3.10 or newer; set PYTHON=")'
test -x "$venv/bin/python" || "$python" -m venv "$venv"

# Which torch is the table's to say (edge_client/host/torch_build/builds.json), and constraints.txt follows it. Where an
# index beside PyPI cannot be reached, pip goes on with what PyPI has: after a second where its name cannot be looked up,
# after 20 where it does not answer.
build=$("$venv/bin/python" -m edge_client.host.torch_build)
field() { printf '%s\n' "$build" | sed -n "s/^$1: //p"; }
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
"$venv/bin/python" -m edge_client.host.torch_build --constraints constraints.txt > "$constraints"
index=$(field index)
if_unreachable="--timeout 10 --retries 1"

install() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$constraints" "$@"
}

echo "torch $(field version), the build for a $(field board)"
# Without what torch needs, which comes from PyPI below: so that there is one wait for the index at most.
# shellcheck disable=SC2086  # several words, or none
install --no-deps ${index:+--extra-index-url "$index" $if_unreachable} "$(field requirement)"
# shellcheck disable=SC2046  # several requirements
install --editable '.[dev]' $(field also)

torch=$("$venv/bin/python" -c 'import torch; print(torch.__version__, "for", "CUDA" if torch.version.cuda else "processors")')
echo "$venv is ready: torch $torch, $(du -sm "$venv" | cut -f1) MiB in all"
