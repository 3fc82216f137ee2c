#!/bin/sh
# Makes the virtual environment: first torch, in its build for processors, then Braid and everything else.
# Called by make as: scripts/setup.sh PYTHON VENV
set -eu
python=$1
venv=$2

# PyPI's torch for Linux is a CUDA build of several gigabytes. PyTorch's own index has the same version for processors
# alone, as VERSION+cpu, which pip prefers. Where that index cannot be reached, pip goes on with what PyPI has: after a
# second where its name cannot be looked up, after 20 where it does not answer.
cpu_index=https://download.pytorch.org/whl/cpu
if_unreachable="--timeout 10 --retries 1"

install() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$@"
}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Braid needs Python 3.10 or newer; set PYTHON=")'
test -x "$venv/bin/python" || "$python" -m venv "$venv"
# Without what torch needs, which comes from PyPI below: so that there is one wait for the index at most.
install --no-deps --extra-index-url "$cpu_index" $if_unreachable torch
install --editable '.[dev]'

torch=$("$venv/bin/python" -c 'import torch; print(torch.__version__, "for", "CUDA" if torch.version.cuda else "processors")')
echo "$venv is ready: torch $torch, $(du -sm "$venv" | cut -f1) MiB in all"
