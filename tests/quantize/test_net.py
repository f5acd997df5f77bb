"""The quantized net: its steps, its agreement with NNCF's own run of the same quantizers."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from edgevit.errors import InputError
from edgevit.ops import Quantizer
from edgevit.quantize.net import INPUT, QuantizedNet, run_float, trace
from edgevit.quantize.place import activation_quantizer, observe, place, weight_scale
from edgevit.quantize.ptq import correct_biases
from tests.programs import SMALL, seeded_images, seeded_net


def quantizers(net, images, profile="portable"):
    steps = trace(net)
    ranges = observe(net, steps, [images])
    activations = {}
    for name in [INPUT, *(s.name for s in steps if s.quantized)]:
        activations[name] = activation_quantizer(*ranges[name], profile)
    for step in steps:
        if step.op == "sigmoid":
            activations[step.name] = Quantizer(1 / 256, -128, how="fixed")
    return activations, {s.name: weight_scale(s.layer.weight) for s in steps if s.layer}


def test_the_steps_compute_the_net() -> None:
    net, images = seeded_net(), seeded_images(3, 64)
    with torch.no_grad():
        for _name, value in run_float(trace(net), images):
            last = value
        assert torch.equal(last, net(images))


def test_names_are_the_programs() -> None:
    from edgevit.program.build import trace_graph

    net = seeded_net()
    graph = trace_graph(net, 64)
    assert [s.name for s in trace(net) if s.quantized] == [
        node.name for node in graph.nodes if node.op != "flatten"
    ]


def test_a_missing_or_unknown_quantizer_is_named() -> None:
    net, images = seeded_net(), seeded_images(2, 64)
    activations, scales = quantizers(net, images)
    missing = {k: v for k, v in activations.items() if k != "stem.conv2"}
    with pytest.raises(InputError, match="none for stem.conv2"):
        QuantizedNet(net, missing, scales)
    with pytest.raises(InputError, match="no tensor named stem.conv9"):
        QuantizedNet(net, activations, {**scales, "stem.conv9": scales["stem.conv1"]})


def test_an_unfused_net_is_refused() -> None:
    from edgevit.models.repvit import RepViT

    with pytest.raises(InputError, match="cannot quantize.*edgevit fuse"):
        trace(RepViT(SMALL).eval())


@pytest.mark.parametrize("profile", ["portable", "asymmetric"])
def test_snapped_scales_survive_fp16_and_the_program_is_the_net(
    profile: str, embedded_checkpoint: Path, embedded_val: Path
) -> None:
    from edgevit.data.images import ImageSet, Preprocessing
    from edgevit.models.checkpoint import load
    from edgevit.program import ModelInfo, ProgramInfo, build_program

    net = load(embedded_checkpoint).model.fuse()
    preprocessing = Preprocessing(64)
    images_in = ImageSet.open(embedded_val)
    images = preprocessing.normalise(images_in.pixels(range(0, 1000, 8), preprocessing))
    quantized = QuantizedNet(copy.deepcopy(net), *quantizers(net, images, profile)).eval()
    quantized.snap()
    for q in quantized.activation_quantizers().values():
        assert float(torch.tensor(q.scale).half()) == q.scale
        assert profile == "asymmetric" or q.zero_point == 0 or q.how == "fixed"
    info = ProgramInfo(
        ModelInfo("repvit_m0_9", 10, 64), profile, preprocessing, tuple(images_in.classes)
    )
    program = build_program(
        net, quantized.activation_quantizers(), quantized.weight_scales(), 64, info
    )
    with torch.no_grad():
        found, wanted = program.run(images), quantized(images)
    # The program rounds biases to their int32 grid and adds in another order: values that lie on
    # a rounding edge fall on its other side, here and there, and the next layers carry it on.
    steps = (found - wanted).abs() / quantized.activation_quantizers()["head"].scale
    assert float(steps.mean()) < 4
    assert float((found.argmax(1) == wanted.argmax(1)).float().mean()) >= 0.97


def test_bias_correction_restores_the_channel_means() -> None:
    net, images = seeded_net(), seeded_images(32, 64)
    wanted = {n: v.mean((0, 2, 3)) for n, v in run_float(trace(net), images) if v.dim() == 4}
    activations, scales = quantizers(net, images)
    # Coarse weights, so that there is something to correct.
    scales = {name: 6 * scale for name, scale in scales.items()}
    before = QuantizedNet(copy.deepcopy(net), activations, scales)
    after = QuantizedNet(copy.deepcopy(net), activations, scales)
    assert correct_biases(after, images) > 0

    def error(quantized: QuantizedNet) -> float:
        seen = {}
        for step_name, value in quantized.run(images):
            if step_name in quantized.layers and value.dim() == 4:
                seen[step_name] = (value.mean((0, 2, 3)) - wanted[step_name]).abs().mean()
        return float(sum(seen.values()))

    with torch.no_grad():
        assert error(after) < 0.5 * error(before)


@pytest.mark.parametrize("profile", ["portable", "asymmetric"])
def test_nncf_places_and_the_completion_pass_completes(profile: str) -> None:
    net, images = seeded_net(), seeded_images(8, 64)
    before = copy.deepcopy(net.state_dict())
    activations, scales, completed = place(net, list(images.split(4)), profile)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    # What NNCF leaves out is exactly what INT8 runtimes need on top: GELU inputs and SE.
    acts = [name for name in completed if not name.endswith(".weight")]
    assert acts and all(".se." in n or n.endswith("conv1") for n in acts)
    assert set(completed) - set(acts) == {
        f"{s.name}.weight" for s in trace(net) if s.name.endswith((".se.fc1", ".se.fc2"))
    }
    quantized = QuantizedNet(net, activations, scales).eval()
    with torch.no_grad():
        cosine = torch.nn.functional.cosine_similarity(
            quantized(images).flatten(), net(images).flatten(), dim=0
        )
    assert float(cosine) > 0.95
    gates = [q for name, q in activations.items() if name.endswith("se.gate")]
    assert gates and all((q.scale, q.zero_point, q.how) == (1 / 256, -128, "fixed") for q in gates)
