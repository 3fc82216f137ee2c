"""Fuzzing by coverage: hostile input for everything that reads what others send, found by atheris and libFuzzer."""
