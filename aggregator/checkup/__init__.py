"""The checkup of a server's folder: `aggregator check`, which reads everything and writes nothing."""
