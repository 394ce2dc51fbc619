"""Signing model files, and verifying signatures, on this machine: with OpenSSF's `model_signing` and an EC key.

The private key never leaves the machine. Needs the extra `modelyard[signing]`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from modelyard.kernel.errors import Forbidden, InvalidInput, Unavailable


def sign_directory(directory: Path, private_key: Path, password: str = "") -> tuple[str, str]:
    """A signature over every file below a directory: the bundle, and the public key (PEM) that it verifies with.

    Raises InvalidInput for a key that cannot be used.
    """
    signing, _, hashing = _packages()
    public = _public_key(private_key, password)
    with tempfile.TemporaryDirectory() as aside:
        bundle = Path(aside) / "model.sig"
        try:
            config = signing.Config().use_elliptic_key_signer(
                private_key=private_key, password=password.encode() or None
            )
            config.set_hashing_config(_every_file(hashing)).sign(directory, bundle)
        except (ValueError, TypeError) as error:
            raise InvalidInput(f"the files cannot be signed: {error}", code="signing.failed") from error
        return bundle.read_text("utf-8"), public


def verify_directory(directory: Path, bundle: str, public_key: Path) -> None:
    """Raise Forbidden unless the bundle is a signature by that key over exactly the files below a directory."""
    _, verifying, hashing = _packages()
    with tempfile.TemporaryDirectory() as aside:
        file = Path(aside) / "model.sig"
        file.write_text(bundle, "utf-8")
        try:
            config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
            config.set_hashing_config(_every_file(hashing)).verify(directory, file)
        except (ValueError, KeyError, TypeError, _invalid_signature()) as error:
            why = str(error) or "it was not made with this key"
            raise Forbidden(
                f"the files below {directory} do not match this signature: {why}",
                code="signing.invalid",
                hint="download them again, and compare the key with that of whoever signed",
            ) from error


def _every_file(hashing: Any) -> Any:
    # By default git's files are passed over; of a model every file counts.
    return hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)


def _public_key(private_key: Path, password: str) -> str:
    from cryptography.hazmat.primitives import serialization  # an extra, and heavy: imported late

    try:
        key = serialization.load_pem_private_key(private_key.read_bytes(), password.encode() or None)
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(
            f"{private_key} is no private key that can be read: {error}",
            code="signing.key_invalid",
            hint="make one with: openssl ecparam -name prime256v1 -genkey -noout -out private.pem",
        ) from error
    shown = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return shown.decode()


def _packages() -> tuple[Any, Any, Any]:
    try:
        from model_signing import hashing, signing, verifying  # an extra, and heavy: imported late
    except ImportError as error:
        raise Unavailable(
            f"model files can be signed and verified only with the package model-signing: {error}",
            code="signing.not_installed",
            hint="install modelyard[signing]",
        ) from error
    return signing, verifying, hashing


def _invalid_signature() -> type[Exception]:
    from cryptography.exceptions import InvalidSignature  # an extra: imported late

    return InvalidSignature
