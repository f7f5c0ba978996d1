"""ConvNeXt-Large: it trains a step, exports with parity, and its size is what keeps it from being released."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from heimdall_assets.learning.export.onnx_file import compute_parity
from heimdall_assets.learning.export.variants import Sources, make_variant
from heimdall_assets.learning.file_sizes import foresee_sizes
from heimdall_assets.learning.task import find_task
from heimdall_assets.pipeline.stages.onnx_model import check_parity
from heimdall_assets.pipeline.stages.variants import Judged, choose_variant, find_problems
from heimdall_assets.specs import ExportSpec, ModelSpec
from heimdall_assets_tests.learning.learning_cases import get_lively, make_sessions

LARGE = ModelSpec(kind="single_receiver", backbone_size="large")
KEPT = {"num_sessions": 4, "num_refused": 0, "median_m": 1.0, "p90_m": 1.0, "coverage_90": 0.9}


@pytest.mark.long
def test_large_trains_a_step_exports_with_parity_and_is_refused_for_its_size():
    task, sessions = find_task("single_receiver"), make_sessions(2, seed=3, mels=128)
    statistics = task.fit_statistics(LARGE, sessions)
    torch.manual_seed(1)
    network = task.build_network(LARGE, statistics)
    for name, weight in network.named_parameters():  # untrained, blocks would say nothing: any export would agree
        if name.endswith(".gamma"):
            torch.nn.init.constant_(weight, 0.2)
    batch = task.make_batch(sessions, task.list_examples(sessions), statistics)
    before = {name: weight.detach().sum().item() for name, weight in network.named_parameters()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
    loss = task.compute_loss(network.train(), batch, 0)["loss"]
    loss.backward()
    optimizer.step()
    after = {name: weight.detach().sum().item() for name, weight in network.named_parameters()}
    assert np.isfinite(loss.item())
    assert np.isfinite(list(after.values())).all()
    assert sum(before[name] != after[name] for name in before) > 0.9 * len(before)
    del optimizer
    network.zero_grad(set_to_none=True)

    small = get_lively()
    fitted = replace(
        small,
        weights={name: value.detach().numpy() for name, value in network.state_dict().items()},
        settings={**small.settings, "model": LARGE.dump(), "statistics": statistics, "calibration": {}},
    )
    del network
    spec = ExportSpec()
    sources = Sources.export(fitted, spec, {}, lambda: sessions)
    parity = check_parity(compute_parity(fitted, sources.base, sessions), spec)
    assert parity["passed"]
    assert parity["position_spread_deg"] > 0
    assert len(sources.base) == pytest.approx(foresee_sizes(LARGE, spec)["fp32"], rel=0.01)

    problems = find_problems(len(sources.base), KEPT, KEPT, spec)
    choice = choose_variant([Judged("fp32", len(sources.base), problems)], spec)
    assert choice.rejected[0] == f"fp32: {len(sources.base) / 1e6:.1f} MB, expected at most 100 MB (max_size_mb)"
    assert "a distilled student" in choice.rejected[1]

    smallest = make_variant("int4", sources)  # no variant of it is small enough: a student is the way
    assert len(smallest.data) == pytest.approx(foresee_sizes(LARGE, spec)["int4"], rel=0.02)
    assert find_problems(len(smallest.data), KEPT, KEPT, spec)
