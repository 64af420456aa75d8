"""The trace and the table of kernels of a few steps."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from train.engine.profiling import TABLE, TRACE, Profile, kernel_table

CPU = torch.device("cpu")


@pytest.mark.parametrize("left", [3, 30])
def test_steps_are_traced_into_a_folder(tmp_path, left):
    with Profile(tmp_path, 2, left, CPU) as profile:
        wrote = []
        for _ in range(left):
            torch.ones(8, 8) @ torch.ones(8, 8)
            wrote.append(profile.step())
    assert wrote.count(True) == 1
    folder = tmp_path / "profile"
    assert json.loads((folder / TRACE).read_text())["traceEvents"]
    text = (folder / TABLE).read_text()
    assert "aten::mm" in text and "2 steps" in text


def test_a_run_that_ends_early_is_divided_by_its_own_steps(tmp_path):
    with Profile(tmp_path, 8, 4, CPU) as profile:
        for _ in range(4):
            torch.ones(8, 8) @ torch.ones(8, 8)
            profile.step()
    lines = (tmp_path / "profile" / TABLE).read_text().splitlines()
    assert lines[0].endswith("; 4 steps")
    (calls,) = (line.split()[1] for line in lines if line.endswith(" aten::mm"))
    assert calls == "1.0"


def kernel(name, start, end, annotation=False, device=DeviceType.CUDA):
    span = SimpleNamespace(start=start, end=end, elapsed_us=lambda: end - start)
    return SimpleNamespace(
        name=name, time_range=span, device_type=device, is_user_annotation=annotation
    )


def test_a_gpus_table_sums_its_kernels():
    events = [
        kernel("ProfilerStep*", 0, 10_000, annotation=True),
        kernel("aten::mm", 0, 3_000, device=DeviceType.CPU),
        kernel("sm90_gemm_bf16", 0, 6_000),
        kernel("flash_fwd", 6_000, 7_000),
        kernel("triton_poi_gelu", 8_000, 9_000),
    ]
    lines = kernel_table(events, 2, torch.device("cuda")).splitlines()
    assert lines[0] == "5.00 ms a step, 4.00 ms of kernels (80.0%); 2 steps"
    kinds = [line.split(maxsplit=2) for line in lines[3:6]]
    assert kinds == [
        ["3.000", "75.0%", "products"],
        ["0.500", "12.5%", "attention"],
        ["0.500", "12.5%", "fused by the compiler"],
    ]
    assert "0.5  sm90_gemm_bf16" in lines[9 - 1]
