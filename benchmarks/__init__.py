"""Figures, each beside a peer and a floor measured in the same run, quoted as a ratio. Timing never decides a test."""
