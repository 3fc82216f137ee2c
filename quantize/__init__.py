"""The frozen base at 32, 16, 8 or 4 bits."""
