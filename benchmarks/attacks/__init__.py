"""Bad boards in simulated fleets, and the server's defences against them."""
