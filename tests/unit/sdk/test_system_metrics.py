"""System metrics: what nvidia-smi prints is read, and the sampler says something about this machine."""

from __future__ import annotations

from collections.abc import Mapping

from modelyard.sdk.system_metrics import Sampler, hardware, parse_gpus

TWO_GPUS = """0, 97, 40536, 81559, 512.33
1, 0, 4, 81559, [N/A]
"""


def test_gpus_are_read_by_index_and_what_they_lack_is_left_out() -> None:
    found = parse_gpus(TWO_GPUS)
    assert found["gpu_0_utilization_percentage"] == 97
    assert round(found["gpu_0_memory_usage_percentage"], 1) == 49.7
    assert found["gpu_0_power_usage_watts"] == 512.33
    assert "gpu_1_power_usage_watts" not in found
    assert parse_gpus("No devices were found\n") == {}


def test_the_sampler_reads_at_least_once_and_stops() -> None:
    seen: list[tuple[Mapping[str, float], int]] = []
    sampler = Sampler(lambda values, step: seen.append((values, step)), interval_s=0.02)
    sampler.stop()
    assert [step for _, step in seen] == list(range(len(seen)))
    assert 0 < seen[-1][0]["system/system_memory_usage_percentage"] <= 100
    assert seen[-1][0]["system/process_memory_megabytes"] > 1


def test_hardware_names_cores_and_memory() -> None:
    assert int(hardware()["modelyard.cpus"]) >= 1
