"""Models as files: what kind they are (`formats`), and how one is loaded and asked (`base`, one file per runtime)."""
