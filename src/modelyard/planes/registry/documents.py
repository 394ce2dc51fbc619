"""YAML that others wrote, read as plain data: a model's `MLmodel` file, and policies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.kernel.errors import InvalidInput
from modelyard.planes.registry.metrics import LARGER_IS_BETTER
from modelyard.planes.registry.rules import check_settable_alias
from modelyard.planes.registry.signing import check_public_key
from modelyard.types.registry import Policy

if TYPE_CHECKING:
    import yaml

YAML_BYTES_MAX = 4 * 1024 * 1024
YAML_NODES_MAX = 200_000
YAML_DEPTH_MAX = 100
MLMODEL = "MLmodel"
README = "README.md"
LICENSE_CHARACTERS_MAX = 255
PATH_CHARACTERS_MAX = 1_024


@dataclass(frozen=True)
class MLmodel:
    """What an `MLmodel` file says; what it does not say is empty."""

    flavors: dict[str, Any] = field(default_factory=dict)
    signature: dict[str, Any] | None = None
    input_example: str = ""
    license: str = ""


def read_yaml(content: bytes | str) -> Any:
    """Plain data from YAML. Raises InvalidInput for tags that stand for objects, and for bombs of any kind."""
    size = len(content)
    if size > YAML_BYTES_MAX:
        raise InvalidInput(f"the YAML has {size:,} bytes, at most {YAML_BYTES_MAX:,} are read", code="yaml.too_large")
    import yaml

    try:
        loader = yaml.SafeLoader(content)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _count(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"the YAML cannot be read: {_first_line(error)}", code="yaml.invalid") from error


def _count(root: yaml.Node) -> None:
    """Refuse a document that would unfold to too many nodes through its aliases, or that contains itself."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()
    stack: list[tuple[yaml.Node, bool]] = [(root, False)]
    while stack:
        node, done = stack.pop()
        children = _children(node)
        if done:
            open_nodes.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(child)] for child in children)
            if sizes[id(node)] > YAML_NODES_MAX:
                raise InvalidInput(f"the YAML has more than {YAML_NODES_MAX:,} values", code="yaml.too_large")
            continue
        if id(node) in sizes:
            continue
        if id(node) in open_nodes:
            raise InvalidInput("the YAML contains itself", code="yaml.invalid")
        open_nodes.add(id(node))
        if len(open_nodes) > YAML_DEPTH_MAX:
            raise InvalidInput(f"the YAML is nested deeper than {YAML_DEPTH_MAX}", code="yaml.too_large")
        stack.append((node, True))
        stack.extend((child, False) for child in children)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if node.id == "mapping":
        return [part for pair in node.value for part in pair]
    return list(node.value) if node.id == "sequence" else []


def read_mlmodel(content: bytes) -> MLmodel:
    """What an `MLmodel` file says. A file that cannot be read, or says something else, says nothing."""
    try:
        document = read_yaml(content)
    except InvalidInput:
        return MLmodel()
    if not isinstance(document, Mapping):
        return MLmodel()
    flavors, metadata, example = (document.get(key) for key in ("flavors", "metadata", "saved_input_example_info"))
    return MLmodel(
        flavors=_plain(flavors) if isinstance(flavors, Mapping) else {},
        signature=_signature(document.get("signature")),
        input_example=_short_text(example, "artifact_path", PATH_CHARACTERS_MAX),
        license=_short_text(metadata, "license", LICENSE_CHARACTERS_MAX),
    )


def read_license(readme: bytes) -> str:
    """The licence that a README declares in its YAML head, as Hugging Face's model cards do; else nothing."""
    head = readme.replace(b"\r\n", b"\n")
    if not head.startswith(b"---\n"):
        return ""
    front, ended, _ = head[4:].partition(b"\n---")
    if not ended:
        return ""
    try:
        return _short_text(read_yaml(front), "license", LICENSE_CHARACTERS_MAX)
    except InvalidInput:
        return ""


def _short_text(found: Any, key: str, most: int) -> str:
    value = found.get(key) if isinstance(found, Mapping) else None
    return value.strip() if isinstance(value, str) and len(value) <= most and value.isprintable() else ""


def _signature(found: Any) -> dict[str, Any] | None:
    """MLflow writes inputs, outputs and params as JSON in text; a signature without inputs is none."""
    if not isinstance(found, Mapping):
        return None
    signature: dict[str, Any] = {}
    for part in ("inputs", "outputs", "params"):
        value = found.get(part)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return None
        if value:
            signature[part] = value
    return _plain(signature) if "inputs" in signature else None


def _plain(value: Mapping[Any, Any]) -> dict[str, Any]:
    """The value as JSON has it, so that it can be stored; dates become text."""
    found: dict[str, Any] = json.loads(json.dumps(value, default=str))
    return found


def read_policy(text: str) -> Policy:
    """A policy from its YAML. Raises InvalidInput, naming the field that is wrong."""
    document = read_yaml(text)
    if not isinstance(document, Mapping):
        raise InvalidInput(
            "a policy is a mapping of gates",
            code="policy.invalid",
            hint="for example: {metrics: [{metric: auc, min: 0.65}], signature: true, approvals: {count: 1}}",
        )
    try:
        policy = msgspec.convert(document, Policy)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the policy is not valid: {error}", code="policy.invalid") from error
    return check_policy(policy)


def check_policy(policy: Policy) -> Policy:
    """The policy, if each gate of it can decide something. Raises InvalidInput."""
    for alias in policy.aliases:
        check_settable_alias(alias)
    if policy.champion is not None:
        check_settable_alias(policy.champion.alias)
    if policy.dataset and not policy.dataset.startswith("dataset:"):
        raise InvalidInput(
            f"'{policy.dataset[:200]}' names no dataset", code="policy.invalid", hint="write dataset:name@version"
        )
    for gate in policy.metrics:
        if gate.min is None and gate.max is None:
            raise InvalidInput(f"the gate on {gate.metric} has neither min nor max", code="policy.invalid")
        _check_order(gate.min, gate.max, gate.metric)
    for cut in policy.slices:
        if cut.limit is None and cut.max_gap is None:
            raise InvalidInput(
                f"the gate on slices by {', '.join(cut.columns)} has neither limit nor max_gap", code="policy.invalid"
            )
    numbers = [number for gate in policy.metrics for number in (gate.min, gate.max)]
    numbers += [number for cut in policy.slices for number in (cut.limit, cut.max_gap)]
    if any(number is not None and number != number for number in numbers):
        raise InvalidInput("a limit of the policy is not a number", code="policy.invalid")
    if policy.champion is not None and policy.champion.margin != policy.champion.margin:
        raise InvalidInput("the margin of the champion gate is not a number", code="policy.invalid")
    kinds = [gate.kind for gate in policy.attestations]
    if len(set(kinds)) < len(kinds):
        raise InvalidInput("two gates of the policy ask for attestations of one kind", code="policy.invalid")
    if any(not one.strip() for one in policy.licenses):
        raise InvalidInput(
            "a licence of the policy has no name", code="policy.invalid", hint="write SPDX ids such as Apache-2.0"
        )
    for key in policy.require_signature.keys if policy.require_signature else ():
        check_public_key(key)
    assert all(gate.metric in LARGER_IS_BETTER for gate in policy.metrics)
    return policy


def _check_order(low: float | None, high: float | None, metric: str) -> None:
    if low is not None and high is not None and low > high:
        raise InvalidInput(
            f"the gate on {metric} asks for at least {low:g} and at most {high:g}", code="policy.invalid"
        )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
