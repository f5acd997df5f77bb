"""What no program may hold is refused when a net is traced, by the operation and its layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgevit.errors import InputError
from edgevit.graph import trace
from edgevit.ops import BY_OVERLOAD
from tests.nets import SHAPE, Net, Scale, seeded, traced

LAYERS: list[tuple[nn.Module, str]] = [
    (nn.Mish(), "odd: operation aten.mish.default is not one that edgevit can quantize"),
    (nn.GELU(approximate="tanh"), "odd: aten.gelu.default: an approximate GELU"),
    (nn.Hardtanh(-1, 1), r"odd: aten.hardtanh.default: a clamp to \(-1, 1\)"),
    (nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), "odd: aten.pad.default: padding with"),
    (nn.ReflectionPad2d(1), "odd: .*pad"),
    (nn.ConstantPad2d(1, 2.0), "odd: aten.pad.default: padding with anything but zeros"),
    (nn.ZeroPad2d(-1), "odd: aten.pad.default: padding"),
    (nn.Conv2d(4, 4, 2, padding="same"), "odd: aten.conv2d.padding: padding 'same' that differs"),
    (nn.ConvTranspose2d(4, 4, 2, groups=2), "odd: aten.conv_transpose2d.input: .* groups"),
    (nn.ConvTranspose2d(4, 4, 2, dilation=2), "odd: aten.conv_transpose2d.input: .* dilation"),
    (nn.BatchNorm2d(4, track_running_stats=False), "odd: aten.batch_norm.default"),
    (nn.GroupNorm(2, 4), "odd: operation aten.group_norm.default"),
    (nn.LayerNorm([4, 8, 8]), "odd: aten.layer_norm.default: a layer norm that is not over"),
    (nn.MaxPool2d(2, ceil_mode=True), "odd: aten.max_pool2d.default: pooling with ceil_mode"),
    (nn.MaxPool2d(2, dilation=2), "odd: aten.max_pool2d.default: pooling with dilation"),
    (nn.AvgPool2d(3, padding=1), "odd: aten.avg_pool2d.default: average pooling with padding"),
    (nn.AvgPool2d(2, divisor_override=3), "odd: aten.avg_pool2d.default: .*a divisor"),
    (nn.AdaptiveAvgPool2d(2), r"odd: aten.adaptive_avg_pool2d.default: .* pooling to \(2, 2\)"),
    (nn.Softmax(1), "odd: aten.softmax.int: a softmax that is not over the channels of"),
    (nn.Softmax2d(), "odd: aten.softmax.int: a softmax that is not over"),
    (nn.Flatten(2), "odd: aten.flatten.using_ints: a change of shape"),
    (nn.Unflatten(1, (2, 2)), "odd: .*aten"),
    (nn.Upsample(scale_factor=1.5), r"odd: resize from \(8, 8\) to \(12, 12\); whole factors"),
    (nn.Upsample((4, 4)), r"odd: resize from \(8, 8\) to \(4, 4\)"),
    (nn.Upsample(scale_factor=2, mode="bicubic"), "odd: operation aten.upsample_bicubic2d"),
    (nn.UpsamplingBilinear2d(scale_factor=2), "odd: aten.upsample_bilinear2d.vec: .*align_corners"),
    (nn.PixelShuffle(2), "odd: operation aten.pixel_shuffle.default"),
    (Scale(8), r"odd: aten.mul.Tensor: a constant of shape \(8,\)"),
    (Scale(8, 1), r"odd: aten.mul.Tensor: a constant of shape \(8, 1\)"),
    (Scale(1, 4, 8, 8), r"odd: aten.mul.Tensor: a constant of shape \(1, 4, 8, 8\)"),
    (Scale(1, 1, 4, 1, 1), r"odd: aten.mul.Tensor: a constant of shape \(1, 1, 4, 1, 1\)"),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "message"), LAYERS, ids=[str(layer) for layer, _ in LAYERS])
def test_a_layer_out_of_range_is_named(layer: nn.Module, message: str) -> None:
    net = seeded(Net(lambda n, x: n.odd(n.c(x)), c=nn.Conv2d(4, 4, 1), odd=layer))
    with pytest.raises(InputError, match=message):
        trace(net, SHAPE)


def _norm_and(y: torch.Tensor, more: Any) -> torch.Tensor:
    """A norm of which something else reads a part."""
    away = y - y.mean(1, keepdim=True)
    return away / torch.sqrt(away.pow(2).mean(1, keepdim=True) + 1e-6) + more(away)


FUNCTIONS: list[tuple[Any, str]] = [
    (lambda y: y.add(y, alpha=2), "block: aten.add.Tensor: a sum with alpha 2"),
    (lambda y: y / y.sigmoid(), "block: aten.div.Tensor: a quotient with a tensor below the line"),
    (lambda y: 1 / y, "block: operation aten.reciprocal.default"),
    (lambda y: y.mean(1, keepdim=True), r"block: aten.mean.dim: a mean over axes \(1,\)"),
    (lambda y: y - y.mean(1, keepdim=True), r"block: aten.mean.dim: a mean over axes \(1,\)"),
    (lambda y: y.var(1, keepdim=True), "block: aten.var.*: a variance that is not"),
    (lambda y: y.pow(2), "block: aten.pow.Tensor_Scalar: a power of 2"),
    (lambda y: y.relu().sqrt(), "block: aten.sqrt.default: a root"),
    (lambda y: y.permute(0, 2, 3, 1), "block: aten.permute.default: another order of axes"),
    (lambda y: y.permute(0, 3, 2, 1), r"block: aten.permute.default: an order of axes \(0, 3"),
    (lambda y: _norm_and(y, lambda away: away), "block: aten.mean.dim: a mean over"),
    (lambda y: y.mean(), "block: operation aten.mean.default"),
    (lambda y: y.mean((2, 3), dtype=torch.float64), "block: aten.mean.dim: dtype cannot be"),
    (lambda y: torch.cat([y, y], 2), "block: aten.cat.default: a concatenation along axis 2"),
    (lambda y: torch.cat([y, torch.ones(1, 4, 8, 8)], 1), "block: operation aten.ones.default"),
    (lambda y: y[:, 0], "block: operation aten.select.int"),
    (lambda y: y.view(1, 2, 2, 8, 8), "block: aten.view.default: a change of shape"),
    (lambda y: y.transpose(2, 3), "block: operation aten.transpose.int"),
    (lambda y: y.clamp(-1, 1), r"block: aten.clamp.default: a clamp to \(-1, 1\)"),
    (lambda y: y.double(), "block: operation aten.to.dtype|block: operation aten._assert"),
    (lambda y: F.hardtanh(y, min_val=0), r"block: aten.hardtanh.default: a clamp to \(0, 1.0\)"),
    (lambda y: y.clamp(max=6), r"block: aten.clamp.default: a clamp to \(None, 6\)"),
    (lambda y: y.mean((2, 3)) * 2 + 1, "block.add: a norm or factor on .N, C. can be folded into"),
    (lambda y: y @ y, "block: operation aten.matmul.default"),
]


@pytest.mark.parametrize(("function", "message"), FUNCTIONS, ids=[m for _, m in FUNCTIONS])
def test_a_function_out_of_range_is_named_by_the_module_it_is_written_in(
    function: Any, message: str
) -> None:
    block = Net(lambda n, x: function(n.c(x)), c=nn.Conv2d(4, 4, 1))
    with pytest.raises(InputError, match=message):
        trace(seeded(Net(lambda n, x: n.block(x), block=block)), SHAPE)


class Constants(nn.Module):
    """Side by side with what is stored."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, 2, 8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.token], 1)


def test_a_stored_tensor_is_not_left_out_of_a_concatenation() -> None:
    net = seeded(Net(lambda n, x: n.cat(n.c(x)), c=nn.Conv2d(4, 4, 1), cat=Constants()))
    with pytest.raises(InputError, match="cat: aten.cat.default: a concatenation with a stored"):
        trace(net, SHAPE)


def test_ranks_that_would_line_up_by_chance_are_not_summed() -> None:
    """torch adds (N, C) to (N, C, H, W) where N is 1 or H; for one image of this size it is."""
    net = Net(lambda n, x: n.c(x) + x.mean((2, 3)), c=nn.Conv2d(8, 8, 1))
    with pytest.raises(InputError, match=r"add: add of \(1, 8, 8, 8\) and \(1, 8\)"):
        trace(seeded(net), (8, 8, 8))


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda n, x: x, "input: the output must be made by an operation"),
        (lambda n, x: (n.c(x),) * 2, "one or more outputs, each once"),
        (lambda n, x: (), "one or more outputs"),
        (lambda n, x: (n.c(x), None), "gives out or reads None"),
        (lambda n, x: (n.c(x), n.c.weight), "gives out or reads p_c_weight"),
        (lambda n, x: (n.c(x), 3), "gives out or reads 3"),
        (lambda n, x: F.conv2d(x, n.c(x)[:, :, :1, :1]), "a weight or bias that is computed"),
        (
            lambda n, x: n.c(x) + n.c.weight.mean((2, 3), keepdim=True),
            "the net: aten.mean.dim reads stored",
        ),
    ],
)
def test_outputs_and_operands_must_come_from_the_input(forward: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        trace(seeded(Net(forward, c=nn.Conv2d(4, 4, 1))), SHAPE)


def test_what_torch_says_of_an_input_of_another_shape_is_passed_on() -> None:
    net = Net(lambda n, x: n.c(x), c=nn.Conv2d(4, 4, 1))
    with pytest.raises(InputError, match=r"for an input of \(1, 3, 8, 8\): .*channels"):
        trace(net, (3, 8, 8))


def test_weights_of_another_type_are_refused() -> None:
    net = Net(lambda n, x: n.c(x.double()), c=nn.Conv2d(4, 4, 1).double())
    with pytest.raises(InputError, match=r"aten\.to|float32|_assert"):
        trace(net, SHAPE)


class TwoInputs(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return x if y is None else x + y


def test_a_net_of_two_inputs_is_refused() -> None:
    class Needs(TwoInputs):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return x + y

    with pytest.raises(InputError, match=r"torch.export cannot .*: it needs 2 inputs \(x, y\)"):
        trace(Needs(), SHAPE)


def test_an_input_with_a_default_is_none() -> None:
    net = Net(lambda n, x: n.two(n.c(x)), c=nn.Conv2d(4, 4, 1), two=TwoInputs())
    assert trace(seeded(net), SHAPE).outputs == ("c",)


class Same(nn.Module):
    """Padding that is computed from the input's size, more on one side than on the other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = (max(0, (-(-s // 2) - 1) * 2 + 3 - s) for s in x.shape[2:])
        padded = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return F.relu_(self.conv(padded))


def test_padding_by_the_inputs_size_is_traced_for_the_size_that_is_asked_for() -> None:
    for shape in (SHAPE, (4, 7, 10)):
        graph = traced(seeded(Same()), shape)
        assert graph.shape(graph.outputs[0])[2:] == (-(-shape[1] // 2), -(-shape[2] // 2))


def test_the_signatures_are_torchs_own() -> None:
    """torch.export leaves arguments out where they have ATen's default: ours must be that."""
    for overload, operation in BY_OVERLOAD.items():
        _, name, variant = overload.split(".")
        schema = getattr(getattr(torch.ops.aten, name), variant)._schema
        arguments = {each.name: each for each in schema.arguments}
        for argument, (_, default) in operation.aten[overload].items():
            found = arguments[argument]
            if found.has_default_value():
                wanted = found.default_value
                wanted = tuple(wanted) if isinstance(wanted, list) else wanted
                assert default == wanted, (overload, argument)


class UnknownHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class WithHead(nn.Module):
    """A body of known operations in a holder of its own, and a head that has another."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.ModuleDict({
            "backbone": nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)),
            "head": UnknownHead(),
        })  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model["head"](self.model["backbone"](x))


class InBoxes(WithHead):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.model["head"].conv(self.model["backbone"](x))
        return maps.flatten(2).transpose(1, 2)


def test_a_net_with_an_unknown_head_is_told_its_place_and_offered_its_body() -> None:
    with pytest.raises(InputError) as refused:
        trace(seeded(WithHead()), SHAPE)
    text = str(refused.value)
    assert "and no target of edgevit takes it" in text
    assert text.startswith("model.head.norm: operation aten.group_norm.default is not one that")
    line = UnknownHead.forward.__code__.co_firstlineno + 1
    assert f"it is called in {Path(__file__).name}, line {line}" in text
    assert 'edgevit.quantize(net.model.backbone, ..., task="features")' in text
    assert trace(WithHead().model["backbone"].eval(), SHAPE).outputs == ("2",)


def test_a_body_in_a_sequence_is_offered_as_it_is_reached() -> None:
    body = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU())
    with pytest.raises(InputError, match=r'quantize\(net.get_submodule\("0"\), ...'):
        trace(seeded(nn.Sequential(body, UnknownHead())), SHAPE)


def test_answers_that_are_put_in_order_are_to_be_given_out_before() -> None:
    with pytest.raises(InputError) as refused:
        trace(seeded(InBoxes()), SHAPE)
    text = str(refused.value)
    assert "aten.flatten.using_ints: a change of shape from (1, 8, 4, 4)" in text
    assert "give out what it reads and do that outside of the net" in text
    assert "'model.backbone' comes before it" in text


def test_a_resize_by_no_whole_factor_is_told_its_place() -> None:
    net = Net(lambda n, x: n.odd(n.c(x)), c=nn.Conv2d(4, 4, 1), odd=nn.Upsample(scale_factor=1.5))
    with pytest.raises(InputError, match="whole factors.* called in .*no target of edgevit"):
        trace(seeded(net), SHAPE)


def test_no_body_is_offered_where_nothing_whole_comes_before() -> None:
    net = seeded(Net(lambda n, x: n.odd(n.c(x)), c=nn.Conv2d(4, 4, 1), odd=nn.Mish()))
    with pytest.raises(InputError) as refused:
        trace(net, SHAPE)
    assert "outside of the net" in str(refused.value)
    assert "can be quantized alone" not in str(refused.value)
