"""The verbs of the registry, one file per noun."""
