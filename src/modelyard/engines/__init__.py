"""Physical capabilities: one folder per kind, one file per engine, the protocol in `base.py`."""
