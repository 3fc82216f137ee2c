"""The guard at the door: connections, calls and bodies are scarce, and nobody may take so many that others get none."""
