"""What every compute engine must do, with real processes: they exit, hang, fork, flood, get killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import psutil
import pytest

from killing import files_limited
from modelyard.engines.compute.base import CommandSpec, ComputeEngine, Finished, Handle, Lost, Outcome, Running
from modelyard.engines.compute.process import MARK, ProcessEngine
from modelyard.kernel.errors import EngineError, InvalidInput, Unavailable

WAIT_S = 30.0


class Bench:
    """An engine and a place for its commands; ends what a failed test left running."""

    def __init__(self, make: Callable[[], ComputeEngine], root: Path) -> None:
        self.make = make
        self.engine = make()
        self.root = root
        self.handles: list[Handle] = []

    def start(self, *argv: str, name: str = "one", **options: object) -> Handle:
        spec = CommandSpec(directory=str(self.root / name), argv=list(argv), **options)  # type: ignore[arg-type]
        handle = self.engine.start(spec)
        self.handles.append(handle)
        return handle

    def python(self, program: str, **options: object) -> Handle:
        return self.start(sys.executable, "-c", program, **options)

    def end(self, handle: Handle) -> Finished | Lost:
        found = self.engine.wait(handle, WAIT_S)
        assert not isinstance(found, Running), "still running"
        return found

    def finished(self, handle: Handle) -> Finished:
        found = self.end(handle)
        assert isinstance(found, Finished), found
        return found

    def output(self, handle: Handle) -> str:
        return self.engine.read_log(handle).content.decode()

    def until_output(self, handle: Handle, text: str) -> str:
        return self.until(lambda: text in self.output(handle) and self.output(handle))  # type: ignore[return-value]

    def until(self, condition: Callable[[], object]) -> object:
        deadline = time.monotonic() + WAIT_S
        while not (found := condition()):
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.01)
        return found

    def marked(self, handle: Handle) -> list[psutil.Process]:
        """The processes of a command that live, its supervisor among them."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == handle.directory and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found


def process_engine() -> ComputeEngine:
    return ProcessEngine(os.environ, cpus=2, memory_bytes=10**9)


@pytest.fixture(params=[process_engine], ids=["process"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(request.param, tmp_path)
    yield bench
    for handle in bench.handles:
        if isinstance(bench.engine.poll(handle), Running):
            bench.engine.stop(handle, 0)
            bench.engine.wait(handle, WAIT_S)
        bench.until(lambda one=handle: bench.marked(one) == [])


def test_success_gives_exit_code_output_and_usage(bench: Bench) -> None:
    handle = bench.python("import sys; print('out'); print('err', file=sys.stderr); sum(range(8_000_000))")
    end = bench.finished(handle)
    assert (end.ok, end.outcome, end.exit_code, end.signal) == (True, Outcome.EXITED, 0, None)
    assert sorted(bench.output(handle).split()) == ["err", "out"]
    assert end.usage.cpu_s > 0.05
    assert end.usage.wall_s >= end.usage.cpu_s * 0.3
    assert end.usage.peak_rss_bytes > 1_000_000
    assert end.ended_at == pytest.approx(end.started_at + end.usage.wall_s)


def test_failure_and_death_by_signal_are_told_apart(bench: Bench) -> None:
    failed = bench.finished(bench.python("raise SystemExit(7)", name="a"))
    assert (failed.ok, failed.exit_code, failed.signal) == (False, 7, None)
    killed = bench.finished(bench.python("import os; os.kill(os.getpid(), 9)", name="b"))
    assert (killed.ok, killed.outcome, killed.exit_code, killed.signal) == (False, Outcome.EXITED, None, 9)


@pytest.mark.parametrize("argv", [("/no/such/program",), ("no-such-program-anywhere",), ("/etc/passwd",)])
def test_a_program_that_cannot_start_says_why(bench: Bench, argv: tuple[str, ...]) -> None:
    end = bench.finished(bench.start(*argv))
    assert end.outcome is Outcome.NOT_STARTED
    assert argv[0] in end.message
    assert (end.exit_code, end.signal) == (None, None)


def test_a_missing_working_directory_says_so(bench: Bench, tmp_path: Path) -> None:
    end = bench.finished(bench.python("print(1)", cwd=str(tmp_path / "absent")))
    assert end.outcome is Outcome.NOT_STARTED


@pytest.mark.parametrize(("argv", "timeout_s"), [([], None), (["x"], 0.0), (["x"], float("nan"))])
def test_a_spec_without_meaning_is_refused(bench: Bench, argv: list[str], timeout_s: float | None) -> None:
    with pytest.raises(InvalidInput):
        bench.engine.start(CommandSpec(directory=str(bench.root / "x"), argv=argv, timeout_s=timeout_s))


def test_a_directory_that_cannot_be_made_is_an_engine_error(bench: Bench) -> None:
    (bench.root / "file").write_text("")
    with pytest.raises(EngineError):
        bench.start("true", name="file/below")


def test_hanging_past_its_timeout(bench: Bench) -> None:
    end = bench.finished(bench.python("import time; time.sleep(600)", timeout_s=0.3, grace_s=5))
    assert (end.outcome, end.signal) == (Outcome.TIMED_OUT, signal.SIGTERM)
    assert 0.3 <= end.usage.wall_s < 5
    assert "0.3 s" in end.message


IGNORES_AND_FORKS = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print('grandchild', flush=True)
        time.sleep(600)
    time.sleep(600)
print('parent', flush=True)
time.sleep(600)
"""


def test_a_program_that_ignores_sigterm_and_detaches_children_is_ended_whole(bench: Bench) -> None:
    handle = bench.python(IGNORES_AND_FORKS, timeout_s=0.5, grace_s=0.2)
    bench.until_output(handle, "grandchild")
    end = bench.finished(handle)
    assert (end.outcome, end.signal) == (Outcome.TIMED_OUT, signal.SIGKILL)
    bench.until(lambda: bench.marked(handle) == [])


def test_children_that_outlive_a_program_are_ended_and_metered(bench: Bench) -> None:
    program = (
        "import os, time\nif os.fork() == 0:\n    sum(range(10_000_000)); print('done', flush=True); time.sleep(600)\n"
    )
    handle = bench.python(program + "else:\n    time.sleep(1.5)")
    end = bench.finished(handle)
    assert end.ok
    assert end.usage.cpu_s > 0.1
    bench.until(lambda: bench.marked(handle) == [])


FORKS_ON = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
deadline = time.monotonic() + 60
born = 0
while time.monotonic() < deadline and born < 400:
    if os.fork() == 0:
        if born % 5 == 0:
            os.setsid()
        time.sleep(60)
        os._exit(0)
    born += 1
    time.sleep(0.002)
time.sleep(60)
"""


def test_a_program_that_keeps_forking_is_ended_whole(bench: Bench) -> None:
    handle = bench.python(FORKS_ON, timeout_s=0.6, grace_s=0.1)
    end = bench.finished(handle)
    assert end.outcome is Outcome.TIMED_OUT
    bench.until(lambda: bench.marked(handle) == [])


def test_stop_asks_first(bench: Bench) -> None:
    program = "import signal, sys, time\nsignal.signal(15, lambda *_: (print('saved', flush=True), sys.exit(0)))\n"
    handle = bench.python(program + "print('up', flush=True)\ntime.sleep(600)")
    bench.until_output(handle, "up")
    bench.engine.stop(handle, 20)
    end = bench.finished(handle)
    assert (end.outcome, end.exit_code, end.ok) == (Outcome.STOPPED, 0, False)
    assert "saved" in bench.output(handle)


def test_a_second_stop_shortens_the_grace(bench: Bench) -> None:
    program = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)"
    handle = bench.python(program)
    bench.until_output(handle, "up")
    bench.engine.stop(handle, 600)
    bench.engine.stop(handle, 0)
    end = bench.finished(handle)
    assert (end.outcome, end.signal) == (Outcome.STOPPED, 9)


def test_stop_right_after_start_is_never_lost(bench: Bench) -> None:
    handles = [bench.python("import time; time.sleep(600)", name=f"n{number}") for number in range(6)]
    for handle in handles:
        bench.engine.stop(handle, 0.5)
    assert {bench.finished(handle).outcome for handle in handles} == {Outcome.STOPPED}


def test_stop_after_the_end_changes_nothing(bench: Bench) -> None:
    handle = bench.python("print('x')")
    before = bench.finished(handle)
    bench.engine.stop(handle, 0)
    assert bench.finished(handle) == before


def test_starting_twice_runs_once(bench: Bench) -> None:
    program = "open('count', 'a').write('x')"
    first = bench.python(program)
    second = bench.python(program)
    bench.end(first)
    third = bench.python(program)
    assert first.pid == second.pid == third.pid
    assert (Path(first.directory) / "work" / "count").read_text() == "x"


def test_another_server_finds_and_follows_what_runs(bench: Bench) -> None:
    handle = bench.python("import time; print('up', flush=True); time.sleep(600)")
    bench.until_output(handle, "up")
    other = bench.make()
    found = other.find(handle.directory)
    assert found is not None
    assert found.pid == handle.pid
    assert isinstance(other.poll(found), Running)
    other.stop(found, 1)
    end = other.wait(found, WAIT_S)
    assert isinstance(end, Finished)
    assert end.outcome is Outcome.STOPPED
    assert other.find(str(bench.root / "never")) is None


def test_a_command_outlives_the_process_that_started_it(bench: Bench) -> None:
    program = f"""
import os
from modelyard.engines.compute.base import CommandSpec
from modelyard.engines.compute.process import ProcessEngine
argv = ["sh", "-c", "sleep 0.5; echo late"]
ProcessEngine(os.environ).start(CommandSpec(directory={str(bench.root / "one")!r}, argv=argv))
os.kill(os.getpid(), 9)
"""
    starter = subprocess.run([sys.executable, "-c", program], check=False, timeout=WAIT_S)
    assert starter.returncode == -9
    handle = bench.engine.find(str(bench.root / "one"))
    assert handle is not None
    assert bench.finished(handle).ok
    assert bench.output(handle) == "late\n"


def test_a_killed_supervisor_is_told_as_lost_and_nothing_keeps_running(bench: Bench) -> None:
    handle = bench.python(IGNORES_AND_FORKS)
    bench.until_output(handle, "grandchild")
    os.kill(handle.pid, signal.SIGKILL)
    found = bench.end(handle)
    assert isinstance(found, Lost)
    bench.until(lambda: bench.marked(handle) == [])
    assert isinstance(bench.engine.poll(handle), Lost)


def test_a_reused_process_id_is_never_signalled(bench: Bench) -> None:
    handle = bench.python("pass")
    bench.end(handle)
    bench.until(lambda: bench.marked(handle) == [])
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        (Path(handle.directory) / "result.json").unlink()
        imposter = Handle(directory=handle.directory, pid=bystander.pid, started_at=handle.started_at)
        (Path(handle.directory) / "result.partial").write_text("")
        bench.engine.stop(imposter, 0)
        assert isinstance(bench.engine.poll(imposter), Lost)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_huge_log_is_capped_and_keeps_its_start_and_its_end(bench: Bench) -> None:
    program = "import sys\nprint('first')\nsys.stdout.flush()\nb = b'x' * 1_000_000\n"
    program += "for _ in range(60): sys.stdout.buffer.write(b)\nprint('\\nlast')"
    handle = bench.python(program, log_bytes_max=300_000)
    assert bench.finished(handle).ok
    kept = sum(file.stat().st_size for file in (Path(handle.directory) / "log").iterdir())
    assert kept <= 300_000
    start = bench.engine.read_log(handle, 0, 6)
    assert (start.content, start.skipped_bytes) == (b"first\n", 0)
    tail = bench.engine.read_log(handle, -5)
    assert (tail.content, tail.end) == (b"last\n", True)
    middle = bench.engine.read_log(handle, 150_000)
    assert middle.skipped_bytes > 50_000_000
    assert middle.offset == 150_000 + middle.skipped_bytes


def test_reading_on_gives_every_byte_once(bench: Bench) -> None:
    handle = bench.python("for n in range(20000): print(n)", log_bytes_max=3_000_000)
    bench.end(handle)
    offset, pieces = 0, []
    while not (piece := bench.engine.read_log(handle, offset, 10_000)).end:
        pieces.append(piece.content)
        offset = piece.next
    pieces.append(piece.content)
    assert b"".join(pieces).split() == [str(number).encode() for number in range(20000)]


def test_secrets_are_struck_out_and_the_servers_environment_stays_away(bench: Bench, tmp_path: Path) -> None:
    program = "import os, sys, time\nt = os.environ['API_TOKEN']\nprint('a', t, t[:9], sep='|')\n"
    program += "sys.stdout.flush(); sys.stdout.write(t[:5]); sys.stdout.flush(); time.sleep(0.2)\n"
    program += "sys.stdout.write(t[5:] + '\\n'); print(sorted(os.environ))"
    os.environ["SERVER_ONLY"] = "hidden"
    try:
        engine = ProcessEngine(os.environ)
    finally:
        del os.environ["SERVER_ONLY"]
    spec = CommandSpec(
        directory=str(tmp_path / "s"),
        argv=[sys.executable, "-c", program],
        env={"API_TOKEN": "canary-5f2c91"},
        secret_env=["API_TOKEN"],
    )
    handle = engine.start(spec)
    assert isinstance(engine.wait(handle, WAIT_S), Finished)
    text = engine.read_log(handle).content.decode()
    assert text.splitlines()[:2] == ["a|***|canary-5f", "***"]
    assert "API_TOKEN" in text
    assert "SERVER_ONLY" not in text
    for file in (tmp_path / "s").rglob("*"):
        assert not file.is_file() or b"canary-5f2c91" not in file.read_bytes(), file


def test_memory_over_the_limit_ends_it(bench: Bench) -> None:
    program = "import time\nheld = bytearray(200_000_000)\ntime.sleep(600)"
    end = bench.finished(bench.python(program, memory_bytes=100_000_000))
    assert end.outcome is Outcome.OUT_OF_MEMORY
    assert "100,000,000" in end.message
    # It may be caught while it is still filling what it asked for.
    assert end.usage.peak_rss_bytes > 100_000_000


def test_shared_memory_of_forks_counts_once(bench: Bench) -> None:
    program = "import os, time\nheld = b'x' * 60_000_000\nfor _ in range(4):\n    if os.fork() == 0:\n"
    program += "        time.sleep(1.5); os._exit(0)\n"
    end = bench.finished(bench.python(program + "time.sleep(1.5)", memory_bytes=150_000_000))
    assert end.ok, end.message


def test_usage_is_live(bench: Bench) -> None:
    handle = bench.python("import time\nend = time.monotonic() + 600\nwhile time.monotonic() < end: pass")

    def busy() -> bool:
        found = bench.engine.poll(handle)
        return isinstance(found, Running) and found.usage.cpu_s > 0.2 and found.usage.peak_rss_bytes > 0

    bench.until(busy)


def test_watch_tells_the_end(bench: Bench) -> None:
    handle = bench.python("import time; time.sleep(0.3)")
    ended = Event()
    bench.engine.watch(handle, ended.set)
    assert ended.wait(WAIT_S)
    assert isinstance(bench.engine.poll(handle), Finished)


def test_signals_that_python_ignores_work_in_the_command(bench: Bench) -> None:
    handle = bench.start("sh", "-c", "yes | head -1; echo ok")
    assert bench.finished(handle).ok
    assert bench.output(handle) == "y\nok\n"


def test_directories_and_files_are_private(bench: Bench) -> None:
    handle = bench.python("print(1)")
    bench.end(handle)
    for path in [Path(handle.directory), *Path(handle.directory).rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_overhead_over_a_bare_process_is_small(bench: Bench) -> None:
    def bare() -> float:
        before = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        return time.perf_counter() - before

    def supervised(name: str) -> float:
        before = time.perf_counter()
        assert bench.finished(bench.python("pass", name=name)).ok
        return time.perf_counter() - before

    floor = min(bare() for _ in range(5))
    ours = min(supervised(f"n{number}") for number in range(5))
    assert ours < floor * 15, f"{ours * 1000:.0f} ms against {floor * 1000:.0f} ms"


def test_a_full_disk_is_said_and_the_command_is_started_when_there_is_room(bench: Bench) -> None:
    with files_limited(16), pytest.raises(Unavailable, match="was not started") as caught:
        bench.python("print('ran')")
    assert caught.value.code == "compute.disk_full"
    handle = bench.python("print('ran')")
    assert bench.finished(handle).ok
    assert bench.output(handle) == "ran\n"


def test_a_stop_on_a_full_disk_is_said_and_works_when_there_is_room(bench: Bench) -> None:
    handle = bench.python("import time; print('up', flush=True); time.sleep(600)")
    bench.until_output(handle, "up")
    with files_limited(4), pytest.raises(Unavailable, match="was not stopped") as caught:
        bench.engine.stop(handle, 0)
    assert caught.value.code == "compute.disk_full"
    assert isinstance(bench.engine.poll(handle), Running)
    bench.engine.stop(handle, 0)
    assert bench.finished(handle).outcome is Outcome.STOPPED
