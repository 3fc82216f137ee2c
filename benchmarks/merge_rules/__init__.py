"""The comparison of merge rules on simulated fleets, and of server optimisers."""
