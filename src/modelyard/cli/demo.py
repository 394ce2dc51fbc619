"""`modelyard demo`: the flights project end to end, on a server and a home directory of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

import modelyard
from modelyard.cli.context import current_settings
from modelyard.kernel import home as homes
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound, Unavailable, UserCodeError
from modelyard.kernel.settings import process_environment
from modelyard.sdk.client import Client
from modelyard.sdk.serving import endpoint, list_endpoints

app = typer.Typer(add_completion=False)
PROJECT = Path(modelyard.__file__).parents[2] / "examples" / "flights"
PLACE = Path("~/.modelyard-demo")
MARKER = ".modelyard-demo"
LOG = "server.log"
UP_WITHIN_S = 60.0
DOWN_WITHIN_S = 30.0


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server up afterwards, to browse.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the server that an earlier --keep left up.")] = False,
    place: Annotated[Path, typer.Option(help="Where the demo keeps its data. Emptied first.")] = PLACE,
    port: Annotated[int, typer.Option(help="Port of its server; 0 takes a free one.", min=0, max=65535)] = 0,
) -> None:
    """Run the flights project from raw data to a model that retrains itself, in about two minutes.

    336,776 real flights of 2013: ingested, checked, joined, trained, registered, served, monitored and retrained, each
    step through the public API. Nothing of your own home directory is touched. A second run starts clean.
    """
    folder = place.expanduser().absolute()
    shut_down(folder)
    if stop:
        typer.echo(f"nothing of the demo runs any more; its data is in {folder}")
        return
    check_project()
    clear(folder)
    server = start_server(folder, port)
    try:
        run_story(folder)
    except BaseException:
        shut_down(folder, server)
        typer.echo(f"the server's log: {folder / LOG}", err=True)
        raise
    if keep:
        link = next((line for line in (folder / LOG).read_text("utf-8").splitlines() if "sign in" in line), "")
        typer.echo(f"the server is left up, process {server.pid}; stop it with `modelyard demo --stop`\n{link}")
        return
    shut_down(folder, server)


def check_project() -> None:
    """Raise NotFound where the example's files are not beside the package, as in an install from a wheel."""
    if not (PROJECT / "demo" / "__main__.py").is_file():
        raise NotFound(
            f"the flights project is not at {PROJECT}",
            code="demo.not_found",
            hint="run the demo from a checkout: `git clone`, then `make demo`",
        )


def clear(folder: Path) -> None:
    """Empty the demo's folder. Raises InvalidInput for one that is not the demo's own."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).exists():
        raise InvalidInput(
            f"{folder} holds something that is not the demo's, and the demo empties its folder",
            code="demo.folder_foreign",
            hint="name an empty or a new folder with --place",
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    (folder / MARKER).touch()


def start_server(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A server of its own, in a session of its own, so that it may outlive this program. Raises Unavailable."""
    command = [sys.executable, "-c", "from modelyard.cli.main import main; main()"]
    with (folder / LOG).open("wb") as log:
        server = subprocess.Popen(
            [*command, "--home", str(folder), "up", "--port", str(port)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=folder,
            env=environment(folder),
        )  # fmt: skip
    deadline = time.monotonic() + UP_WITHIN_S
    while homes.find_serving(folder) is None:
        if server.poll() is not None or time.monotonic() > deadline:
            last = (folder / LOG).read_text("utf-8", errors="replace")[-1_000:]
            with suppress(OSError):
                server.kill()
            raise Unavailable(f"the demo's server did not come up: {last}", code="demo.server_failed")
        time.sleep(0.05)
    return server


def run_story(folder: Path) -> None:
    """The eight steps, as the program of the project. Raises UserCodeError where one of them fails."""
    done = subprocess.run([sys.executable, "-m", "demo"], cwd=PROJECT, env=environment(folder), check=False)
    if done.returncode != 0:
        raise UserCodeError(
            "the demo did not come to its end: see above",
            code="demo.failed",
            hint="its folder keeps everything: look at it with `modelyard --home … up`",
        )


def shut_down(folder: Path, server: subprocess.Popen[bytes] | None = None) -> None:
    """Stop the endpoints and the server over a folder, if there are any."""
    serving = homes.find_serving(folder)
    if serving is None:
        return
    client = Client(serving.url, token=homes.read_token(folder), project=current_settings().project)
    with suppress(Unavailable):
        stop_endpoints(client)
    client.close()
    with suppress(ProcessLookupError):
        os.kill(serving.pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_WITHIN_S
    while homes.find_serving(folder) is not None:
        if time.monotonic() > deadline:
            raise Unavailable(f"the demo's server (process {serving.pid}) does not end", code="demo.server_hangs")
        time.sleep(0.05)
    if server is not None:
        server.wait(DOWN_WITHIN_S)


def stop_endpoints(client: Client) -> None:
    """Stop every endpoint's process, which else would outlive its server."""
    deadline = time.monotonic() + DOWN_WITHIN_S
    names = [one.name for one in list_endpoints(client).items]
    for name in names:
        with suppress(Conflict):
            endpoint(name, client).update(running=False, reason="the demo is over")
    while time.monotonic() < deadline:
        if all(one.state in ("stopped", "failed") for one in list_endpoints(client).items):
            return
        time.sleep(0.1)


def environment(folder: Path) -> dict[str, str]:
    """The environment of the demo's programs: its own home, and nothing of the caller's settings."""
    kept = {key: value for key, value in process_environment().items() if not key.startswith(("MODELYARD_", "MLFLOW_"))}
    return {**kept, "MODELYARD_HOME": str(folder), "PYTHONUNBUFFERED": "1"}
