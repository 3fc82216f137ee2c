"""Packages for Debian and Ubuntu: what is in them, and how they are made (docs/decisions/0070-packages-for-debian.md)."""
