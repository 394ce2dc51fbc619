"""Signatures over the files of a version, in the form of OpenSSF model signing: verified here, made elsewhere.

A signature is a Sigstore bundle: a DSSE envelope around an in-toto statement that names every file with its SHA-256.
It is verified against the digests on record, without reading a file: that the bytes have these digests is checked
whenever they are read. What the statement does not name, and what it names and is not there, is a difference.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.kernel.errors import InvalidInput, Unavailable
from modelyard.types.registry import FileSignature, ModelFile, SignatureCheck, TrustedKeys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
NAMED_MAX = 3
_HASH_OF_CURVE = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}


class _Signed(msgspec.Struct):
    sig: str


class _Envelope(msgspec.Struct, rename="camel"):
    payload: str
    payload_type: str
    signatures: list[_Signed]


class _Bundle(msgspec.Struct, rename="camel"):
    dsse_envelope: _Envelope


class _Resource(msgspec.Struct):
    name: str
    digest: str
    algorithm: str = "sha256"


class _Serialization(msgspec.Struct):
    method: str = ""


class _Predicate(msgspec.Struct):
    resources: list[_Resource]
    serialization: _Serialization = msgspec.field(default_factory=_Serialization)


class _Subject(msgspec.Struct):
    name: str
    digest: dict[str, str]


class _Statement(msgspec.Struct, rename="camel"):
    subject: list[_Subject]
    predicate_type: str
    predicate: _Predicate
    statement_type: str = msgspec.field(name="_type", default="")


def check_public_key(text: str) -> str:
    """The fingerprint of a public key: the SHA-256 of its PEM, as the bundles name it. Raises InvalidInput."""
    return hashlib.sha256(_pem(_key(text))).hexdigest()


def trouble(bundle: str, public_key: str, files: Sequence[ModelFile]) -> str:
    """Why a bundle is no signature by that key over exactly these files; nothing where it is one."""
    try:
        envelope = msgspec.json.decode(bundle, type=_Bundle).dsse_envelope
        payload = base64.b64decode(envelope.payload, validate=True)
        signed = [base64.b64decode(one.sig, validate=True) for one in envelope.signatures]
    except (msgspec.DecodeError, msgspec.ValidationError, binascii.Error, ValueError) as error:
        return f"the bundle cannot be read: {error}"
    if envelope.payload_type != PAYLOAD_TYPE:
        return f"the bundle holds {envelope.payload_type[:80]!a}, no in-toto statement"
    if not any(_verifies(_key(public_key), one, payload) for one in signed):
        return "it was not made with this key, or what it says was changed"
    try:
        statement = msgspec.json.decode(payload, type=_Statement)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        return f"the signed statement cannot be read: {error}"
    return _statement_trouble(statement) or _difference(statement.predicate.resources, files)


def check_signatures(
    signatures: Sequence[FileSignature], files: Sequence[ModelFile], digest: str, trusted: TrustedKeys | None
) -> list[SignatureCheck]:
    """How each signature stands now. Each is verified anew, with the keys of the policy and not with what is stored."""
    keys = {check_public_key(key): key for key in (trusted.keys if trusted else ())}
    checks = []
    for one in signatures:
        why = "" if one.version_digest == digest else "it is over other bytes than this version's"
        why = why or trouble(one.bundle, keys.get(one.key, one.public_key), files)
        known = one.key in keys
        reason = why or ("by a trusted key" if known else "by a key that the policy does not name")
        checks.append(
            SignatureCheck(
                signature=one.id, key=one.key, by=one.by, valid=not why, trusted=known and not why, reason=reason
            )
        )
    return checks


def _statement_trouble(statement: _Statement) -> str:
    if statement.statement_type != STATEMENT_TYPE or statement.predicate_type != PREDICATE_TYPE:
        return f"the statement is of type {statement.predicate_type[:80]!a}, no model signature"
    if statement.predicate.serialization.method not in ("", "files"):
        return f"the files were signed by {statement.predicate.serialization.method[:40]!a}, not whole"
    overall = hashlib.sha256()
    for one in statement.predicate.resources:
        if one.algorithm != "sha256":
            return f"a file was signed by {one.algorithm[:40]!a}, not by its SHA-256"
        try:
            overall.update(bytes.fromhex(one.digest))
        except ValueError:
            return f"{one.digest[:80]!a} is no digest"
    if len(statement.subject) != 1 or statement.subject[0].digest.get("sha256") != overall.hexdigest():
        return "the statement contradicts itself: its files do not give its digest"
    return ""


def _difference(resources: Sequence[_Resource], files: Sequence[ModelFile]) -> str:
    signed = {one.name: one.digest for one in resources}
    here = {one.path: one.digest for one in files}
    if len(signed) < len(resources):
        return "the statement names a file twice"
    changed = sorted(name for name in signed.keys() & here.keys() if signed[name] != here[name])
    found = [
        _named("changed", changed),
        _named("not signed", sorted(here.keys() - signed.keys())),
        _named("signed but missing", sorted(signed.keys() - here.keys())),
    ]
    return "; ".join(filter(None, found))


def _named(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return f"{what}: {', '.join(names[:NAMED_MAX])}{more}"


def _verifies(key: EllipticCurvePublicKey, signature: bytes, payload: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # heavy: imported late
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    encoded = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} ".encode() + payload
    algorithms: Mapping[str, Any] = {"SHA256": hashes.SHA256, "SHA384": hashes.SHA384, "SHA512": hashes.SHA512}
    try:
        key.verify(signature, encoded, ec.ECDSA(algorithms[_HASH_OF_CURVE[key.curve.name]]()))
    except InvalidSignature:
        return False
    return True


def _key(text: str) -> EllipticCurvePublicKey:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm  # heavy: imported late, and an extra
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        raise Unavailable(
            "signatures cannot be verified: the package cryptography is not installed",
            code="signing.not_installed",
            hint="install modelyard[signing]",
        ) from error
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(
            "this is no public key in PEM form",
            code="signing.key_invalid",
            hint="make one with: openssl ec -in private.pem -pubout",
        ) from error
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in _HASH_OF_CURVE:
        raise InvalidInput(
            f"only keys on the curves {', '.join(_HASH_OF_CURVE)} sign models",
            code="signing.key_invalid",
            hint="make one with: openssl ecparam -name prime256v1 -genkey -noout -out private.pem",
        )
    return key


def _pem(key: EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # heavy: imported late

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
