"""The fused net with a fake quantizer on every tensor that an INT8 runtime holds.

NNCF runs a model inside a torch function mode that looks every call up by name; that and its
quantizers cost two thirds of the training speed. Here the fused RepViT is traced once into a flat
list of steps, each with its quantizer, and the steps are run in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from edgevit.errors import InputError
from edgevit.graph.graph import Quantizer
from edgevit.quantize.fakequant import fake_quantize, fake_quantize_gelu
from edgevit.quantize.snap import Operation, tie_free, to_fp16_grid

INPUT = "input"
WEIGHT_MIN, WEIGHT_MAX = -127, 127
QUANT_MIN, QUANT_MAX = -128, 127
# Their backward needs their inputs only, so their output may be quantized in place. (ReLU's and
# the sigmoid's backward read the output.)
OUTPUT_NOT_KEPT = frozenset({"conv2d", "linear", "add", "mul", "gelu", "hard_swish", "mean"})
FUNCTIONS = {"add": "add", "mul": "mul", "mean": "mean", "iadd": "add", "imul": "mul"}


@dataclass(frozen=True)
class Step:
    """One operation of the fused net: what it computes, from which tensors, into which."""

    op: str  # conv2d linear add mul gelu hard_swish relu sigmoid mean flatten
    name: str  # canonical name of the output: the module path, or path.function
    inputs: tuple[str, ...]
    layer: nn.Conv2d | nn.Linear | None = None
    quantized: bool = True  # False: its only consumer is a ReLU that the runtime fuses, or flatten


def trace(net: nn.Module) -> list[Step]:
    """The steps of a fused RepViT, in execution order. Raises InputError for an unknown layer."""
    modules = dict(net.named_modules())
    graph = fx.Tracer().trace(net)
    names: dict[fx.Node, str] = {}
    steps = []
    for node in graph.nodes:
        if node.op == "placeholder":
            names[node] = INPUT
        elif node.op not in ("output", "get_attr"):
            layer = modules.get(node.target) if node.op == "call_module" else None
            op = _operation(node, layer)
            if op == "identity":
                names[node] = names[node.args[0]]
                continue
            name = _canonical_name(node, op)
            names[node] = name
            inputs = tuple(names[n] for n in node.all_input_nodes)
            keeps = layer if isinstance(layer, (nn.Conv2d, nn.Linear)) else None
            steps.append(
                Step(op, name, inputs, keeps, op != "flatten" and not _feeds_relu(node, modules))
            )
    return steps


def _operation(node: fx.Node, layer: nn.Module | None) -> str:
    kinds = {
        nn.Conv2d: "conv2d",
        nn.Linear: "linear",
        nn.GELU: "gelu",
        nn.Hardswish: "hard_swish",
        nn.ReLU: "relu",
        nn.Sigmoid: "sigmoid",
        nn.Identity: "identity",
    }
    if layer is not None and type(layer) in kinds:
        return kinds[type(layer)]
    target = node.target if isinstance(node.target, str) else node.target.__name__
    if node.op in ("call_function", "call_method"):
        if target in FUNCTIONS:
            return FUNCTIONS[target]
        if target == "flatten":
            return "flatten"
    raise InputError(
        f"the net has an operation that edgevit cannot quantize: {target} at {node.name}; "
        "is it a fused RepViT? (edgevit fuse)"
    )


def _canonical_name(node: fx.Node, op: str) -> str:
    if node.op == "call_module":
        return node.target
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    return f"{path}.{op}" if path else op


def _feeds_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    users = list(node.users)
    return (
        len(users) == 1
        and users[0].op == "call_module"
        and isinstance(modules.get(users[0].target), nn.ReLU)
    )


class QuantizedNet(nn.Module):
    """Runs the steps of a fused net with fake quantizers; train its parameters like any module's.

    Parameters: the layers' float weights and biases; `log_scale` (A,), the natural logarithm of
    each activation scale; `zero_point` (A,), trained in the asymmetric profile and rounded in the
    forward; `weight_log_scale` (W,), all weight scales, one an output channel, layer after layer.
    Logarithms, so that one learning rate means the same relative change for every scale.
    """

    def __init__(
        self,
        net: nn.Module,
        activations: dict[str, Quantizer],
        weight_scales: dict[str, Tensor],
    ) -> None:
        """Raises InputError when a tensor has no quantizer or a quantizer no tensor."""
        super().__init__()
        self.net = net
        self.steps = trace(net)
        self.names = [INPUT, *(s.name for s in self.steps if s.quantized)]
        self.layers = {s.name: s.layer for s in self.steps if s.layer is not None}
        _same_names("activation", self.names, activations)
        _same_names("weight", list(self.layers), weight_scales)
        self.quantizers = {name: activations[name] for name in self.names}
        fixed = [activations[n].how == "fixed" for n in self.names]
        self.register_buffer("fixed", torch.tensor(fixed), persistent=False)
        scales = torch.tensor([activations[n].scale for n in self.names], dtype=torch.float64)
        zeros = [float(activations[n].zero_point) for n in self.names]
        self.log_scale = nn.Parameter(scales.log().float())
        self.register_buffer("exact_scale", scales.float())
        self.zero_point = nn.Parameter(torch.tensor(zeros))
        flat = torch.cat([weight_scales[name].detach().flatten() for name in self.layers])
        self.weight_log_scale = nn.Parameter(flat.log())
        self.register_buffer("exact_weight_scale", flat.clone())
        # A symmetric profile keeps every zero-point at 0; only others are trained.
        self.zero_point_trained = any(zeros[i] for i, f in enumerate(fixed) if not f)
        # Once snapped, the exact values are used and exp(log) must not touch them again.
        self.register_buffer("snapped", torch.tensor(False))
        self.last_use = last_uses(self.steps)
        self.gelu_inputs = _only_for_gelu(self.steps)

    def scales(self) -> tuple[Tensor, Tensor, Tensor]:
        """Activation scales (A,), zero-points (A,), weight scales (W,) as the forward uses them."""
        if bool(self.snapped):
            return self.exact_scale, self.zero_point.detach().round(), self.exact_weight_scale
        scale = torch.where(self.fixed, self.exact_scale, self.log_scale.exp())
        zero = torch.where(self.fixed, self.zero_point.detach(), self.zero_point)
        return scale, zero, self.weight_log_scale.exp()

    def forward(self, x: Tensor) -> Tensor:
        """float32 images (N, 3, H, W) to logits (N, classes)."""
        for _name, value in self.run(x, fuse_gelu=True):
            output = value
        return output

    def run(
        self,
        x: Tensor,
        adjust: Callable[[Step, Tensor], Tensor] | None = None,
        fuse_gelu: bool = False,
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, tensor) by step; `adjust` may replace a result before it is quantized.

        With `fuse_gelu` the same is computed in less memory, but a tensor that only a GELU reads
        is yielded as it is before it is quantized.
        """
        scale, zero, weight_scale = self.scales()
        scales = dict(zip(self.names, scale.split(1), strict=True))
        zeros = dict(zip(self.names, zero.split(1), strict=True))
        widths = [layer.weight.shape[0] for layer in self.layers.values()]
        weight_scales = dict(zip(self.layers, weight_scale.split(widths), strict=True))

        def grid(name: str) -> tuple[Tensor, Tensor, int, int]:
            q = self.quantizers[name]
            return scales[name], zeros[name], q.quant_min, q.quant_max

        later = self.gelu_inputs if fuse_gelu else frozenset()
        values = {INPUT: fake_quantize(x, *grid(INPUT))}
        yield INPUT, values[INPUT]
        for index, step in enumerate(self.steps):
            weight = None
            if step.layer is not None:
                weight = quantized_weight(step.layer.weight, weight_scales[step.name])
            if step.inputs[0] in later:
                value = fake_quantize_gelu(values[step.inputs[0]], *grid(step.inputs[0]))
            else:
                value = compute(step, [values[i] for i in step.inputs], weight)
            if adjust is not None:
                value = adjust(step, value)
            if step.quantized and step.name not in later:
                value = fake_quantize(value, *grid(step.name), step.op in OUTPUT_NOT_KEPT)
            values[step.name] = value
            for name in self.last_use.get(index, ()):
                del values[name]
            yield step.name, values.get(step.name, value)

    def weight_scales(self) -> dict[str, Tensor]:
        """float32 (O,) for every convolution and linear layer."""
        widths = [layer.weight.shape[0] for layer in self.layers.values()]
        return dict(zip(self.layers, self.scales()[2].detach().split(widths), strict=True))

    def activation_quantizers(self) -> dict[str, Quantizer]:
        """The quantizers as they are now, in execution order."""
        scale, zero, _ = self.scales()
        result = {}
        for i, name in enumerate(self.names):
            q = self.quantizers[name]
            zero_point = int(zero[i].round().clamp(q.quant_min, q.quant_max))
            result[name] = Quantizer(float(scale[i]), zero_point, q.quant_min, q.quant_max, q.how)
        return result

    @torch.no_grad()
    def snap(self) -> None:
        """Move every scale to a value of fp16 without ties; freeze scales and zero-points."""
        if bool(self.snapped):
            return
        scale, _, weight_scale = self.scales()
        self.exact_scale.copy_(self._tie_free(scale))
        self.exact_weight_scale.copy_(to_fp16_grid(weight_scale))
        self.bound_zero_points()
        self.zero_point.round_()
        self.snapped.fill_(True)

    def _tie_free(self, scale: Tensor) -> Tensor:
        scales = dict(zip(self.names, scale.tolist(), strict=True))
        fixed = [name for name, q in self.quantizers.items() if q.how == "fixed"]
        operations = [Operation(s.op, s.inputs, s.name) for s in self.steps]
        return torch.tensor(list(tie_free(scales, fixed, operations).values()))

    @torch.no_grad()
    def bound_zero_points(self) -> None:
        """Keep every zero-point on the int8 grid, where 0.0 is represented exactly."""
        self.zero_point.clamp_(QUANT_MIN, QUANT_MAX)


def compute(step: Step, inputs: list[Tensor], weight: Tensor | None = None) -> Tensor:
    """The step's float result; `weight` takes the place of the layer's own."""
    first = inputs[0]
    layer = step.layer
    if layer is not None:
        weight = layer.weight if weight is None else weight
        if step.op == "linear":
            return F.linear(first, weight, layer.bias)
        return F.conv2d(first, weight, layer.bias, layer.stride, layer.padding, 1, layer.groups)
    match step.op:
        case "add":
            return inputs[0] + inputs[-1]
        case "mul":
            return inputs[0] * inputs[-1]
        case "gelu":
            return F.gelu(first)
        case "hard_swish":
            return F.hardswish(first)
        case "relu":
            return F.relu(first)
        case "sigmoid":
            return torch.sigmoid(first)
        case "mean":
            return first.mean((2, 3), keepdim=True)
    return first.flatten(1)


def run_float(steps: list[Step], x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, tensor) of the float net, step by step, with the layers' weights as they are."""
    values = {INPUT: x}
    last_use = last_uses(steps)
    for index, step in enumerate(steps):
        value = compute(step, [values[name] for name in step.inputs])
        values[step.name] = value
        for name in last_use.get(index, ()):
            del values[name]
        yield step.name, value


def quantized_weight(weight: Tensor, scale: Tensor) -> Tensor:
    """Fake-quantized int8 weights, one symmetric scale an output channel."""
    return fake_quantize(weight, scale, scale.new_zeros(1), WEIGHT_MIN, WEIGHT_MAX)


def last_uses(steps: list[Step]) -> dict[int, list[str]]:
    """Which tensors each step uses for the last time, so that evaluation frees them early."""
    last = {name: index for index, step in enumerate(steps) for name in step.inputs}
    result: dict[int, list[str]] = {}
    for name, index in last.items():
        result.setdefault(index, []).append(name)
    return result


def _only_for_gelu(steps: list[Step]) -> frozenset[str]:
    """The tensors that one GELU reads and nothing else."""
    readers: dict[str, list[str]] = {}
    for step in steps:
        for name in step.inputs:
            readers.setdefault(name, []).append(step.op)
    return frozenset(name for name, ops in readers.items() if ops == ["gelu"])


def _same_names(kind: str, tensors: list[str], quantizers: dict[str, object]) -> None:
    missing = [name for name in tensors if name not in quantizers]
    extra = [name for name in quantizers if name not in set(tensors)]
    if missing or extra:
        raise InputError(
            f"{kind} quantizers do not match the net: "
            + (f"none for {', '.join(missing[:5])}" if missing else "")
            + (f" no tensor named {', '.join(extra[:5])}" if extra else "")
        )
