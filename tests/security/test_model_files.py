"""Model files that would run code when they are loaded: stored, called by their name, and loaded by no part of the
server. Each would make a directory; none does, whatever is asked about them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import zipfile
import zlib
from pathlib import Path

import pytest

from modelyard.kernel.auth import Role
from running import client_of, raw_client, running_server, token_for


class Canary:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    return buffer.getvalue()


def files(canary: Path, folder: Path) -> dict[str, bytes]:
    """A pickle in every packing that a loader undoes by itself, under names that say something else."""
    joblib = pytest.importorskip("joblib")
    bare = pickle.dumps(Canary(canary))
    found = {
        "model.pkl": bare,
        "renamed/model.onnx": bare,
        "renamed/model.safetensors": bare,
        "renamed/weights.bin": bare,
        "renamed/notes.txt": pickle.dumps(Canary(canary), protocol=0),
        "renamed/config.json": bare,
        "packed/model.gz": gzip.compress(bare),
        "packed/model.bz2": bz2.compress(bare),
        "packed/model.xz": lzma.compress(bare),
        "packed/model.lzma": lzma.compress(bare, format=lzma.FORMAT_ALONE),
        "packed/model.z": zlib.compress(bare),
        "packed/model.pt": zipped(bare),
        "packed/model.skops": bare + zipped(b"{}"),
        "packed/model.7z": b"7z\xbc\xaf\x27\x1c" + bare,
    }
    for how in ("gzip", "bz2", "lzma", "xz", "zlib"):
        joblib.dump(Canary(canary), folder / "packed", compress=(how, 3))
        found[f"joblib/model-{how}.joblib"] = found[f"joblib/model-{how}.bin"] = (folder / "packed").read_bytes()
    return found


@pytest.mark.slow
def test_files_that_run_code_are_stored_and_never_loaded(tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    with running_server(tmp_path / "home") as server:
        admin, ann = client_of(server), raw_client(server, token_for(server, "ann", Role.CONTRIBUTOR))
        run = admin.post("/api/2.0/mlflow/runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"][
            "run_id"
        ]
        signature = b'signature: {inputs: \'[{"name": "x", "type": "double"}]\'}\n'
        given = {"MLmodel": b"flavors: {python_function: {}}\n" + signature, **files(canary, tmp_path)}
        for path, content in given.items():
            address = f"/api/2.0/mlflow-artifacts/artifacts/0/{run}/artifacts/model/{path}"
            assert ann.put(address, content=content).status_code == 200, path
        ann.post("/api/2.0/mlflow/registered-models/create", json={"name": "delay"})
        source = {"name": "delay", "source": f"runs:/{run}/model", "run_id": run}
        assert ann.post("/api/2.0/mlflow/model-versions/create", json=source).status_code == 200
        listed = {one["path"]: one for one in ann.get("/api/models/delay/versions/1/files").json()}
        assert listed.keys() == given.keys()
        assert {path for path, one in listed.items() if one["safety"] == "safe"} == {"MLmodel"}
        assert ann.get("/api/models/delay/versions/1").json()["format"] == "unsafe"
        for path in ("card", "bom", "gates", "files", "evaluations"):
            assert ann.get(f"/api/models/delay/versions/1/{path}").status_code == 200, path
        for path in given:
            assert ann.get("/api/models/delay/versions/1/content", params={"path": path}).content == given[path]
        for tab in ("gates", "about", "files", "card"):
            page = ann.get(f"/models/delay/versions/1?tab={tab}", headers={"Accept": "text/html"})
            assert page.status_code == 200, tab
        refused = ann.post("/api/endpoints", json={"name": "late", "model": "delay", "version": 1})
        assert refused.status_code == 403, refused.text
        assert refused.json()["code"] == "endpoint.version_untrusted"
        for _ in range(3):
            server.yard.loop.step()
    assert not canary.exists()
    # And they are what they say: whoever loads one without looking runs it.
    pickle.loads(given["model.pkl"])
    assert canary.is_dir()
