"""Studies: benchmarks of many runs, several at a time, kept in a file, and the tables that they print."""
