"""Proof on ARM without an ARM board: Debian for arm64 under QEMU, in which Braid is installed, trains and is tested.

    make arm64                          every core, the memory and the tests; writes docs/results/arm.md
    make arm64 CORES="cortex-a72"       one core

docs/decisions/0071-arm-by-user-emulation.md says why it is done so.
"""
