"""The tracer: every form of every operation computes what the net does; names, outputs, modes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgevit.errors import InputError
from edgevit.graph import trace
from edgevit.ops import BY_KIND
from tests.nets import SHAPE, Net, Scale, images, kinds, names, seeded, traced


def conv(inputs: int = 4, outputs: int = 4, kernel: int = 1, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, **options)


@dataclass(frozen=True)
class Form:
    """A way to write something, and the operations it becomes behind one convolution "c"."""

    name: str
    forward: Callable[[Any, Tensor], Any]
    becomes: str
    layers: dict[str, nn.Module] = field(default_factory=dict)


class WrittenOut(nn.Module):
    """As Segment Anything's neck has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


def turned(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()


class Permuted(WrittenOut):
    def forward(self, x: Tensor) -> Tensor:
        return turned(lambda y: F.layer_norm(y, (4,), self.weight, self.bias, 1e-6), x)


def by_variance(x: Tensor) -> Tensor:
    away = x - x.mean(1, keepdim=True)
    return away * torch.rsqrt(torch.var(x, 1, unbiased=False, keepdim=True) + 1e-5)


def by_powers(x: Tensor) -> Tensor:
    away = x - x.mean(-3, keepdim=True)
    return ((away * away).mean(1, keepdim=True) + 1e-5) ** -0.5 * away


def mean_first(layer: Callable[[Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    return lambda net, x: layer(net.c(x).mean((2, 3)))


FORMS = [
    Form("Conv2d", lambda n, x: n.d(n.c(x)), "conv2d", {"d": conv(4, 6, 3, padding=1, stride=2)}),
    Form("depthwise", lambda n, x: n.d(n.c(x)), "conv2d", {"d": conv(4, 8, 3, groups=4)}),
    Form("grouped", lambda n, x: n.d(n.c(x)), "conv2d", {"d": conv(4, 6, 3, groups=2)}),
    Form("dilated", lambda n, x: n.d(n.c(x)), "conv2d", {"d": conv(kernel=3, dilation=2)}),
    Form("one side each", lambda n, x: n.d(n.c(x)), "conv2d",
         {"d": nn.Conv2d(4, 4, (1, 5), stride=(2, 1), padding=(0, 2), bias=False)}),
    Form("padding same", lambda n, x: n.d(n.c(x)), "conv2d",
         {"d": conv(kernel=5, padding="same", dilation=2)}),
    Form("padding valid", lambda n, x: n.d(n.c(x)), "conv2d",
         {"d": conv(kernel=3, padding="valid")}),
    Form("F.conv2d", lambda n, x: F.conv2d(n.c(x), n.d.weight), "conv2d", {"d": conv(kernel=3)}),
    Form("ConvTranspose2d", lambda n, x: n.d(n.c(x)), "conv_transpose2d",
         {"d": nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1)}),
    Form("F.conv_transpose2d", lambda n, x: F.conv_transpose2d(n.c(x), n.d.weight),
         "conv_transpose2d", {"d": nn.ConvTranspose2d(4, 6, 2, bias=False)}),
    Form("Linear", lambda n, x: n.d(n.c(x).mean((2, 3))), "mean flatten linear",
         {"d": nn.Linear(4, 3)}),
    Form("F.linear", lambda n, x: F.linear(n.c(x).mean((2, 3)), n.d.weight), "mean flatten linear",
         {"d": nn.Linear(4, 3)}),
    Form("x + y", lambda n, x: n.c(x) + x, "add"),
    Form("x += y", lambda n, x: n.c(x).add_(x), "add"),
    Form("torch.add", lambda n, x: torch.add(x, n.c(x)), "add"),
    Form("x + x", lambda n, x: (lambda y: y + y)(n.c(x)), "add"),
    Form("x * y", lambda n, x: n.c(x) * x, "mul"),
    Form("x *= y", lambda n, x: n.c(x).mul_(x), "mul"),
    Form("x * x", lambda n, x: (lambda y: y * y)(n.c(x)), "mul"),
    Form("gate", lambda n, x: n.c(x) * x.mean((2, 3), keepdim=True), "mean mul"),
    Form("gate first", lambda n, x: n.c(x).mean((2, 3), keepdim=True) * x, "mean mul"),
    Form("one channel", lambda n, x: n.d(x) + n.c(x), "conv2d add", {"d": conv(4, 1)}),
    Form("sub", lambda n, x: n.d(n.c(x)) - x, "gelu conv2d add", {"d": nn.GELU()}),
    Form("GELU", lambda n, x: n.d(n.c(x)), "gelu", {"d": nn.GELU()}),
    Form("F.gelu", lambda n, x: F.gelu(n.c(x)), "gelu"),
    Form("Hardswish", lambda n, x: n.d(n.c(x)), "hard_swish", {"d": nn.Hardswish(inplace=True)}),
    Form("F.hardswish", lambda n, x: F.hardswish(n.c(x)), "hard_swish"),
    Form("SiLU", lambda n, x: n.d(n.c(x)), "sigmoid mul", {"d": nn.SiLU()}),
    Form("F.silu_", lambda n, x: F.silu(n.c(x), inplace=True), "sigmoid mul"),
    Form("x * sigmoid(x)", lambda n, x: (lambda y: y * y.sigmoid())(n.c(x)), "sigmoid mul"),
    Form("ReLU", lambda n, x: n.d(x + n.c(x)), "add relu", {"d": nn.ReLU()}),
    Form("ReLU in place", lambda n, x: n.d(x + n.c(x)), "add relu", {"d": nn.ReLU(inplace=True)}),
    Form("F.relu", lambda n, x: F.relu(x + n.c(x)), "add relu"),
    Form("x.relu_", lambda n, x: (x + n.c(x)).relu_(), "add relu"),
    Form("clamp(min=0)", lambda n, x: (x + n.c(x)).clamp(min=0), "add relu"),
    Form("clamp_min", lambda n, x: torch.clamp_min(x + n.c(x), 0), "add relu"),
    Form("ReLU6", lambda n, x: n.d(x + n.c(x)), "add relu6", {"d": nn.ReLU6(inplace=True)}),
    Form("F.relu6", lambda n, x: F.relu6(x + n.c(x)), "add relu6"),
    Form("clamp(0, 6)", lambda n, x: (x + n.c(x)).clamp(0, 6), "add relu6"),
    Form("Hardtanh(0, 6)", lambda n, x: n.d(x + n.c(x)), "add relu6", {"d": nn.Hardtanh(0, 6)}),
    Form("F.hardtanh_", lambda n, x: F.hardtanh_(x + n.c(x), 0.0, 6.0), "add relu6"),
    Form("Sigmoid", lambda n, x: n.d(n.c(x)), "sigmoid", {"d": nn.Sigmoid()}),
    Form("torch.sigmoid", lambda n, x: torch.sigmoid(n.c(x)), "sigmoid"),
    Form("sigmoid_", lambda n, x: n.c(x).sigmoid_(), "sigmoid"),
    Form("Hardsigmoid", lambda n, x: n.d(n.c(x)), "hard_sigmoid",
         {"d": nn.Hardsigmoid(inplace=True)}),
    Form("torch.tanh", lambda n, x: torch.tanh(n.c(x)), "tanh"),
    Form("F.hardsigmoid", lambda n, x: F.hardsigmoid(n.c(x)), "hard_sigmoid"),
    Form("mean, kept", lambda n, x: n.c(x).mean((-1, -2), keepdim=True), "mean"),
    Form("mean", lambda n, x: n.c(x).mean((2, 3)), "mean flatten"),
    Form("AdaptiveAvgPool2d", lambda n, x: n.d(n.c(x)), "mean", {"d": nn.AdaptiveAvgPool2d(1)}),
    Form("F.adaptive_avg_pool2d", lambda n, x: F.adaptive_avg_pool2d(n.c(x), (1, 1)), "mean"),
    Form("AvgPool2d", lambda n, x: n.d(n.c(x)), "avg_pool2d", {"d": nn.AvgPool2d(2)}),
    Form("F.avg_pool2d", lambda n, x: F.avg_pool2d(n.c(x), (3, 2), 1), "avg_pool2d"),
    Form("MaxPool2d", lambda n, x: n.d(n.c(x)), "max_pool2d", {"d": nn.MaxPool2d(3, 2, 1)}),
    Form("F.max_pool2d", lambda n, x: F.max_pool2d(n.c(x), 2), "max_pool2d"),
    Form("Softmax", mean_first(nn.Softmax(1)), "mean flatten softmax"),
    Form("F.softmax", mean_first(lambda y: y.softmax(-1)), "mean flatten softmax"),
    Form("LayerNorm2d", lambda n, x: n.d(n.c(x)), "layer_norm", {"d": WrittenOut(4)}),
    Form("F.layer_norm", lambda n, x: n.d(n.c(x)), "layer_norm", {"d": Permuted(4)}),
    Form("LayerNorm between permutes", lambda n, x: turned(n.d, n.c(x)), "layer_norm",
         {"d": nn.LayerNorm(4)}),
    Form("LayerNorm, nothing learned", lambda n, x: turned(n.d, n.c(x)), "layer_norm",
         {"d": nn.LayerNorm(4, elementwise_affine=False)}),
    Form("norm by var and rsqrt", lambda n, x: by_variance(n.c(x)), "layer_norm"),
    Form("norm by powers", lambda n, x: by_powers(n.c(x)), "layer_norm"),
    Form("Flatten", lambda n, x: n.d(n.c(x)), "flatten", {"d": nn.Flatten()}),
    Form("torch.flatten", lambda n, x: torch.flatten(n.c(x), 1), "flatten"),
    Form("view", lambda n, x: n.c(x).view(x.shape[0], -1), "flatten"),
    Form("reshape", lambda n, x: n.c(x).reshape(-1, 4 * 8 * 8), "flatten"),
    Form("squeeze", lambda n, x: n.c(x).mean((2, 3), keepdim=True).squeeze((2, 3)), "mean flatten"),
    Form("cat of 2", lambda n, x: torch.cat([n.c(x), x], 1), "concat"),
    Form("cat of 3", lambda n, x: torch.cat([x, n.c(x), x], dim=-3), "concat"),
    Form("cat of (N, C)", mean_first(lambda y: torch.cat([y, y], 1)), "mean flatten concat"),
    Form("Upsample", lambda n, x: n.d(n.c(x)), "resize", {"d": nn.Upsample(scale_factor=2)}),
    Form("interpolate to a size", lambda n, x: F.interpolate(n.c(x), (16, 24)), "resize"),
    Form("bilinear", lambda n, x: F.interpolate(n.c(x), scale_factor=3, mode="bilinear"), "resize"),
    Form("slice", lambda n, x: n.c(x)[:, 1:3], "slice"),
    Form("slice of maps", lambda n, x: n.c(x)[:, :, 1::2, :-1], "slice slice"),
    Form("all of it", lambda n, x: n.c(x)[:, :], ""),
    Form("chunk", lambda n, x: torch.cat(n.c(x).chunk(2, 1)[::-1], 1), "slice slice concat"),
    Form("chunk of 3", lambda n, x: sum(n.c(x).chunk(4, 2)[1:], n.c(x)[:, :, 6:]),
         "slice slice slice conv2d slice add add add"),
    Form("split", lambda n, x: torch.cat(n.c(x).split(3, 1)[::-1], 1), "slice slice concat"),
    Form("split to sizes", lambda n, x: torch.cat(n.c(x).split([1, 3], 1)[::-1], 1),
         "slice slice concat"),
    Form("one part of a split", lambda n, x: torch.split(n.c(x), 2, dim=-1)[1], "slice"),
    Form("pad", lambda n, x: F.pad(n.c(x), (1, 2, 3, 0)), "pad"),
    Form("pad of the width", lambda n, x: F.pad(n.c(x), (1, 2)), "pad"),
    Form("ZeroPad2d", lambda n, x: n.d(n.c(x)), "pad", {"d": nn.ZeroPad2d((1, 0, 2, 1))}),
    Form("dropout", lambda n, x: n.d(F.gelu(n.c(x))), "gelu", {"d": nn.Dropout()}),
    Form("copies", lambda n, x: F.gelu(n.c(x).clone().detach().contiguous()), "gelu"),
    Form("Identity", lambda n, x: n.d(F.gelu(n.c(x))), "gelu", {"d": nn.Identity()}),
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_each_form_becomes_its_operation_and_computes_the_same(form: Form) -> None:
    net = seeded(Net(form.forward, c=conv(), **form.layers))
    graph = traced(net)
    assert kinds(graph) == ["conv2d", *form.becomes.split()]


def test_every_operation_has_a_form() -> None:
    assert set(" ".join(form.becomes for form in FORMS).split()) == set(BY_KIND)


CONSTANTS = [
    ("x + 1", lambda y: y + 1), ("1 + x", lambda y: 1 + y), ("x - 0.5", lambda y: y - 0.5),
    ("1 - x", lambda y: 1 - y), ("x * 3", lambda y: y * 3), ("x / 6", lambda y: y / 6),
    ("x += 1", lambda y: y.add_(1)), ("x /= 3", lambda y: y.div_(3)),
    ("chain", lambda y: (2 * y - 1) / 3 + 0.25), ("x * 1", lambda y: y * 1 + 0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change"), CONSTANTS, ids=[name for name, _ in CONSTANTS])
def test_constants_disappear_into_weights(name: str, change: Callable[[Tensor], Tensor]) -> None:
    behind = traced(seeded(Net(lambda n, x: change(n.c(x)), c=conv())))
    assert kinds(behind) == ["conv2d"]
    net = Net(lambda n, x: n.d(change(n.c(x).mean((2, 3)))), c=conv(), d=nn.Linear(4, 3))
    before_linear = traced(seeded(net))
    assert kinds(before_linear) == ["conv2d", "mean", "flatten", "linear"]


@pytest.mark.parametrize("shape", [(), (1,), (4, 1, 1), (1, 4, 1, 1), (1, 1, 1, 1)])
def test_stored_factors_are_one_value_a_channel(shape: tuple[int, ...]) -> None:
    net = seeded(Net(lambda n, x: n.scale(n.c(x)), c=conv(), scale=Scale(*shape)))
    assert kinds(traced(net)) == ["conv2d"]


# -- names ------------------------------------------------------------------------------------


def test_leaves_name_their_tensor_and_modules_their_operations() -> None:
    inner = Net(lambda n, x: n.act(n.c(x)) + x, c=conv(), act=nn.GELU())
    net = Net(lambda n, x: F.gelu(n.block(x)) * x, block=inner)
    assert names(traced(seeded(net))) == ["block.c", "block.act", "block.add", "gelu", "mul"]


def test_a_module_that_is_called_twice_makes_two_tensors() -> None:
    net = Net(lambda n, x: n.act(n.d(n.act(n.c(n.c(x))))), c=conv(), d=conv(), act=nn.GELU())
    graph = traced(seeded(net))
    assert names(graph) == ["c.conv2d", "c.conv2d_1", "act.gelu", "d", "act.gelu_1"]
    first, second, _ = graph.weighted()
    assert (first.weight == second.weight).all() and first.module != second.module


def test_a_norm_that_is_called_twice_is_folded_twice() -> None:
    net = Net(lambda n, x: n.b(n.d(n.b(n.c(x)))), c=conv(), d=conv(), b=nn.BatchNorm2d(4))
    assert names(traced(seeded(net))) == ["c", "d"]


def test_two_operations_of_one_module_are_numbered() -> None:
    net = Net(lambda n, x: F.silu(F.silu(n.c(x)) + x) + x, c=conv())
    assert names(traced(seeded(net))) == [
        "c", "silu.gate", "silu.mul", "add", "silu_1.gate", "silu_1.mul", "add_1"
    ]  # fmt: skip


# -- outputs, dead code, modes ----------------------------------------------------------------


def test_several_outputs_keep_their_order() -> None:
    def forward(net: Any, x: Tensor) -> tuple[Tensor, ...]:
        y = net.c(x)
        z = net.d(y)
        return z.mean((2, 3)), y, z

    graph = traced(seeded(Net(forward, c=conv(), d=conv())))
    assert graph.outputs == ("mean", "c", "d")
    with pytest.raises(InputError, match="3 outputs where one is needed"):
        assert graph.output_name


def test_an_output_in_the_middle_keeps_its_name_and_its_values() -> None:
    """A ReLU is not fused behind a tensor that is given out, nor a norm folded into it."""

    def forward(net: Any, x: Tensor) -> tuple[Tensor, ...]:
        y = net.c(x)
        return y, F.relu(y), net.b(y)

    graph = traced(seeded(Net(forward, c=conv(), b=nn.BatchNorm2d(4))))
    assert kinds(graph) == ["conv2d", "relu", "conv2d"] and graph.outputs == ("c", "relu", "b")


def test_what_no_output_needs_is_left_out() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.c(x)
        net.dead(y).sigmoid()
        _, second = y.chunk(2, 1)
        return second

    net = Net(forward, c=conv(), dead=conv())
    assert names(traced(seeded(net))) == ["c", "split.1"]


def test_a_net_is_left_as_it_was() -> None:
    net = seeded(Net(lambda n, x: n.b(n.d(n.c(x))), c=conv(), d=nn.Dropout(), b=nn.BatchNorm2d(4)))
    net.train()
    net.c.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    graph = trace(net, SHAPE)
    assert [m.training for m in (net, net.b, net.d, net.c)] == [True, True, True, False]
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert kinds(graph) == ["conv2d"]
    net.eval()
    traced(net)


@pytest.mark.parametrize("forward", [lambda n, x: F.mish(n.c(x)), lambda n, x: n.c(x).nothing_such])
def test_a_net_that_is_refused_is_left_as_it_was(forward: Any) -> None:
    net = Net(forward, c=conv(), b=nn.BatchNorm2d(4)).train()
    net.b.eval()
    with pytest.raises(InputError, match=r"mish|torch\.export cannot trace this net.*nothing_such"):
        trace(net, SHAPE)
    assert net.training and net.c.training and not net.b.training


# -- memory that two names share --------------------------------------------------------------


def test_an_operation_in_place_is_seen_by_every_name_of_its_memory() -> None:
    def forward(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        y = net.c(x)
        z = F.dropout(y, training=False).detach()
        z.relu_()
        z += x
        return y * 2, z

    graph = traced(seeded(Net(forward, c=conv())))
    assert kinds(graph) == ["conv2d", "add", "conv2d"]


def test_a_copy_has_memory_of_its_own() -> None:
    def forward(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        y = net.c(x)
        z = y.clone().relu_()
        return y + x, z

    assert kinds(traced(seeded(Net(forward, c=conv())))) == ["conv2d", "relu", "add"]


def part_then_whole(net: Any, x: Tensor) -> Tensor:
    y = net.c(x)
    y[:, 1:].relu_()
    return y * x


def whole_then_part(net: Any, x: Tensor) -> Tensor:
    y = net.c(x)
    first, _ = y.split(2, 1)
    y.relu_()
    return first


@pytest.mark.parametrize("forward", [part_then_whole, whole_then_part])
def test_a_view_that_was_written_through_another_is_refused(forward: Any) -> None:
    with pytest.raises(InputError, match=r"in place.*relu, not relu_"):
        trace(seeded(Net(forward, c=conv())), SHAPE)


def test_only_the_view_that_was_written_is_read() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.c(x)[:, 1:]
        y.relu_()
        return y

    assert kinds(traced(seeded(Net(forward, c=conv())))) == ["conv2d", "slice", "relu"]


def test_an_input_that_is_changed_in_place() -> None:
    graph = traced(seeded(Net(lambda n, x: n.c(x.relu_()) + x, c=conv())))
    assert kinds(graph) == ["relu", "conv2d", "add"] and images().min() < 0
