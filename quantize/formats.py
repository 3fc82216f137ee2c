"""Names of the formats, apart from the code behind them so that a command line can list them without torch."""

from __future__ import annotations

from typing import Literal, get_args

Format = Literal["fp32", "bf16", "int8", "nf4"]
"""Number format of a base's matrices: 32, 16, 8 or 4.5 bits per value."""

FORMATS: tuple[Format, ...] = get_args(Format)
"""All of them, from the most precise to the smallest."""
