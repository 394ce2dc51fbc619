"""The flights project end to end, one step a file, each through the platform's public API."""
