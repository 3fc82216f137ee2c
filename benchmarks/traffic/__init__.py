"""Bytes between boards and server: smaller number formats, and downloads as differences."""
