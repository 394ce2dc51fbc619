"""Every cap of the platform, in one place. Meeting one is an error that says so; nothing is cut short."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

REQUEST_BODY_BYTES_MAX = 16 * MIB
"""A JSON body. Streams (artifacts, Arrow) have caps of their own."""
ARTIFACT_BYTES_MAX = 64 * GIB
DATASET_BODY_BYTES_MAX = 64 * GIB
DATASET_FILES_MAX = 1_000_000
DATASET_COMMIT_BYTES_MAX = 512 * MIB
"""The body that names the files of a new version."""
BUFFERED_APPEND_BYTES_MAX = 8 * MIB
CODE_SNAPSHOT_BYTES_MAX = 64 * MIB
CODE_SNAPSHOT_FILES_MAX = 20_000
PAGE_ITEMS_MAX = 1_000
PAGE_ITEMS_DEFAULT = 100
EVENT_DATA_BYTES_MAX = 64 * KIB
LINEAGE_NODES_MAX = 2_000
LINEAGE_DEPTH_MAX = 64
NAME_CHARACTERS_MAX = 255
LOG_BYTES_MAX = 64 * MIB
NESTING_MAX = 64
"""Of plain data that is kept and walked later, with any stack."""
SIGN_IN_ATTEMPTS_PER_MINUTE_MAX = 30
