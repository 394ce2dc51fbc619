"""YAML of others is plain data or refused; policies name what is wrong with them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.kernel.errors import InvalidInput
from modelyard.planes.registry.documents import MLmodel, read_mlmodel, read_policy, read_yaml

MLMODEL = b"""
artifact_path: model
flavors:
  python_function:
    loader_module: mlflow.sklearn
    model_path: model.pkl
  sklearn: {code: null, pickled_model: model.pkl, saved: 2026-01-02 03:04:05}
model_id: m-1f
run_id: abc
signature:
  inputs: '[{"type": "double", "name": "x", "required": true}]'
  outputs: '[{"type": "long"}]'
  params: null
"""


def test_mlmodel_is_read() -> None:
    found = read_mlmodel(MLMODEL)
    assert found.flavors["python_function"]["loader_module"] == "mlflow.sklearn"
    assert found.signature == {
        "inputs": [{"type": "double", "name": "x", "required": True}],
        "outputs": [{"type": "long"}],
    }


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"[1, 2]",
        b"flavors: !!python/object/apply:os.system ['true']",
        b"a: &a [*a]",
        b"a: 'open",
        b"{" * 5000,
    ],
)
def test_a_broken_mlmodel_says_nothing(content: bytes) -> None:
    assert read_mlmodel(content) == MLmodel()


@pytest.mark.parametrize("signature", ["inputs: 'no json'", "inputs: null", "outputs: '[]'", "7"])
def test_a_broken_signature_is_none(signature: str) -> None:
    assert read_mlmodel(f"signature:\n  {signature}\n".encode()).signature is None


def test_a_bomb_of_aliases_is_refused_fast() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(InvalidInput) as caught:
        read_yaml("\n".join(lines))
    assert caught.value.code == "yaml.too_large"


def test_honest_aliases_are_read() -> None:
    assert read_yaml("a: &x [1, 2]\nb: *x\n") == {"a": [1, 2], "b": [1, 2]}


@settings(deadline=None)
@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_any_bytes_are_data_or_refused(content: bytes) -> None:
    with suppress(InvalidInput):
        read_yaml(content)


def test_a_policy_is_read() -> None:
    policy = read_policy(
        """
        aliases: [champion]
        dataset: dataset:held_out@1
        metrics: [{metric: auc, min: 0.65}]
        slices: [{columns: [carrier, origin], limit: 0.55, max_gap: 0.1, min_rows: 500}]
        champion: {margin: 0.001, confidence: 0.95}
        latency: {p95_ms: 20}
        provenance: {run: true, data: true}
        signature: true
        approvals: {count: 1, automation: true}
        """
    )
    assert policy.metrics[0].min == 0.65
    assert policy.approvals.automation
    assert policy.champion is not None
    assert policy.champion.alias == "champion"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("7", "mapping"),
        ("metrics: [{metric: auc, floor: 0.6}]", "floor"),
        ("metrics: [{metric: gini, min: 0.6}]", "gini"),
        ("metrics: [{metric: auc}]", "neither min nor max"),
        ("metrics: [{metric: auc, min: 0.9, max: 0.1}]", "at least 0.9"),
        ("metrics: [{metric: auc, min: .nan}]", "not a number"),
        ("slices: [{columns: [carrier]}]", "neither limit nor max_gap"),
        ("slices: [{columns: []}]", "columns"),
        ("champion: {margin: .nan}", "not a number"),
        ("champion: {confidence: 1.5}", "confidence"),
        ("aliases: [latest]", "reserved"),
        ("aliases: ['a b']", "Invalid alias"),
        ("dataset: flights", "names no dataset"),
        ("approvals: {count: -1}", "count"),
        ("!!python/name:os.system", "cannot be read"),
    ],
)
def test_a_bad_policy_says_what_is_wrong(text: str, word: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_policy(text)
    assert word in str(caught.value)
