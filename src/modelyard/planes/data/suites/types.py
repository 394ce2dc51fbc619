"""Names that pandas, SQL and Spark have for types, as the Arrow types that they can mean. Pure."""

from __future__ import annotations

_INTEGERS = {"int8": ["int8"], "int16": ["int16"], "int32": ["int32"], "int64": ["int64"]}
_FLOATS = {"float32": ["float"], "float64": ["double"]}
_TIMES = ["timestamp[us, tz=UTC]"]
_KNOWN: dict[str, list[str]] = {
    **_INTEGERS,
    **_FLOATS,
    "int": ["int64"], "int_": ["int64"], "long": ["int64"], "integer": ["int32", "int64"], "bigint": ["int64"],
    "smallint": ["int16"], "tinyint": ["int8"], "integertype": ["int32", "int64"], "longtype": ["int64"],
    "shorttype": ["int16"], "bytetype": ["int8"],
    "float": ["double"], "float_": ["double"], "double": ["double"], "real": ["float"], "double_precision": ["double"],
    "floattype": ["float"], "doubletype": ["double"], "number": ["int64", "double"],
    "str": ["string"], "str_": ["string"], "string": ["string"], "text": ["string"], "varchar": ["string"],
    "char": ["string"], "stringtype": ["string"], "object": ["string"], "object_": ["string"], "o": ["string"],
    "bool": ["bool"], "bool_": ["bool"], "boolean": ["bool"], "booleantype": ["bool"],
    "datetime64[ns]": _TIMES, "datetime64[us]": _TIMES, "datetime64": _TIMES, "datetime": _TIMES, "timestamp": _TIMES,
    "timestamptype": _TIMES, "datetime64[ns, utc]": _TIMES, "datetime64[us, utc]": _TIMES,
    "date": ["date32[day]"], "datetype": ["date32[day]"],
    "bytes": ["binary"], "binary": ["binary"], "bytea": ["binary"], "binarytype": ["binary"],
}  # fmt: skip


def arrow_types(name: str) -> list[str]:
    """The Arrow types that a name can mean; empty where it is not known."""
    return _KNOWN.get(name.strip().casefold(), [])
