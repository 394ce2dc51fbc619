"""The planes: one folder per family of nouns, all of the same inner shape."""
