"""Packages for Debian and Ubuntu, and how they are made (docs/decisions/0070-packages-for-debian.md)."""
