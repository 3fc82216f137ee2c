"""The names of the formats, apart from the code behind them so that a command line can list them without torch."""

from __future__ import annotations

FORMATS = ("fp32", "bf16", "int8", "nf4")
"""From the most precise to the smallest: 32, 16, 8 and 4.5 bits per value."""
