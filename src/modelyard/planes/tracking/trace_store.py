"""The tables of traces. Their ids are texts that clients choose, unique in a project.

A span is one row: what search asks of it in columns, and the whole of it as JSON text, which full-text search reads.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, String, Table, Text

from modelyard.kernel.schema import Json, metadata

ID_CHARACTERS_MAX = 250

traces = Table(
    "traces",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("id", String(ID_CHARACTERS_MAX), primary_key=True),
    Column("experiment", BigInteger, nullable=False),
    Column("request_ms", BigInteger, nullable=False),
    Column("duration_ms", BigInteger),
    Column("state", String(20), nullable=False),
    Column("client_request_id", Text),
    Column("request_preview", Text),
    Column("response_preview", Text),
    Index("traces_by_time", "project", "experiment", "request_ms", "id"),
)
trace_tags = Table(
    "trace_tags",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("trace", String(ID_CHARACTERS_MAX), primary_key=True),
    Column("key", String(250), primary_key=True),
    Column("value", Text, nullable=False),
)
trace_metadata = Table(
    "trace_metadata",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("trace", String(ID_CHARACTERS_MAX), primary_key=True),
    Column("key", String(250), primary_key=True),
    Column("value", Text, nullable=False),
)
spans = Table(
    "trace_spans",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("trace", String(ID_CHARACTERS_MAX), primary_key=True),
    Column("id", String(16), primary_key=True),
    Column("parent", String(16)),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("status", String(8), nullable=False),
    Column("start_ns", BigInteger, nullable=False),
    Column("end_ns", BigInteger),
    Column("content", Text, nullable=False),
)
assessments = Table(
    "trace_assessments",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("trace", String(ID_CHARACTERS_MAX), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("name", String(250), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("value", Text, nullable=False),
    # The value as search reads it: a text without quotes.
    Column("text", Text, nullable=False),
    Column("error", Json),
    Column("source_type", Text, nullable=False),
    Column("source_id", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("rationale", Text),
    Column("metadata", Json, nullable=False),
    # The session that the assessment speaks for as a whole, where its metadata names one.
    Column("session", Text),
    Column("span", Text),
    Column("overrides", String(64)),
    Column("valid", Boolean, nullable=False),
    Index("trace_assessments_by_name", "project", "kind", "name"),
)
links = Table(
    "trace_links",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("trace", String(ID_CHARACTERS_MAX), primary_key=True),
    # `run` with a run's id, or `prompt` with `name/version`.
    Column("kind", String(8), primary_key=True),
    Column("target", String(512), primary_key=True),
    Index("trace_links_by_target", "project", "kind", "target"),
)
issues = Table(
    "trace_issues",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("id", String(40), primary_key=True),
    Column("experiment", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("severity", String(16)),
    Column("root_causes", Json, nullable=False),
    Column("categories", Json, nullable=False),
    Column("source_run_id", String(64)),
    Column("created_by", Text),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Index("trace_issues_by_time", "project", "experiment", "created_ms"),
)
