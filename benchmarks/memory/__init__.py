"""Memory: predicted against measured peaks, and whole rounds under real limits."""
