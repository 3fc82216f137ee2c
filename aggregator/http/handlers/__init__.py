"""One file per group of calls; handlers read, ask the run, answer, and raise what goes wrong."""
