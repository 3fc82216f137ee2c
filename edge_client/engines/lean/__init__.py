"""The training engine: a lean T5 over a frozen base, strands and sketches. It is torch; only the worker loads it."""
