"""Names, joins, opening and extraction: the attacks that were published, and what must keep working."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import threading
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.kernel.archives import ExtractionLimits, extract_tar, extract_zip
from modelyard.kernel.errors import Conflict, InvalidInput, ModelyardError, NotFound, TooLarge
from modelyard.kernel.paths import (
    PATH_BYTES_MAX,
    collision_key,
    make_private,
    open_inside,
    remove_older,
    safe_join,
    safe_relative,
)

CLIMBING = [
    "../etc/passwd",
    "a/../../b",
    "a/..",
    "..",
    "/etc/passwd",
    "//host/share",
    "\\\\host\\share",
    "a\\..\\b",
    "C:\\x",
    "c:/x",
    "~/x",
    "~root/.ssh/id",
    "",
    ".",
    "./a",
    "a/./b",
    "a//b",
    "a/",
]
ENCODED = [
    "%2e%2e/x",
    "%2E%2E%2Fx",
    "..%2fx",
    "a%2fb",
    "%2e%2e/a%step%1%timestamp%1764160000000%2f0c4a1e-5b7d-4f0e-9a55-0123456789ab.png",
    "a%step%1%timestamp%1764160000000%2f0c4a1e-5b7d-4f0e-9a55-0123456789ab.png/%2e%2e",
    "a%step%1%timestamp%1764160000000%2f%2e%2e",
    "a%5c..%5cb",
    "%252e%252e%252fx",
    "%25252e%25252e%25252fx",
    "%c0%ae%c0%ae/x",
    "%c0%af",
    "%e0%80%ae",
    "a%00.txt",
    "a;x=../b",
    "a;..;b/c",
    "..;/x",
    "x%3b%2e%2e",
    "%7e/x",
]
HIDING = [
    "a\x00b",
    "a\nb",
    "a\tb",
    "a\x7fb",
    "a\x9fb",
    "a\u202eb.txt",
    "a\u2066b",
    "a\u200bb",
    "\ufeffa",
    "a\u2028b",
    "\ud800",
    "\uff0e\uff0e/x",
    "a\uff0fb",
    "\u2025/x",
    "x" * 256,
    "/".join(["d"] * 65),
    "y/" * 700 + "y",
]
FINE = [
    "a",
    "a/b.txt",
    "plots/roc curve.png",
    "naïve/café.txt",
    "a..b",
    "...",
    "x;y=1",
    "100%.txt",
    "images/loss%step%17%timestamp%1764160000000%2f0c4a1e-5b7d-4f0e-9a55-0123456789ab.png",
    "images/a#b%step%-3%timestamp%1764160000000%000c4a1e-5b7d-4f0e-9a55-0123456789ab%compressed.webp",
    "50%zz",
    "50%41",
    ".hidden",
    "a~b",
    "日本/語",
    "images/loss%step%25%timestamp%1795695628504%g3b01a2c-0a1b-4c3d-8e5f-0123456789ab%compressed.webp",
]


@pytest.mark.parametrize("text", CLIMBING + ENCODED + HIDING)
def test_what_could_be_anything_but_a_plain_name_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        safe_relative(text)
    assert caught.value.code == "path.unsafe"
    assert caught.value.message.isascii(), "the message must not carry the attack on to a terminal"
    with pytest.raises(InvalidInput):
        safe_join(tmp_path, text)


@pytest.mark.parametrize("text", FINE)
def test_plain_names_are_kept_as_they_are(text: str, tmp_path: Path) -> None:
    assert str(safe_relative(text)) == text
    assert safe_join(tmp_path, text) == tmp_path / text


alphabet = st.sampled_from(
    [
        "..",
        ".",
        "/",
        "\\",
        "%2e",
        "%2f",
        "%25",
        "%",
        ";",
        "=",
        "a",
        "~",
        "C:",
        "\x00",
        "．",
        "／",
        "é",
        "%step%25%timestamp%25%",
        "%step%2",
        "%timestamp%25",
        "2e",
        "e",
        "f",
    ]
)


@given(st.lists(alphabet, max_size=12).map("".join))
def test_nothing_accepted_leaves_its_root_however_often_it_is_decoded(text: str) -> None:
    try:
        path = safe_relative(text)
    except InvalidInput:
        return
    decoded = str(path)
    for _ in range(4):
        assert not decoded.startswith(("/", "~", "\\"))
        inside = os.path.normpath(os.path.join("/root", decoded))
        assert inside.startswith("/root/")
        decoded = unquote(decoded)


@given(st.text(max_size=60))
def test_any_text_is_either_a_name_inside_or_refused(text: str) -> None:
    try:
        path = safe_relative(text)
    except InvalidInput:
        return
    assert str(path) == text
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert len(text.encode()) <= PATH_BYTES_MAX


def test_names_that_some_file_systems_take_for_one_have_one_key() -> None:
    assert collision_key("Café") == collision_key("cafe\u0301")
    assert collision_key("A/b") == collision_key("a/B")
    assert collision_key("a") != collision_key("b")


# --- opening ----------------------------------------------------------------------------------------------------


def test_a_file_is_created_privately_and_read_back(tmp_path: Path) -> None:
    with open_inside(tmp_path, "a/b/c.txt", "xb") as sink:
        sink.write(b"hello")
    assert (tmp_path / "a/b/c.txt").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    with open_inside(tmp_path, "a/b/c.txt") as source:
        assert source.read() == b"hello"
    with pytest.raises(FileExistsError):
        open_inside(tmp_path, "a/b/c.txt", "xb")


def test_missing_files_and_files_as_directories_are_not_found(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    for text in ("nope", "d/nope", "f/below"):
        with pytest.raises(NotFound):
            open_inside(tmp_path, text)


@pytest.mark.parametrize("text", ["link", "dir/passwd", "inner"])
@pytest.mark.parametrize("act", [safe_join, open_inside])
def test_symbolic_links_are_never_followed(tmp_path: Path, text: str, act: Callable[..., object]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "real").write_bytes(b"x")
    (root / "link").symlink_to("/etc/passwd")
    (root / "dir").symlink_to("/etc")
    (root / "inner").symlink_to("real")
    with pytest.raises(InvalidInput) as caught:
        act(root, text)
    assert caught.value.code == "path.link"


def test_a_link_below_which_is_written_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "d").symlink_to(outside)
    with pytest.raises(InvalidInput):
        open_inside(root, "d/x", "xb")
    assert list(outside.iterdir()) == []


def test_a_link_swapped_in_while_opening_is_never_followed(tmp_path: Path) -> None:
    """Attack 5: another process turns the directory into a link and back, as fast as it can."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "f").write_bytes(b"SECRET")
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    (root / "d" / "f").write_bytes(b"public")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (root / "d").rename(root / "held")
            (root / "d").symlink_to(secret)
            (root / "d").unlink()
            (root / "held").rename(root / "d")

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    try:
        for _ in range(3_000):
            try:
                with open_inside(root, "d/f") as source:
                    seen.add(source.read())
            except (InvalidInput, NotFound):
                continue
    finally:
        stop.set()
        swapper.join()
    assert b"SECRET" not in seen


def test_a_pipe_is_not_a_file_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput) as caught:
        open_inside(tmp_path, "pipe")
    assert caught.value.code == "path.not_a_file"


def test_private_directories_are_private(tmp_path: Path) -> None:
    made = make_private(tmp_path / "a" / "b")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert make_private(made) == made


def test_only_what_is_old_is_removed_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"x")
    root = tmp_path / "root"
    (root / "old" / "deep").mkdir(parents=True)
    (root / "new").write_bytes(b"x")
    (root / "link").symlink_to(outside)
    os.utime(root / "old", (1, 1))
    os.utime(root / "link", (1, 1), follow_symlinks=False)
    assert remove_older(root, datetime(2000, 1, 1, tzinfo=UTC)) == 2
    assert [path.name for path in root.iterdir()] == ["new"]
    assert (outside / "kept").exists()
    assert remove_older(tmp_path / "nowhere", datetime(2000, 1, 1, tzinfo=UTC)) == 0


# --- extraction -------------------------------------------------------------------------------------------------

LIMITS = ExtractionLimits(members_max=50, bytes_max=4 * 1024 * 1024, ratio_max=100)


def tar_of(file: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(file, mode) as tar:  # type: ignore[call-overload]
        for info, content in members:
            info.size = len(content) if info.isreg() else info.size
            tar.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return file


def plain(name: str, content: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), content


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info, b""


def assert_refused(extract: Callable[..., object], file: Path, into: Path, kind: type[ModelyardError]) -> None:
    before = sorted(path.name for path in into.parent.iterdir())
    with pytest.raises(kind):
        extract(file, into, LIMITS)
    assert not into.exists()
    assert sorted(path.name for path in into.parent.iterdir()) == before, "something was left behind"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_good_tar_is_unpacked_with_private_modes(tmp_path: Path, mode: str) -> None:
    directory = tarfile.TarInfo("./d")
    directory.type = tarfile.DIRTYPE
    runnable = tarfile.TarInfo("./d/run.sh")
    runnable.mode = 0o4777
    file = tar_of(tmp_path / "a.tar", (directory, b""), (runnable, b"echo"), plain("top.txt", b"hi"), mode=mode)
    assert [str(path) for path in extract_tar(file, tmp_path / "out")] == ["d/run.sh", "top.txt"]
    assert (tmp_path / "out/top.txt").read_bytes() == b"hi"
    assert stat.S_IMODE((tmp_path / "out/d/run.sh").stat().st_mode) == 0o600
    with pytest.raises(Conflict):
        extract_tar(file, tmp_path / "out")


@pytest.mark.parametrize(
    "members",
    [
        [plain("good"), plain("../bad")],
        [plain("good"), plain("/etc/cron.d/x")],
        [plain("good"), special("l", tarfile.SYMTYPE, "/etc/passwd")],
        [special("l", tarfile.SYMTYPE, "d"), plain("l/x")],
        [plain("good"), special("h", tarfile.LNKTYPE, "../../x")],
        [special("dev", tarfile.CHRTYPE)],
        [special("pipe", tarfile.FIFOTYPE)],
        [plain("a"), plain("A")],
        [plain("caf\u00e9"), plain("cafe\u0301")],
        [plain("a"), plain("a")],
        [plain("a"), plain("a/b")],
        [plain("a/b"), plain("a")],
        [plain("a%2e%2e/b")],
        [plain("a\u202eb")],
    ],
)
def test_an_unsafe_tar_is_refused_and_writes_nothing(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    assert_refused(extract_tar, tar_of(tmp_path / "a.tar", *members), tmp_path / "out", InvalidInput)


def test_archives_that_grow_too_much_are_stopped(tmp_path: Path) -> None:
    bomb = tar_of(tmp_path / "bomb.tgz", plain("zeros", b"\0" * 3_000_000))
    assert bomb.stat().st_size < 10_000
    assert_refused(extract_tar, bomb, tmp_path / "out", TooLarge)
    large = tar_of(tmp_path / "large.tar", plain("noise", os.urandom(5_000_000)), mode="w")
    assert_refused(extract_tar, large, tmp_path / "out", TooLarge)
    many = tar_of(tmp_path / "many.tar", *[plain(f"f{n}") for n in range(51)])
    assert_refused(extract_tar, many, tmp_path / "out", TooLarge)


def test_a_tar_header_that_claims_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type = tarfile.XHDTYPE
    info.size = 7 * 1024**3
    (tmp_path / "a.tgz").write_bytes(gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + b"\0" * 100_000))
    assert_refused(extract_tar, tmp_path / "a.tgz", tmp_path / "out", TooLarge)


def test_a_chain_of_tar_headers_ends_in_a_refusal(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type = tarfile.GNUTYPE_LONGNAME
    info.size = 512
    (tmp_path / "a.tar").write_bytes((info.tobuf(tarfile.GNU_FORMAT) + b"a" * 512) * 3_000)
    assert_refused(extract_tar, tmp_path / "a.tar", tmp_path / "out", InvalidInput)


def test_a_sparse_tar_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("s")
    info.type = tarfile.GNUTYPE_SPARSE
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 2048)
    assert_refused(extract_tar, tmp_path / "a.tar", tmp_path / "out", InvalidInput)


@pytest.mark.parametrize("cut", [1, 100, 700])
def test_a_truncated_tar_is_refused(tmp_path: Path, cut: int) -> None:
    whole = tar_of(tmp_path / "a.tgz", plain("noise", os.urandom(4_000)))
    whole.write_bytes(whole.read_bytes()[:-cut])
    assert_refused(extract_tar, whole, tmp_path / "out", InvalidInput)


@pytest.mark.parametrize("content", [b"hello", b"\x1f\x8b garbage", b"PK\x03\x04"])
@pytest.mark.parametrize("extract", [extract_tar, extract_zip])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes, extract: Callable[..., object]) -> None:
    (tmp_path / "a").write_bytes(content)
    assert_refused(extract, tmp_path / "a", tmp_path / "out", InvalidInput)


def zip_of(file: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members:
            packed.writestr(name, content)
    return file


def test_a_good_zip_is_unpacked(tmp_path: Path) -> None:
    file = zip_of(tmp_path / "a.zip", ("d/", b""), ("d/x.txt", b"hi"), ("y", b""))
    assert [str(path) for path in extract_zip(file, tmp_path / "out")] == ["d/x.txt", "y"]
    assert (tmp_path / "out/d/x.txt").read_bytes() == b"hi"


def linked(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    "members",
    [
        [("good", b"x"), ("../bad", b"x")],
        [("good", b"x"), ("/abs", b"x")],
        [("a\\..\\b", b"x")],
        [(linked("l"), b"/etc/passwd")],
        [("a", b"x"), ("A", b"x")],
        [("C:/x", b"x")],
    ],
)
def test_an_unsafe_zip_is_refused_and_writes_nothing(
    tmp_path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]]
) -> None:
    assert_refused(extract_zip, zip_of(tmp_path / "a.zip", *members), tmp_path / "out", InvalidInput)


def test_zip_bombs_are_stopped_whatever_their_headers_say(tmp_path: Path) -> None:
    assert_refused(extract_zip, zip_of(tmp_path / "a.zip", ("z", b"\0" * 3_000_000)), tmp_path / "out", TooLarge)
    many = zip_of(tmp_path / "m.zip", *[(f"f{n}", b"") for n in range(51)])
    assert_refused(extract_zip, many, tmp_path / "out", TooLarge)


def test_a_zip_directory_that_claims_a_million_entries_is_not_read(tmp_path: Path) -> None:
    record = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, 10**6, 10**6, 10**8, 0)
    locator = struct.pack("<IIQI", 0x07064B50, 0, 0, 1)
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    (tmp_path / "a.zip").write_bytes(record + locator + end)
    assert_refused(extract_zip, tmp_path / "a.zip", tmp_path / "out", TooLarge)


@given(st.binary(max_size=300))
def test_bytes_at_random_never_give_more_than_a_refusal(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as held:
        file = Path(held) / "a"
        for start, extract in ((b"PK\x03\x04", extract_zip), (b"\x1f\x8b", extract_tar), (b"", extract_tar)):
            file.write_bytes(start + content)
            try:
                extract(file, Path(held) / f"out{len(start)}", LIMITS)
            except ModelyardError:
                continue
