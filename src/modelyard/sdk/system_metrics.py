"""What a run costs its machine while it goes on: CPU, memory, disk, network and GPUs, sampled by a thread.

The names are those of MLflow's system metrics, so that either's pages show them.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

PREFIX = "system/"
INTERVAL_S = 10.0
_MB = 1e6
_GPU_FIELDS = ("index", "utilization.gpu", "memory.used", "memory.total", "power.draw")
_GPU_TIMEOUT_S = 5.0


class Sampler:
    """Hands a reading to `log` every `interval_s` seconds until it is stopped, and one more at the end."""

    def __init__(self, log: Callable[[Mapping[str, float], int], None], interval_s: float = INTERVAL_S) -> None:
        self._log = log
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="system-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after a last reading."""
        self._stopped.set()
        self._thread.join(_GPU_TIMEOUT_S + 1)

    def _run(self) -> None:
        import psutil  # heavy: imported late

        started = psutil.net_io_counters()
        # The first call of either only sets the start of what the next one measures.
        psutil.cpu_percent()
        gpus = shutil.which("nvidia-smi")
        step = 0
        ended = False
        while not ended:
            ended = self._stopped.wait(self._interval_s)
            self._log({PREFIX + key: value for key, value in _reading(started, gpus).items()}, step)
            step += 1


def _reading(started: Any, gpus: str | None) -> dict[str, float]:
    import psutil  # heavy: imported late

    memory, disk, network = psutil.virtual_memory(), psutil.disk_usage("/"), psutil.net_io_counters()
    return {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / _MB,
        "system_memory_usage_percentage": memory.percent,
        "disk_usage_percentage": disk.percent,
        "disk_usage_megabytes": disk.used / _MB,
        "disk_available_megabytes": disk.free / _MB,
        "network_receive_megabytes": (network.bytes_recv - started.bytes_recv) / _MB,
        "network_transmit_megabytes": (network.bytes_sent - started.bytes_sent) / _MB,
        "process_memory_megabytes": psutil.Process().memory_info().rss / _MB,
        **(_gpus(gpus) if gpus else {}),
    }


def _gpus(program: str) -> dict[str, float]:
    with suppress(OSError, subprocess.SubprocessError):
        query = [program, f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader,nounits"]
        done = subprocess.run(query, capture_output=True, text=True, timeout=_GPU_TIMEOUT_S, check=True)
        return parse_gpus(done.stdout)
    return {}


def parse_gpus(text: str) -> dict[str, float]:
    """The readings in what `nvidia-smi --query-gpu` prints, a line a GPU; a field that a GPU lacks is left out."""
    found: dict[str, float] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        fields = [_number(field) for field in line.split(",")]
        if len(fields) != len(_GPU_FIELDS) or fields[0] is None:
            continue
        name = f"gpu_{int(fields[0])}"
        used, total = fields[2], fields[3]
        readings = {
            "utilization_percentage": fields[1],
            "memory_usage_megabytes": None if used is None else used * 1.048576,
            "memory_usage_percentage": 100 * used / total if used is not None and total else None,
            "power_usage_watts": fields[4],
        }
        found.update({f"{name}_{key}": value for key, value in readings.items() if value is not None})
    return found


def hardware() -> dict[str, str]:
    """What the machine is, as tags: cores, memory, and the GPUs' names."""
    import psutil  # heavy: imported late

    tags = {
        "modelyard.cpus": str(psutil.cpu_count() or ""),
        "modelyard.memory_gib": f"{psutil.virtual_memory().total / 2**30:.1f}",
    }
    program = shutil.which("nvidia-smi")
    if program:
        with suppress(OSError, subprocess.SubprocessError):
            query = [program, "--query-gpu=name", "--format=csv,noheader"]
            done = subprocess.run(query, capture_output=True, text=True, timeout=_GPU_TIMEOUT_S, check=True)
            tags["modelyard.gpus"] = ", ".join(filter(None, map(str.strip, done.stdout.splitlines())))
    return {key: value for key, value in tags.items() if value}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
