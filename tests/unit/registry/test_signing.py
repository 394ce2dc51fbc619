"""Signed versions: made by OpenSSF's own package, verified by ours and by theirs, wanted by a policy, never forged."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("model_signing", reason="needs modelyard[signing]")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from modelyard.kernel.auth import Role, Scope
from modelyard.kernel.errors import Conflict, Forbidden, InvalidInput
from modelyard.planes.registry.documents import read_policy
from modelyard.planes.registry.signing import check_public_key, trouble
from modelyard.sdk.signing import sign_directory, verify_directory
from modelyard.types.registry import ModelFile, Policy, SignVersion, TrustedKeys

from .conftest import LIGHTGBM, MLMODEL, House

FILES = {"MLmodel": MLMODEL, "model.txt": LIGHTGBM, ".gitattributes": b"* text\n", "data/input.json": b"{}"}


def file_of(path: str, content: bytes) -> ModelFile:
    return ModelFile(path, hashlib.sha256(content).hexdigest(), len(content))


class Key:
    """An EC key pair in files."""

    def __init__(self, folder: Path, name: str, curve: ec.EllipticCurve | None = None, password: bytes = b"") -> None:
        made = ec.generate_private_key(curve or ec.SECP256R1())
        sealed = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        self.private, self.public = folder / f"{name}.pem", folder / f"{name}.pub"
        self.private.write_bytes(
            made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed)
        )
        shown = made.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.public.write_bytes(shown)
        self.text = shown.decode()


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return Key(tmp_path, "release")


def signed(house: House, ann: Scope, key: Key, folder: Path, version: int = 1) -> SignVersion:
    """What the command line sends: the files written out, and signed there."""
    house.registry.versions.materialize(ann, "delay", version, folder)
    bundle, public = sign_directory(folder, key.private)
    return SignVersion(bundle=bundle, public_key=public)


def test_a_version_signed_by_a_trusted_key_may_be_promoted_and_loaded(
    house: House, ann: Scope, key: Key, tmp_path: Path
) -> None:
    house.version(ann, files=FILES)
    house.registry.models.set_policy(ann, "delay", Policy(require_signature=TrustedKeys(keys=[key.text])))
    for act in (
        lambda: house.registry.promote(ann, "delay", 1, "champion", ""),
        lambda: house.registry.materialize(ann, "delay", 1, tmp_path / "unsigned"),
    ):
        with pytest.raises(Forbidden, match="signed"):
            act()
    made = house.registry.statements.sign(ann, "delay", 1, signed(house, ann, key, tmp_path / "files"))
    assert made.key == check_public_key(key.text)
    (check,) = house.registry.statements.check(ann, "delay", 1)
    assert (check.valid, check.trusted) == (True, True)
    assert house.registry.promote(ann, "delay", 1, "champion", "").aliases == ["champion"]
    house.registry.materialize(ann, "delay", 1, tmp_path / "signed")
    verify_directory(tmp_path / "signed", made.bundle, key.public)


def test_a_signature_by_another_key_is_valid_and_counts_for_nothing(
    house: House, ann: Scope, key: Key, tmp_path: Path
) -> None:
    house.version(ann, files=FILES)
    house.registry.models.set_policy(ann, "delay", Policy(require_signature=TrustedKeys(keys=[key.text])))
    stranger = Key(tmp_path, "stranger")
    house.registry.statements.sign(ann, "delay", 1, signed(house, ann, stranger, tmp_path / "files"))
    (check,) = house.registry.statements.check(ann, "delay", 1)
    assert (check.valid, check.trusted) == (True, False)
    decision = house.registry.decide(ann, "delay", 1)
    assert [(gate.name, gate.status) for gate in decision.gates] == [("signed", "failed")]
    assert "does not name" in decision.reasons[0]
    with pytest.raises(Forbidden):
        house.registry.materialize(ann, "delay", 1, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model.txt": b"tree\nversion=v4\nevil"}, "changed: model.txt"),
        ({"extra.txt": b"more"}, "not signed: extra.txt"),
        ({".gitignore": b"*"}, "not signed: .gitignore"),
        ({"data/input.json": None}, "signed but missing: data/input.json"),
    ],
)
def test_a_changed_an_extra_and_a_missing_file_show(
    house: House, ann: Scope, key: Key, tmp_path: Path, change: dict[str, bytes | None], word: str
) -> None:
    """The signature of version 1 is given for a version whose files differ; and the files themselves are changed."""
    house.version(ann, files=FILES)
    given_ = signed(house, ann, key, tmp_path / "files")
    house.version(ann, files={name: content for name, content in (FILES | change).items() if content is not None})
    with pytest.raises(Conflict, match=word):
        house.registry.statements.sign(ann, "delay", 2, given_)
    assert house.registry.statements.signatures(ann, "delay", 2) == []
    verify_directory(tmp_path / "files", given_.bundle, key.public)
    for name, content in change.items():
        file = tmp_path / "files" / name
        file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(Forbidden):
        verify_directory(tmp_path / "files", given_.bundle, key.public)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda one: one.name)
def test_every_curve_that_the_package_signs_with(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    key = Key(tmp_path, "key", curve, password=b"secret")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_bytes(b"a")
    bundle, public = sign_directory(folder, key.private, "secret")
    files = [file_of("a", b"a")]
    assert trouble(bundle, public, files) == ""
    assert "changed" in trouble(bundle, public, [ModelFile("a", "0" * 64, 1)])
    with pytest.raises(InvalidInput):
        sign_directory(folder, key.private, "wrong")


def test_what_openssfs_own_command_signs_is_taken(tmp_path: Path, key: Key) -> None:
    from model_signing import signing

    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "a").write_bytes(b"a")
    (folder / "deep" / "b").write_bytes(b"b")
    signing.Config().use_elliptic_key_signer(private_key=key.private).sign(folder, tmp_path / "model.sig")
    files = [
        file_of("a", b"a"),
        file_of("deep/b", b"b"),
    ]
    assert trouble((tmp_path / "model.sig").read_text(), key.text, files) == ""


@pytest.fixture(scope="module")
def a_bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("signed")
    key = Key(folder, "key")
    (folder / "model").mkdir()
    (folder / "model" / "a").write_bytes(b"a")
    return sign_directory(folder / "model", key.private)


A = [file_of("a", b"a")]


@settings(max_examples=60, deadline=None)
@given(at=st.integers(min_value=0), byte=st.integers(min_value=0, max_value=255))
def test_no_changed_payload_verifies(a_bundle: tuple[str, str], at: int, byte: int) -> None:
    assert trouble(*a_bundle, A) == ""
    document = json.loads(a_bundle[0])
    payload = bytearray(base64.b64decode(document["dsseEnvelope"]["payload"]))
    place = at % len(payload)
    if payload[place] == byte:
        return
    payload[place] = byte
    document["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    assert trouble(json.dumps(document), a_bundle[1], A) != ""


@settings(max_examples=60, deadline=None)
@given(bundle=st.text(max_size=300) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_text_is_no_signature(a_bundle: tuple[str, str], bundle: str) -> None:
    assert trouble(bundle, a_bundle[1], A) != ""


@pytest.mark.parametrize("change", ["payloadType", "no signatures", "emptied"])
def test_a_bundle_of_another_kind_is_none(a_bundle: tuple[str, str], change: str) -> None:
    document = json.loads(a_bundle[0])
    envelope = document["dsseEnvelope"]
    if change == "payloadType":
        envelope["payloadType"] = "text/plain"
    elif change == "no signatures":
        envelope["signatures"] = []
    else:
        envelope["signatures"][0]["sig"] = ""
    assert trouble(json.dumps(document), a_bundle[1], A) != ""


def test_a_policy_with_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    pem = other.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    for text in (pem, "no key", Key(tmp_path, "k1", ec.SECP256K1()).text):
        with pytest.raises(InvalidInput) as caught:
            check_public_key(text)
        assert caught.value.code == "signing.key_invalid"
    with pytest.raises(InvalidInput):
        read_policy("require_signature: {keys: ['no key']}")


def test_a_key_that_is_trusted_no_more_counts_no_more(house: House, ann: Scope, key: Key, tmp_path: Path) -> None:
    house.version(ann, files=FILES)
    root = house.scope("root", Role.ADMIN)
    house.registry.models.set_policy(root, "delay", Policy(require_signature=TrustedKeys(keys=[key.text])))
    house.registry.statements.sign(ann, "delay", 1, signed(house, ann, key, tmp_path / "files"))
    assert house.registry.decide(ann, "delay", 1).promotable
    newer = Key(tmp_path, "newer")
    house.registry.models.set_policy(root, "delay", Policy(require_signature=TrustedKeys(keys=[newer.text])), "leaked")
    assert not house.registry.decide(ann, "delay", 1).promotable
