"""The verbs of tracking, one file per noun."""
