"""What a job may ask for, and what of it may be shown."""

from __future__ import annotations

import re

from modelyard.kernel.errors import InvalidInput
from modelyard.types.jobs import Resources, SubmitJob

SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW|CREDENTIAL|PRIVATE|APIKEY|API_KEY|ACCESS_KEY|_KEY$|_URL$|_URI$|_DSN$", re.I
)
"""Names of variables whose values are not shown. URLs are among them: they often carry a password."""

MASK = "***"
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
COMMAND_BYTES_MAX = 128 * 1024
ENV_BYTES_MAX = 256 * 1024
PRIORITY_MAX = 100
ATTEMPTS_MAX = 100
TIMEOUT_S_MAX = 30 * 86_400.0


def masked(env: dict[str, str]) -> dict[str, str]:
    """What may be shown of a job's environment."""
    return {name: MASK if SECRET_NAME.search(name) else value for name, value in env.items()}


def check_spec(spec: SubmitJob, capacity: Resources) -> None:
    """Raise InvalidInput for a job that has no meaning or could never run."""
    if not spec.command or not spec.command[0].strip():
        raise InvalidInput("a job needs a command", code="job.command_missing", hint="give a program and its arguments")
    size_bytes = sum(len(part.encode("utf-8", "surrogatepass")) + 1 for part in spec.command)
    if size_bytes > COMMAND_BYTES_MAX or any("\0" in part for part in spec.command):
        raise InvalidInput(
            f"the command has {size_bytes:,} bytes (at most {COMMAND_BYTES_MAX:,}), or a NUL character",
            code="job.command_invalid",
            hint="pass large inputs as files or datasets",
        )
    if spec.cwd is not None and (not spec.cwd.startswith("/") or "\0" in spec.cwd or len(spec.cwd) > 4096):
        raise InvalidInput(
            f"the working directory {spec.cwd[:80]!r} is not an absolute path",
            code="job.cwd_invalid",
            hint="give the full path, as the machine knows it that runs the job",
        )
    for name, value in spec.env.items():
        if not ENV_NAME.fullmatch(name) or "\0" in value:
            raise InvalidInput(f"{name[:80]!r} cannot be set as an environment variable", code="job.env_invalid")
    if sum(len(name) + len(value) for name, value in spec.env.items()) > ENV_BYTES_MAX:
        raise InvalidInput(f"the environment is larger than {ENV_BYTES_MAX:,} bytes", code="job.env_invalid")
    _check_numbers(spec)
    if len(spec.name) > 255 or len(spec.idempotency_key or "") > 255:
        raise InvalidInput("a name or key is longer than 255 characters", code="job.name_invalid")
    if not (spec.resources.cpus <= capacity.cpus and spec.resources.memory_bytes <= capacity.memory_bytes):
        raise InvalidInput(
            f"the job asks for {spec.resources.cpus:g} CPUs and {spec.resources.memory_bytes:,} bytes of memory; "
            f"there are {capacity.cpus:g} CPUs and {capacity.memory_bytes:,} bytes at all, so it could never start",
            code="job.too_big",
            hint="ask for less, or raise the settings `cpus` and `memory_bytes`",
        )


def _check_numbers(spec: SubmitJob) -> None:
    # Written so that NaN is refused as well.
    wrong = [
        text
        for good, text in (
            (0 < spec.resources.cpus < 1e6, "cpus must be above 0"),
            (0 <= spec.resources.memory_bytes < 2**62, "memory_bytes must not be negative"),
            (0 < spec.timeout_s <= TIMEOUT_S_MAX, f"timeout_s must be above 0 and at most {TIMEOUT_S_MAX:g}"),
            (0 <= spec.grace_s <= 3600, "grace_s must be from 0 to 3600"),
            (abs(spec.priority) <= PRIORITY_MAX, f"priority must be from -{PRIORITY_MAX} to {PRIORITY_MAX}"),
            (1 <= spec.max_attempts <= ATTEMPTS_MAX, f"max_attempts must be from 1 to {ATTEMPTS_MAX}"),
        )
        if not good
    ]
    if wrong:
        raise InvalidInput(f"the job cannot be meant so: {'; '.join(wrong)}", code="job.spec_invalid")
