"""`modelyard job` and `modelyard pipeline` as a person types them, against a real server in this process."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from modelyard.cli.main import app
from modelyard.kernel.errors import ModelyardError
from modelyard.types.jobs import Job
from modelyard.types.page import Page
from modelyard.types.pipelines import Pipeline, PipelineRun
from running import running_server

FLOW = """
    from modelyard.sdk.tasks import pipeline, task

    @task
    def half(n, name):
        print("halving", n)
        if name == "bad":
            raise ValueError("no halves of bad things")
        return n / 2

    @pipeline(name="halves")
    def flow(n: int = 8, name: str = "7"):
        return {"name": name, "half": half(n, name)}
"""


class Shell:
    def __init__(self, url: str, token: str, home: Path) -> None:
        self._runner = CliRunner(env={"MODELYARD_TOKEN": token, "MODELYARD_HOME": str(home), "COLUMNS": "300"})
        self._url = url

    def __call__(self, *arguments: str, exit_code: int = 0) -> Result:
        result = self._runner.invoke(app, ["--url", self._url, *arguments])
        if isinstance(result.exception, ModelyardError):
            raise result.exception
        assert result.exit_code == exit_code, (result.output, result.exception)
        return result


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    home = tmp_path_factory.mktemp("cli") / "home"
    with running_server(home, cpus=4.0) as server:
        yield Shell(server.url, server.token, home)


def test_submit_and_wait_shows_the_output_and_ends_as_the_job_does(shell: Shell) -> None:
    good = shell("job", "submit", "--wait", "--name", "hello", "--", sys.executable, "-c", "print('hi')")
    assert good.stdout == "hi\n"
    assert "succeeded" in good.stderr
    bad = shell("job", "submit", "--wait", "--", "sh", "-c", "echo out; exit 3", exit_code=1)
    assert "failed: ended with exit code 3" in bad.stderr
    listed = msgspec.json.decode(shell("job", "list", "--json").stdout, type=Page[Job])
    assert [job.state.value for job in listed.items[:2]] == ["failed", "succeeded"]
    table = shell("job", "list", "--state", "succeeded").stdout
    assert "hello" in table
    assert listed.items[0].id not in table
    shown = shell("job", "get", listed.items[0].id).stdout
    assert "ended with exit code 3" in shown
    assert "1 CPUs" in shown
    assert shell("job", "logs", listed.items[0].id).stdout == "out\n"
    assert shell("job", "logs", "--follow", listed.items[0].id).stdout == "out\n"


def test_submit_cancel(shell: Shell) -> None:
    made = msgspec.json.decode(
        shell("job", "submit", "--json", "--memory", "100MiB", "--env", "A=b", "--", "sleep", "600").stdout, type=Job
    )
    assert made.resources.memory_bytes == 100 * 2**20
    assert made.env == {"A": "b"}
    shell("job", "cancel", made.id)
    followed = shell("job", "logs", "--follow", made.id)
    assert followed.stdout == ""
    assert msgspec.json.decode(shell("job", "get", made.id, "--json").stdout, type=Job).state == "cancelled"


@pytest.mark.slow
def test_pipeline_commands(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "halves_flow.py").write_text(textwrap.dedent(FLOW))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    done = shell("pipeline", "run", "halves_flow.py:flow", "-P", "n=6")
    assert msgspec.json.decode(done.stdout) == {"name": "7", "half": 3.0}
    assert "+ half" in done.stderr
    again = msgspec.json.decode(shell("pipeline", "run", "halves", "-P", "n=6", "--json").stdout, type=PipelineRun)
    assert [step.state.value for step in again.steps] == ["cached"]
    failed = shell("pipeline", "run", "halves_flow.py", "-P", "name=bad", exit_code=1)
    assert "no halves of bad things" in failed.stderr
    assert "pipeline resume" in failed.stderr
    listed = msgspec.json.decode(shell("pipeline", "list", "--json").stdout, type=Page[Pipeline])
    assert [one.name for one in listed.items] == ["halves"]
    assert "n: int = 8" in shell("pipeline", "get", "halves").stdout
    runs = msgspec.json.decode(shell("pipeline", "runs", "--json").stdout, type=Page[PipelineRun])
    assert [run.state.value for run in runs.items] == ["failed", "succeeded", "succeeded"]
    shown = shell("pipeline", "runs", runs.items[0].id)
    assert "ValueError" in shown.stdout
    resumed = shell("pipeline", "resume", runs.items[0].id, exit_code=1)
    assert "failed" in resumed.stderr
    for wrong, why in [
        (["run", "absent.py:flow"], "no file"),
        (["run", "halves_flow.py:other"], "no pipeline 'other'"),
        (["run", "halves", "-P", "n=x"], "must be int"),
        (["run", "nowhere"], "does not exist"),
        (["cancel", runs.items[0].id], "failed already"),
    ]:
        with pytest.raises(ModelyardError, match=why):
            shell("pipeline", *wrong)
