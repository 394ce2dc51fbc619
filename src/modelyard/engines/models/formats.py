"""Which files of a model may be opened in one of our processes, judged by name and by content, without loading any.

Scanners that look for bad pickles are blocklists, and blocklists get bypassed: a compressed joblib file, a pickle named
`.bin`, a text pickle. So this is an allowlist. A format is *safe* where its loader reads data only, *unsafe* where
loading runs code of its author (pickle in any wrapping, source code, native libraries), and *unknown* for the rest,
which is treated as not safe. The safety of a model is that of its worst file.
"""

from __future__ import annotations

import bz2
import io
import lzma
import math
import os
import pickletools
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import msgspec

from modelyard.engines.models import onnx_wire

HEAD_BYTES = 64 * 1024
UNPACKED_BYTES_MAX = 1024 * 1024
JSON_HEADER_BYTES_MAX = 100 * 1024 * 1024
TENSORS_HEADER_BYTES_MAX = 16 * 1024 * 1024
TENSOR_DIMENSIONS_MAX = 64
LZMA_BYTES_MAX = 128 * 1024 * 1024
ZIP_MEMBERS_MAX = 10_000
ZIP_END_BYTES_MAX = 65_536 + 256
ZIP_DIRECTORY_BYTES_MAX = 8 * 1024 * 1024
PICKLE_OPCODES_MAX = 200_000


class Safety(StrEnum):
    """Whether loading runs code of whoever made the file."""

    SAFE = "safe"
    UNKNOWN = "unknown"
    UNSAFE = "unsafe"


class FileVerdict(msgspec.Struct, frozen=True):
    """What one file is. `format` is `data` for a safe file that is no model (a requirements list, an input example)."""

    path: str
    format: str
    safety: Safety
    reason: str


class ModelVerdict(msgspec.Struct, frozen=True):
    """What a model directory is: the worst of its files, with the reasons. `format` is that of its model file."""

    format: str
    safety: Safety
    files: list[FileVerdict]

    @property
    def reasons(self) -> list[str]:
        """Why it is not safe, a sentence per file; empty for a safe model."""
        return [f"{one.path}: {one.reason}" for one in self.files if one.safety is not Safety.SAFE] or (
            [] if self.safety is Safety.SAFE else ["no file of a known safe model format"]
        )


DATA = "data"
_MODEL_FORMATS = frozenset({"onnx", "safetensors", "skops", "xgboost", "lightgbm"})
_SEVERITY = {Safety.SAFE: 0, Safety.UNKNOWN: 1, Safety.UNSAFE: 2}
_PICKLE_NAMES = (".pkl", ".pickle", ".pck", ".pcl", ".joblib", ".dill", ".cloudpickle", ".pt", ".pth", ".ckpt")
_CODE_NAMES = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".sh", ".jar", ".whl", ".egg")
_TEXT_NAMES = (".txt", ".yaml", ".yml", ".md", ".csv", ".tsv", ".toml", ".cfg", ".ini", ".log", ".sql")
_TEXT_FILES = frozenset({"MLmodel", "LICENSE", "NOTICE", "README", "registered_model_meta", ".gitignore"})

_TUPLE_MAKERS = frozenset({"TUPLE", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})
_CALLERS = frozenset({"REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD"})
_IMPORTERS = frozenset({"GLOBAL", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"})


def classify_directory(directory: Path) -> ModelVerdict:
    """The verdict on all files below a directory. A symbolic link is unsafe, whatever it points at."""
    verdicts = []
    for root, folders, names in os.walk(directory, followlinks=False):
        for name in sorted([*names, *(f for f in folders if Path(root, f).is_symlink())]):
            path = Path(root, name)
            relative = path.relative_to(directory).as_posix()
            if path.is_symlink() or not path.is_file():
                verdicts.append(FileVerdict(relative, "link", Safety.UNSAFE, "it is a link, not a file"))
                continue
            with path.open("rb") as stream:
                verdicts.append(classify_file(relative, stream))
    return judge(verdicts)


def classify_files(files: Iterable[tuple[str, Callable[[], BinaryIO]]]) -> ModelVerdict:
    """The verdict on named files, each opened by its function: for a store of blobs that is no directory."""
    verdicts = []
    for name, opener in files:
        with opener() as stream:
            verdicts.append(classify_file(name, stream))
    return judge(verdicts)


def judge(verdicts: Iterable[FileVerdict]) -> ModelVerdict:
    """The worst of the files; a directory without any model file is unknown."""
    files = sorted(verdicts, key=lambda one: one.path)
    worst = max((one.safety for one in files), key=_SEVERITY.__getitem__, default=Safety.UNKNOWN)
    models = [one.format for one in files if one.format in _MODEL_FORMATS]
    if worst is Safety.SAFE and not models:
        worst = Safety.UNKNOWN
    bad = [one.format for one in files if one.safety is worst and one.format != DATA]
    name = models[0] if worst is Safety.SAFE else (bad[0] if bad else "none")
    return ModelVerdict(name, worst, files)


def classify_file(name: str, stream: BinaryIO) -> FileVerdict:
    """The verdict on one file: `stream` is seekable and at its start. Reads its head, and an archive's directory."""
    head = stream.read(HEAD_BYTES)
    format_, safety, reason = _classify(name, head, stream)
    return FileVerdict(name, format_, safety, reason)


_Finding = tuple[str, Safety, str]


def _classify(name: str, head: bytes, stream: BinaryIO) -> _Finding:
    lower = PurePosixPath(name).name.lower()
    if lower.endswith(_CODE_NAMES):
        return "code", Safety.UNSAFE, "it is code, which loading the model may run"
    if head.startswith((b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"#!")):
        return "code", Safety.UNSAFE, "it is a program"
    for recognise in (_as_safetensors, _as_onnx, _as_zip, _as_compressed, _as_numpy):
        finding = recognise(lower, head, stream)
        if finding is not None:
            return finding
    if _runs_as_pickle(head):
        return "pickle", Safety.UNSAFE, "it is a pickle, and unpickling runs code of its author"
    if lower.endswith(_PICKLE_NAMES):
        return "pickle", Safety.UNSAFE, "its name says that it is a pickle, whatever its content"
    return _as_text(name, lower, head, stream) or (
        "unknown", Safety.UNKNOWN, "its format is not one that is known to be safe"
    )  # fmt: skip


class _Tensor(msgspec.Struct):
    """An entry of a safetensors header. Typed, so that a header of other things is left at the first of them."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


_TENSOR_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4,
    "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip


def _as_safetensors(_lower: str, head: bytes, stream: BinaryIO) -> _Finding | None:
    if len(head) < 10 or head[8:9] != b"{":
        return None
    length = int.from_bytes(head[:8], "little")
    size = stream.seek(0, os.SEEK_END)
    if not 2 <= length <= JSON_HEADER_BYTES_MAX:
        return None
    if length > TENSORS_HEADER_BYTES_MAX or length > size - 8:
        return "safetensors", Safety.UNKNOWN, "its safetensors header is larger than what is looked into"
    stream.seek(8)
    trouble = _tensors_trouble(stream.read(length), size - 8 - length)
    if trouble:
        return "safetensors", Safety.UNKNOWN, f"its safetensors header is damaged: {trouble}"
    return "safetensors", Safety.SAFE, "tensors without code"


def _tensors_trouble(header: bytes, data_bytes: int) -> str:
    """Why a header cannot be that of so many bytes of tensors; nothing where it fits."""
    try:
        entries = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        entries.pop("__metadata__", None)
        for name, raw in entries.items():
            tensor = msgspec.json.decode(raw, type=_Tensor)
            trouble = _tensor_trouble(tensor, data_bytes)
            if trouble:
                return f"{name[:80]!a} {trouble}"
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeDecodeError):
        return "it is not of the known form"
    return ""


def _tensor_trouble(tensor: _Tensor, data_bytes: int) -> str:
    begin, end = tensor.data_offsets
    if not 0 <= begin <= end <= data_bytes:
        return "lies outside the file"
    if len(tensor.shape) > TENSOR_DIMENSIONS_MAX or any(not 0 <= one < 2**63 for one in tensor.shape):
        return "has an impossible shape"
    width = _TENSOR_BYTES.get(tensor.dtype)
    if width is not None and math.prod(tensor.shape) * width != end - begin:
        return "has a shape that its bytes do not fill"
    return ""


def _as_onnx(lower: str, head: bytes, stream: BinaryIO) -> _Finding | None:
    if not head or head[0] != 0x08:
        return None
    stream.seek(0)
    try:
        model = onnx_wire.scan(stream)
    except onnx_wire.NotOnnx:
        return ("onnx", Safety.UNKNOWN, "it is no whole ONNX file") if lower.endswith(".onnx") else None
    climbing = [place for place in model.external_files if not onnx_wire.is_beside(place)]
    if climbing:
        return "onnx", Safety.UNSAFE, f"it reads outside its directory: {climbing[0][:200]!a}"
    return "onnx", Safety.SAFE, "a graph of ONNX operators"


def _as_zip(lower: str, head: bytes, stream: BinaryIO) -> _Finding | None:
    stream.seek(0)
    # A zip is found by its end, so a pickle may stand before it: both readings of such a file count.
    if not zipfile.is_zipfile(stream):
        return ("zip", Safety.UNKNOWN, "it is a damaged zip archive") if head.startswith(b"PK\x03\x04") else None
    if not head.startswith(b"PK\x03\x04"):
        return "zip", Safety.UNSAFE, "something stands before the zip archive in it"
    if _zip_directory_bytes(stream) > ZIP_DIRECTORY_BYTES_MAX:
        return "zip", Safety.UNKNOWN, "its list of members is larger than what is looked into"
    try:
        return _look_into_zip(lower, stream)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, zlib.error, lzma.LZMAError, EOFError):
        return "zip", Safety.UNKNOWN, "it is a zip archive that cannot be read"


def _zip_directory_bytes(stream: BinaryIO) -> int:
    """How long the list of members says it is: read before anything is made of it."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(size - ZIP_END_BYTES_MAX, 0))
    tail = stream.read(ZIP_END_BYTES_MAX)
    stream.seek(0)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or end + 16 > len(tail):
        return 0
    claimed = int.from_bytes(tail[end + 12 : end + 16], "little")
    record = tail.rfind(b"PK\x06\x06", 0, end)
    if record < 0:
        return claimed
    return max(int.from_bytes(tail[record + 40 : record + 48], "little"), claimed if claimed < 2**32 - 1 else 0)


def _look_into_zip(lower: str, stream: BinaryIO) -> _Finding:
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        if len(members) > ZIP_MEMBERS_MAX:
            return "zip", Safety.UNKNOWN, f"it has more than {ZIP_MEMBERS_MAX:,} members"
        for member in members:
            if member.filename.lower().endswith((*_PICKLE_NAMES, *_CODE_NAMES)):
                return "pickle", Safety.UNSAFE, f"it holds {member.filename!a}, which runs code when loaded"
            with archive.open(member) as inner:
                head = inner.read(HEAD_BYTES)
            if _runs_as_pickle(head) or (_as_numpy("", head, io.BytesIO(head)) or ("",))[0] == "pickle":
                return "pickle", Safety.UNSAFE, f"it holds a pickle: {member.filename!a}"
        names = {member.filename for member in members}
        if lower.endswith(".skops") and "schema.json" in names:
            return "skops", Safety.SAFE, "estimators as JSON and arrays; their types are checked when loading"
        if lower.endswith(".npz") and all(one.endswith(".npy") for one in names):
            return DATA, Safety.SAFE, "arrays without objects"
    return "zip", Safety.UNKNOWN, "it is a zip archive of no known safe model format"


def _as_compressed(_lower: str, head: bytes, _stream: BinaryIO) -> _Finding | None:
    unpacked = _unpack(head)
    if unpacked is None:
        return None
    kind, content = unpacked
    if _runs_as_pickle(content):
        return "pickle", Safety.UNSAFE, f"it is a pickle packed with {kind}, and unpickling runs code of its author"
    return "compressed", Safety.UNKNOWN, f"it is packed with {kind}, and what is inside is not of a known safe format"


def _unpack(head: bytes) -> tuple[str, bytes] | None:
    """The start of what is packed in a stream, and with what; None where it is not packed."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip", _inflate(head, 31)
    if head.startswith(b"BZh"):
        return "bzip2", _decompress(bz2.BZ2Decompressor(), head)
    if head.startswith(b"\xfd7zXZ\x00"):
        return "xz", _decompress(lzma.LZMADecompressor(memlimit=LZMA_BYTES_MAX), head)
    if head.startswith(b"]\x00\x00"):
        return "lzma", _decompress(lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=LZMA_BYTES_MAX), head)
    for magic, kind in (
        (b"\x04\x22\x4d\x18", "lz4"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"ZF", "joblib's old zlib form"), (b"Rar!", "rar"), (b"\x1f\x9d", "compress"),
    ):  # fmt: skip
        if head.startswith(magic):
            return kind, b""
    if len(head) > 2 and head[0] == 0x78 and int.from_bytes(head[:2], "big") % 31 == 0:
        return "zlib", _inflate(head, 15)
    return None


def _inflate(head: bytes, window: int) -> bytes:
    try:
        return zlib.decompressobj(window).decompress(head, UNPACKED_BYTES_MAX)
    except zlib.error:
        return b""


def _decompress(decompressor: bz2.BZ2Decompressor | lzma.LZMADecompressor, head: bytes) -> bytes:
    try:
        return decompressor.decompress(head, UNPACKED_BYTES_MAX)
    except (OSError, lzma.LZMAError, EOFError, ValueError):
        return b""


def _as_numpy(_lower: str, head: bytes, _stream: BinaryIO) -> _Finding | None:
    if not head.startswith(b"\x93NUMPY"):
        return None
    start = 10 if head[6:7] == b"\x01" else 12
    header = head[start : start + 4096].partition(b"\n")[0]
    # An array of objects has 'O' in its type and a pickle for content. A field name with an O in it counts as well:
    # the doubt goes that way.
    described = re.search(rb"'descr':\s*(.*?),\s*'fortran_order'", header)
    if described is None or b"O" in described[1]:
        return "pickle", Safety.UNSAFE, "it is an array of objects, which are pickled"
    return DATA, Safety.SAFE, "an array of numbers"


def _as_text(name: str, lower: str, head: bytes, stream: BinaryIO) -> _Finding | None:
    if head.startswith(b"PAR1") and lower.endswith(".parquet"):
        return DATA, Safety.SAFE, "a Parquet table"
    if not head:
        return DATA, Safety.SAFE, "an empty file"
    if head[:1] == b"{" and b"learner" in head[:64] and lower.endswith((".ubj", ".xgb", ".json")):
        return "xgboost", Safety.SAFE, "XGBoost's own JSON or UBJSON"
    if not _is_text(head, whole=len(head) < HEAD_BYTES):
        return None
    if head.startswith(b"tree\nversion="):
        return "lightgbm", Safety.SAFE, "LightGBM's own text"
    if lower.endswith(".json"):
        return _as_json(stream)
    base = PurePosixPath(name).name
    if lower.endswith(_TEXT_NAMES) or base in _TEXT_FILES:
        return DATA, Safety.SAFE, "plain text"
    return None


def _as_json(stream: BinaryIO) -> _Finding:
    stream.seek(0)
    content = stream.read(JSON_HEADER_BYTES_MAX + 1)
    if len(content) > JSON_HEADER_BYTES_MAX:
        return "json", Safety.UNKNOWN, "it is larger than what is looked into"
    try:
        # Looked through, not built: a hundred megabytes of brackets would be gigabytes of lists.
        msgspec.json.decode(content, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return "json", Safety.UNKNOWN, "it is not valid JSON, though its name says so"
    return DATA, Safety.SAFE, "JSON"


def _is_text(head: bytes, *, whole: bool) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The head may end inside a character; anything broken before its last three bytes is no text.
        if whole or error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return not any(ord(character) < 32 and character not in "\t\n\r\f\x1b" for character in text)


def _runs_as_pickle(head: bytes) -> bool:
    """Whether an unpickler would take it for a pickle, or get as far as running something.

    Walks opcodes without running any. That the stream breaks later is no comfort: what stands before has run by then.
    """
    if len(head) >= 2 and head[0] == 0x80 and head[1] <= 5:
        return True
    imported = with_tuple = False
    opcodes = 0
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(head)):
            opcodes += 1
            if opcode.name in _IMPORTERS:
                imported = True
            elif opcode.name in _TUPLE_MAKERS:
                with_tuple = True
            elif opcode.name == "INST":
                return _names_a_global(argument)
            elif imported and (opcode.name == "OBJ" or (opcode.name in _CALLERS and with_tuple)):
                return True
            if opcodes > PICKLE_OPCODES_MAX:
                return True
    except (ValueError, OverflowError, UnicodeDecodeError, IndexError):
        return False
    return False


def _names_a_global(argument: object) -> bool:
    return isinstance(argument, str) and re.fullmatch(r"[\w.]+ [\w.]+", argument) is not None
