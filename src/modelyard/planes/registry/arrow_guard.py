"""What an Arrow IPC message says of itself, read before Arrow allocates anything for it.

Compressed buffers make 150 MB out of 5 KB, so a body of some megabytes could take all memory of the server. Here they
are found by their flag in the message's metadata (a flatbuffer), and refused.
"""

from __future__ import annotations

import struct

_HEADER_TYPE, _HEADER = 1, 2
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_DICTIONARY_DATA = 1
_COMPRESSION = 3


def is_compressed(metadata: bytes) -> bool:
    """Whether the buffers of a message are compressed. Raises ValueError for metadata that cannot be read."""
    try:
        message = struct.unpack_from("<I", metadata, 0)[0]
        kind_at, header_at = _field(metadata, message, _HEADER_TYPE), _field(metadata, message, _HEADER)
        if not kind_at or not header_at:
            return False
        kind = metadata[kind_at]
        table = _follow(metadata, header_at)
        if kind == _DICTIONARY_BATCH:
            data_at = _field(metadata, table, _DICTIONARY_DATA)
            return bool(data_at) and bool(_field(metadata, _follow(metadata, data_at), _COMPRESSION))
        return kind == _RECORD_BATCH and bool(_field(metadata, table, _COMPRESSION))
    except (struct.error, IndexError) as error:
        raise ValueError("a message's metadata is damaged") from error


def _follow(buffer: bytes, at: int) -> int:
    """Where the offset that stands at a place leads."""
    return at + int(struct.unpack_from("<I", buffer, at)[0])


def _field(buffer: bytes, table: int, index: int) -> int:
    """Where a field of a table stands; 0 where the table does not have it."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    if vtable < 0:
        raise ValueError("a message's metadata is damaged")
    size = struct.unpack_from("<H", buffer, vtable)[0]
    slot = 4 + 2 * index
    offset = struct.unpack_from("<H", buffer, vtable + slot)[0] if slot + 2 <= size else 0
    return table + offset if offset else 0
