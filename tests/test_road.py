"""benchmarks/road_nets.py, the road from MobileNetV3-L to RepViT-M0.9, and its short trainings."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from edgevit.graph import Graph, trace
from edgevit.graph.count import count
from edgevit.models.layers import RepVggDw, SqueezeExcite
from edgevit.models.repvit import count_macs, count_parameters, is_fused
from edgevit.models.variants import repvit_m0_9
from edgevit.project import EMBEDDED
from edgevit.targets import load_target
from tests.timm_compat import import_timm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import road  # pyright: ignore[reportMissingImports]
import road_training  # pyright: ignore[reportMissingImports]
from common import ROOT, timing_program  # pyright: ignore[reportMissingImports]
from road_nets import (  # pyright: ignore[reportMissingImports]
    DISTILLED,
    ROAD,
    STEPS,
    RoadConfig,
    RoadNet,
    seeded_net,
    with_random_norms,
)

FACTS = {
    "0": ("5.47", 217), "1": ("3.93", 176), "2a": ("3.24", 113), "2b": ("5.73", 424),
    "3": ("5.75", 455), "4": ("7.08", 665), "5": ("4.59", 645), "6": ("5.22", 819),
    "7": ("5.20", 816), "8": ("5.07", 816),
}  # fmt: skip
"""Millions of parameters and of multiply-accumulates of the fused net, 224 px, 1000 classes."""
CHANGED = {
    "1": {"block"}, "2a": {"expansion"}, "2b": {"widths"}, "3": {"stem"}, "4": {"downsampling"},
    "5": {"head"}, "6": {"depths"}, "7": {"kernels"}, "8": {"se"},
}  # fmt: skip
PUBLISHED = {"step", "change", "top1", "ms", "mparams", "mmacs"}
every_step = pytest.mark.parametrize("config", ROAD, ids=lambda config: f"step {config.step}")


@cache
def graph_at_224(config: RoadConfig) -> Graph:
    return trace(seeded_net(config, 0).eval().fuse(), (3, 224, 224))


@every_step
def test_parameters_and_macs_are_those_of_the_facts_to_their_digits(config: RoadConfig) -> None:
    graph = graph_at_224(config)
    found = f"{count(graph).parameters / 1e6:.2f}", round(count(graph).macs / 1e6)
    assert found == FACTS[config.step] == (f"{config.mparams:.2f}", config.mmacs)


def test_the_reconstruction_lost_one_squeeze_excite_in_step_3() -> None:
    """5.73 M, 454.8 M: the third stage's fifth block without V3's squeeze-excite."""
    graph = graph_at_224(STEPS["3"])
    squeezed = next(
        layer
        for path, layer in seeded_net(STEPS["3"], 0).named_modules()
        if path == "stages.2.blocks.4.se" and isinstance(layer, SqueezeExcite)
    )
    convolutions = squeezed.fc1, squeezed.fc2
    parameters = count(graph).parameters - sum(map(count_parameters, convolutions))
    macs = count(graph).macs - sum(each.weight.numel() for each in convolutions)
    assert (parameters, macs) == (5_729_064, 454_805_312)


def test_the_steps_are_the_papers_and_each_changes_what_it_names() -> None:
    assert list(STEPS) == list(FACTS)
    for before, after in pairwise(ROAD):
        changed = {
            field.name
            for field in fields(RoadConfig)
            if getattr(before, field.name) != getattr(after, field.name)
        }
        assert changed - PUBLISHED == CHANGED[after.step]
    differs = {
        f.name
        for f in fields(RoadConfig)
        if getattr(DISTILLED, f.name) != getattr(ROAD[-1], f.name)
    }
    assert differs == {"step", "change", "top1"}


def test_step_0_is_as_large_as_timms_mobilenetv3() -> None:
    reference = import_timm().create_model("mobilenetv3_large_100").eval()
    expected, found = trace(reference, (3, 224, 224)), graph_at_224(STEPS["0"])
    assert count(found) == count(expected)


def test_step_8_is_repvit_m0_9() -> None:
    shipped = repvit_m0_9(distillation=False).eval()
    own = seeded_net(STEPS["8"], 0).eval()
    own.load_state_dict(shipped.state_dict())  # every name and every shape
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(own(images), shipped(images))
    shipped.fuse()
    own.fuse()
    expected, found = (trace(net, (3, 64, 64)) for net in (shipped, own))
    assert _operations(found) == _operations(expected)
    at_224 = graph_at_224(STEPS["8"])
    assert count(at_224).parameters == count_parameters(shipped)
    assert count(at_224).macs == count_macs(shipped, 224)


def _operations(graph: Graph) -> list[tuple[object, ...]]:
    return [
        (node.kind, node.name, node.inputs, graph.shape(node.name), getattr(node, "stride", None))
        for node in graph.nodes
    ]


def test_only_the_steps_from_the_first_on_have_branches() -> None:
    branches = {
        config.step: sum(isinstance(m, RepVggDw) for m in RoadNet(config).modules())
        for config in ROAD
    }
    assert branches["0"] == 0
    # At stride 1, and one more in each of three downsampling layers from step 4 on.
    assert branches["1"] == branches["2b"] == 11 and branches["3"] == 11
    assert branches["4"] == 17 and branches["8"] == 23


@every_step
def test_a_step_trains_fuses_and_goes_to_tflite(config: RoadConfig, tmp_path: Path) -> None:
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    net = with_random_norms(seeded_net(config, 0, classes=10), images, 0)
    net(images).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    with torch.no_grad():
        expected = net(images)
        assert (expected - expected[0]).abs().max() > 1e-3, "images are told apart"
        found = net.fuse()(images)
    assert is_fused(net)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    program = timing_program(trace(net, (3, 64, 64)), f"step_{config.step}")
    target = load_target("tflite")
    for precision in ("int8", "float32"):
        target.compile(program, tmp_path / precision, precision=precision)
        target.check_artifact(tmp_path / precision, program)


def _arguments(**changed: object) -> argparse.Namespace:
    given = {
        "data": EMBEDDED / "train.tar", "val": EMBEDDED / "val.tar", "images": 128, "epochs": 1.0,
        "image_size": 32, "threads": torch.get_num_threads(),
    }  # fmt: skip
    return argparse.Namespace(**given | changed)


def test_a_finished_training_is_read_and_another_budget_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_timm()
    budget, config = road_training.budget_of(_arguments()), STEPS["2a"]
    assert len(budget.learned) == 128
    first = road_training.train_one(budget, tmp_path, config, 1)
    assert 0 <= first["top1_percent"] <= 100 and len(first["losses"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-2a-seed-1.json"]
    monkeypatch.delattr(road_training, "Trainer")  # nothing is trained any more
    assert road_training.train_one(budget, tmp_path, config, 1) == first
    rows = road_training.collected(tmp_path, budget.to_json())
    assert list(rows) == ["2a"] and rows["2a"]["seeds"] == [1]
    assert rows["2a"]["mean"] == first["top1_percent"] and rows["2a"]["half_width"] is None
    other = road_training.budget_of(_arguments(epochs=2.0))
    with pytest.raises(SystemExit, match="another budget"):
        road_training.train_one(other, tmp_path, config, 1)


def test_an_interrupted_training_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_timm()
    budget, config = road_training.budget_of(_arguments()), STEPS["2a"]
    monkeypatch.setattr(road_training, "SNAPSHOT_INTERVAL_S", 0.0)
    whole = road_training.train_one(budget, tmp_path / "whole", config, 0)
    step, stopped = road_training.Trainer._step, []

    def stops(self: object, *given: object) -> object:
        if len(stopped) == 1:
            stopped.append(True)
            raise KeyboardInterrupt
        stopped.append(True)
        return step(self, *given)  # pyright: ignore[reportCallIssue]

    monkeypatch.setattr(road_training.Trainer, "_step", stops)
    with pytest.raises(KeyboardInterrupt):
        road_training.train_one(budget, tmp_path / "cut", config, 0)
    assert (tmp_path / "cut" / "step-2a-seed-0.run" / "state.safetensors").exists()
    again = road_training.train_one(budget, tmp_path / "cut", config, 0)
    assert again["top1_percent"] == whole["top1_percent"] and again["losses"] == whole["losses"]
    assert again["train_s"] is None, "of a part of it no time is told"
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["step-2a-seed-0.json"]


def test_the_interval_is_students() -> None:
    assert road_training.interval([90.0]) == {"mean": 90.0, "half_width": None}
    found = road_training.interval([90.0, 91.0, 92.0])
    assert found["mean"] == 91.0
    assert found["half_width"] == pytest.approx(4.302653 / 3**0.5, rel=1e-5)


def test_times_are_compared_within_a_round() -> None:
    times = {
        ("float32", "0"): [10.0, 20.0], ("float32", "1"): [30.0, 10.0],
        ("int8", "0"): [5.0, 5.0], ("int8", "1"): [3.0, 4.0],
    }  # fmt: skip
    row = road.compared(times, "1")
    assert row["int8_speed_up"] == {"median": 6.25, "min": 2.5, "max": 10.0}
    assert row["float32"]["us"] == 20.0
    assert row["float32"]["to_step_0"] == {"median": 1.75, "min": 0.5, "max": 3.0}
    assert "to_step_8" not in row["float32"], "step 8 was not measured"


def test_a_missing_compiler_is_a_reason_and_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgevit.targets.npu.compiler.plugin", lambda _: None)
    found = road.npu(b"", "SM8750")
    assert set(found) == {"skipped"} and "Qualcomm" in found["skipped"]


def test_the_table_says_what_was_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratio = {"median": 2.0}
    own = {"us": 1500.0, "to_step_0": ratio}
    times = {"float32": own, "int8": own, "int8_speed_up": ratio}
    row = {
        "change": "none", "parameters": 5_470_000, "macs": 217_000_000,
        "npu": {"skipped": "onnxruntime-qnn is not installed"},
        "tensorrt_lint": {"errors": 0, "warnings": 2}, "trained": None,
        "paper": {"top1_percent": None, "iphone12_ms": 1.01},
        "latency": {"harness": times, "cpu_time": times},
    }  # fmt: skip
    monkeypatch.setattr(road, "TRAINED", tmp_path / "none.json")
    assert road.trained() == {}
    text = road.table({"0": row})
    assert "skipped" in text and "not trained" in text and "| 5.47 | 217 | 1.50 |" in text
    assert road.said({"0": row, "8": row}).count("×2.00") == 2
    seeds = {"seeds": [0, 1], "mean": 80.0, "half_width": 1.25}
    (tmp_path / "some.json").write_text(json.dumps({"steps": {"0": seeds}}))
    monkeypatch.setattr(road, "TRAINED", tmp_path / "some.json")
    assert "80.00 ± 1.25 (2 seeds)" in road.table({"0": row | {"trained": road.trained()["0"]}})


def test_the_documentation_shows_the_results() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "road.json").read_text())["steps"]
    text = (ROOT / "docs" / "road.md").read_text()
    assert road.table(rows) in text and road.said(rows) in text
    for step, config in STEPS.items():
        assert rows[step]["parameters"] == count(graph_at_224(config)).parameters
        assert rows[step]["macs"] == count(graph_at_224(config)).macs
