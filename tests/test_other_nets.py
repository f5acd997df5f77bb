"""Nets of other families: traced, written, audited, and computed by each runtime as their programs.

The weights are random and seeded; batch norms have seen noise, so that no layer is dead. Sizes are
small: 64 px, 10 classes.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from edgevit.data.images import Preprocessing
from edgevit.graph import Graph, trace
from edgevit.graph.count import count
from edgevit.ops import BY_KIND
from edgevit.program import ModelInfo, Program, ProgramInfo, build_program
from edgevit.quantize.subject import RELATIVE_BOUND, Subject, subject_of
from edgevit.targets import load_target, make_options
from tests.programs import quantizers, seeded_images, weight_scales
from tests.repnext import RepNeXt
from tests.targets.test_onnx_operations import EXACT, steps_off
from tests.targets.test_tflite_operations import differing
from tests.timm_compat import import_timm

CLASSES, SIZE = 10, 64
SHAPE = (3, SIZE, SIZE)
REPNEXT = "repnext_m1"
QUICK = (
    "mobilenetv3_large_100", "mobilenetv4_conv_small", "mobileone_s1", "fastvit_t8", REPNEXT,
    "efficientnet_b0", "repvgg_a0", "resnet18", "regnety_008", "regnetx_004", "ghostnet_100",
    "repghostnet_100",
)  # fmt: skip
MERGED = ("mobileone_s1", "fastvit_t8", "repvgg_a0", "repghostnet_100")
"""Nets that timm itself merges, to be compared with."""

FULL = ("mobileone_s4", "tf_mobilenetv3_large_100", "repvit_m0_9")
NETS = [*QUICK, *(pytest.param(name, marks=pytest.mark.full) for name in FULL)]


@cache
def net_of(name: str) -> nn.Module:
    """In eval mode; not to be changed."""
    timm = import_timm()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = RepNeXt(CLASSES) if name == REPNEXT else timm.create_model(name, num_classes=CLASSES)
        # MobileOne-S4 is deep: rounding alone, with a gain of 10 a layer, moves its logits by 1 %.
        return with_seen_norms(net, 0.3 if name == "mobileone_s4" else 0.01)


@torch.no_grad()
def with_seen_norms(net: nn.Module, least_variance: float = 0.01) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, 0, 0.2)
            module.momentum = None  # plain averages over the one batch below
    for name, parameter in net.named_parameters():
        if name.endswith("gamma"):  # layer scales begin at 1e-5, as if their branches were none
            parameter.uniform_(0.3, 1.0)
    net.train()(seeded_images(16, SIZE))
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            # A channel that is always 0 would get a gain of 316, and rounding with it.
            module.running_var.clamp_(min=least_variance)
    net = net.eval()
    return net.merge() if isinstance(net, RepNeXt) else net


@cache
def subject(name: str) -> Subject:
    """Raises GateFailed where the graph does not compute what the net does."""
    return subject_of(net_of(name), seeded_images(4, SIZE), "seeded noise", name)


def graph_of(name: str) -> Graph:
    return subject(name).graph


@cache
def program_of(name: str) -> Program:
    graph = graph_of(name)
    labels = tuple(f"class {index}" for index in range(CLASSES))
    info = ProgramInfo(ModelInfo(name, CLASSES, SIZE), "portable", Preprocessing(SIZE), labels)
    activations = quantizers(graph, seeded_images(4, SIZE), "portable")
    return build_program(graph, activations, weight_scales(graph), info, weight_how="calibrated")


@pytest.mark.parametrize("name", NETS)
def test_the_graph_computes_what_the_net_does(name: str) -> None:
    graph, proof = graph_of(name), subject(name).origin["trace_proof"]
    assert proof["max_abs_delta"] <= RELATIVE_BOUND * max(1, proof["max_abs_output"])
    assert proof["max_abs_output"] > 0.01
    assert "channel_affine" not in {node.kind for node in graph.nodes}


@pytest.mark.parametrize("name", NETS)
def test_litert_computes_every_operation_as_the_program(name: str) -> None:
    """Its own audit is part of writing it."""
    target = load_target("tflite")
    program = program_of(name)
    target.audit(target.write(program, make_options("tflite", target.Options, {})), program)
    found = differing(program, 1)
    assert "conv2d" in found
    for kind, (share, steps) in found.items():
        assert steps <= target.tolerance_steps.get(BY_KIND[kind], 0), (kind, share, steps)


@pytest.mark.parametrize("name", NETS)
def test_onnx_runtime_computes_every_operation_as_the_program(name: str) -> None:
    target = load_target("onnx")
    program = program_of(name)
    target.audit(target.write(program, EXACT[0]), program)
    for place, off in steps_off(program, EXACT[0], seeded_images(2, SIZE, 3)).items():
        assert off.max() == 0, (place, off.max(), (off > 0).mean())


@pytest.mark.parametrize("name", NETS)
def test_tensorrt_holds_the_program(name: str) -> None:
    _audited(name, "tensorrt")


@pytest.mark.full
@pytest.mark.parametrize("name", [*QUICK, *FULL])
def test_core_ml_holds_the_program(name: str) -> None:
    _audited(name, "coreml")


def _audited(name: str, target_name: str) -> None:
    target, program = load_target(target_name), program_of(name)
    options = make_options(target_name, target.Options, {})
    _, compared = target.audit(target.write(program, options), program)
    assert compared.weight_channels == sum(n.channels for n in program.graph().weighted())


@pytest.mark.parametrize("name", [*MERGED, pytest.param("mobileone_s4", marks=pytest.mark.full)])
def test_branches_are_merged_as_far_as_timm_does(name: str) -> None:
    import_timm()
    from timm.utils.model import reparameterize_model

    merged = reparameterize_model(net_of(name))
    convolutions = [m for m in merged.modules() if isinstance(m, nn.Conv2d)]
    found = [node for node in graph_of(name).nodes if node.kind == "conv2d"]
    assert len(found) == len(convolutions)


def test_repnext_has_the_size_that_the_paper_prints() -> None:
    """4.8 M parameters and 0.8 G multiply-accumulates, fused, at 224 px."""
    graph = trace(RepNeXt().merge(), (3, 224, 224))
    assert round(count(graph).parameters / 1e6, 1) == 4.8
    assert round(count(graph).macs / 1e9, 1) == 0.8
