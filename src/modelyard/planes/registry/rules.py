"""What models, aliases, tags and stages may be called. Pure; the texts are those that MLflow's clients know."""

from __future__ import annotations

import json
import posixpath
import re
import unicodedata
from collections.abc import Mapping

from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.limits import NAME_CHARACTERS_MAX
from modelyard.types.registry import Policy

TAG_KEY_CHARACTERS_MAX = 250
TAG_VALUE_CHARACTERS_MAX = 100_000
TAGS_MAX = 1_000
ALIAS_CHARACTERS_MAX = 255
DESCRIPTION_CHARACTERS_MAX = 100_000
REASON_CHARACTERS_MAX = 2_000
VERSION_MAX = 2**31 - 1

STAGES = ("None", "Staging", "Production", "Archived")
ACTIVE_STAGES = ("Staging", "Production")

_ALIAS = re.compile(r"[\w\-]+")
_VERSION_ALIAS = re.compile(r"[vV]\d+")
_KEY = re.compile(r"[/\w.\- :]*")
_KEY_CHARACTERS = (
    "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), colon(:)"
    " and slashes (/)."
)


def check_model_name(name: str, field: str = "name") -> str:
    """The name, if a model may have it. Raises InvalidInput."""
    if not name.strip():
        raise InvalidInput(f"Missing value for required parameter '{field}'.", code="model.name_missing")
    if "/" in name or ":" in name:
        raise InvalidInput(
            f"Invalid model name '{name[:300]}'. Names cannot contain '/' or ':'.", code="model.name_invalid"
        )
    if _resolves_elsewhere(name):
        raise InvalidInput(_invalid_value(field, name, _elsewhere(name)), code="model.name_invalid")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise InvalidInput(_invalid_value(field, name, "it holds control characters"), code="model.name_invalid")
    _check_length(field, NAME_CHARACTERS_MAX, name)
    return name


def check_alias(alias: str) -> str:
    """The alias, if it has the form of one. Raises InvalidInput."""
    if not alias:
        raise InvalidInput("Registered model alias name cannot be empty.", code="alias.invalid")
    if _ALIAS.fullmatch(alias) is None:
        raise InvalidInput(
            f"Invalid alias name: '{alias[:300]}'. Names may only contain alphanumerics, underscores (_), "
            "and dashes (-).",
            code="alias.invalid",
        )
    _check_length("Registered model alias name", ALIAS_CHARACTERS_MAX, alias)
    return alias


def check_settable_alias(alias: str) -> str:
    """The alias, if it may be set: `latest` and `v<number>` always mean something else. Raises InvalidInput."""
    check_alias(alias)
    if alias.lower() == "latest":
        raise InvalidInput("'latest' alias name (case insensitive) is reserved.", code="alias.reserved")
    if _VERSION_ALIAS.fullmatch(alias):
        raise InvalidInput(f"Version alias name '{alias}' is reserved.", code="alias.reserved")
    return alias


def check_version(version: str | int) -> int:
    """The version's number. Raises InvalidInput for what is none."""
    try:
        number = int(version)
    except ValueError as error:
        raise InvalidInput(
            f"Parameter 'version' must be an integer, got '{str(version)[:100]}'.", code="version.invalid"
        ) from error
    # A number that no column holds is no version that could exist.
    return number if 0 < number <= VERSION_MAX else 0


def check_tag_key(key: str) -> str:
    """The key, if a tag may have it. Raises InvalidInput."""
    if not key:
        raise InvalidInput("Missing value for required parameter 'key'.", code="tag.invalid")
    if _KEY.fullmatch(key) is None:
        raise InvalidInput(_invalid_value("key", key, _KEY_CHARACTERS), code="tag.invalid")
    if _resolves_elsewhere(key):
        raise InvalidInput(_invalid_value("key", key, _elsewhere(key)), code="tag.invalid")
    return key


def check_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags, if all may be set. Raises InvalidInput."""
    if len(tags) > TAGS_MAX:
        raise InvalidInput(f"{len(tags)} tags are more than {TAGS_MAX}", code="tag.too_many")
    for key, value in tags.items():
        check_tag_key(key)
        _check_length("key", TAG_KEY_CHARACTERS_MAX, key)
        _check_length("value", TAG_VALUE_CHARACTERS_MAX, value)
    return dict(tags)


def check_description(text: str) -> str:
    """The description, if it is not too long. Raises InvalidInput."""
    _check_length("description", DESCRIPTION_CHARACTERS_MAX, text)
    return text


def check_reason(text: str, what: str) -> str:
    """The reason for an act that needs one. Raises InvalidInput where it is empty or too long."""
    if not text.strip():
        raise InvalidInput(f"{what} needs a reason", code="reason.missing", hint="say why, in a sentence")
    _check_length("reason", REASON_CHARACTERS_MAX, text)
    return text


def guards(policy: Policy, alias: str) -> bool:
    """Whether a policy has a say in an alias; one that names none has it in all."""
    return not policy.aliases or alias in policy.aliases


def canonical_stage(stage: str) -> str:
    """The stage as it is written. Raises InvalidInput for another word."""
    for known in STAGES:
        if known.lower() == stage.lower():
            return known
    raise InvalidInput(
        f"Invalid Model Version stage: {stage[:100]}. Value must be one of {', '.join(STAGES)}.",
        code="stage.invalid",
    )


def _check_length(what: str, limit: int, text: str) -> None:
    if len(text) > limit:
        raise InvalidInput(f"'{what}' exceeds the maximum length of {limit} characters", code="value.too_long")


def _resolves_elsewhere(name: str) -> bool:
    plain = posixpath.normpath(name)
    return plain != name or plain == "." or plain.startswith(("..", "/"))


def _elsewhere(name: str) -> str:
    return (
        "Names may be treated as files in certain cases, and must not resolve to other names"
        f" when treated as such. This name would resolve to {posixpath.normpath(name)!r}"
    )


def _invalid_value(field: str, value: str, why: str) -> str:
    shown = json.dumps(value[:300])
    return f"Invalid value {shown} for parameter '{field}' supplied: {why}"
