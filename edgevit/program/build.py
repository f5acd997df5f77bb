"""Making a quantized graph: trace the fused float net, then give every tensor its quantizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgevit.choices import PROFILES
from edgevit.errors import InputError
from edgevit.graph.graph import (
    INT8_MAX,
    INT8_MIN,
    SIGMOID_SCALE,
    SIGMOID_ZERO_POINT,
    WEIGHT_MAX,
    Graph,
    How,
    Node,
    Quantizer,
    is_float16_exact,
)
from edgevit.program.aten import Call, Ref
from edgevit.program.reading import bias_on_grid, bias_value, graph_from_calls

if TYPE_CHECKING:
    import torch


def trace_graph(net: torch.nn.Module, image_size: int) -> Graph:
    """The float Graph of a fused net in eval mode, through torch.export.

    net         a fused RepViT: every convolution, linear and activation a leaf module
    image_size  height and width of its input, in pixels
    Raises InputError naming the operation that no program may hold (a BatchNorm of a net that was
    not fused, for one).
    """
    import torch

    was_training = net.training
    net.eval()
    try:
        with torch.no_grad():
            exported = torch.export.export(net, (torch.zeros(1, 3, image_size, image_size),))
    except RuntimeError as error:
        raise InputError(f"torch.export cannot trace this net: {error}") from error
    finally:
        net.train(was_training)
    signature = exported.graph_signature
    state = exported.state_dict
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    tensors = {name: state[path].detach().numpy() for name, path in names.items()}
    if len(signature.user_inputs) != 1 or len(signature.user_outputs) != 1:
        raise InputError("a program has one input and one output; this net has another count")
    calls = [_call(node) for node in exported.graph.nodes if node.op == "call_function"]
    shape = (1, 3, image_size, image_size)
    (source,), (output,) = signature.user_inputs, signature.user_outputs
    return graph_from_calls(calls, tensors, source, shape, output, quantized=False)


def _call(node: torch.fx.Node) -> Call:
    schema = node.target._schema
    args: dict[str, Any] = {}
    for argument, value in zip(schema.arguments, node.args, strict=False):
        args[argument.name] = _value(value)
    args.update({name: _value(value) for name, value in node.kwargs.items()})
    stack = list((node.meta.get("nn_module_stack") or {"": ("", None)}).values())
    return Call(str(node.target), args, node.name, stack[-1][0])


def _value(value: Any) -> Any:
    if hasattr(value, "op") and hasattr(value, "name"):  # a torch.fx.Node
        return Ref(value.name)
    return tuple(value) if isinstance(value, list) else value


def quantize_graph(
    graph: Graph,
    activations: Mapping[str, Quantizer],
    weight_scales: Mapping[str, np.ndarray],
    profile: str,
    weight_how: How = "learned",
) -> Graph:
    """The quantized Graph of a float one: given scales, nothing chosen here.

    activations     canonical tensor name -> its Quantizer, for every tensor but the flatten's
    weight_scales   module path -> float32 [O], for every convolution and linear
    weight_how      how the weight scales were set
    profile         "portable" (zero-points 0, the sigmoid's excepted) or "asymmetric"
    Weights are rounded half to even after a float32 multiplication by the reciprocal of their
    scale, as torch's fake_quantize does, and kept in -127..127.
    Raises InputError naming the tensor: without a quantizer, quantizer without a tensor, scale not
    float16-exact, sigmoid off its fixed range, zero-point against the profile, bias over int32.
    """
    if profile not in PROFILES:
        raise InputError(f"profile {profile!r} is not one of {', '.join(PROFILES)}")
    if graph.quantized:
        raise InputError("this graph is quantized already")
    ops = {graph.input_name: "input"} | {n.name: n.op for n in graph.nodes if n.op != "flatten"}
    _same_names("activation", set(ops), set(activations))
    _same_names("weight scale", {n.module for n in graph.weighted()}, set(weight_scales))
    for name, op in ops.items():
        _check_activation(name, op, activations[name], profile)

    source = activations[graph.input_name]
    scale_of = {graph.input_name: source.scale}
    nodes: list[Node] = []
    for node in graph.nodes:
        input_scale = scale_of[node.inputs[0]]
        if node.op == "flatten":
            scale_of[node.name] = input_scale
            nodes.append(node)
            continue
        quantizer = activations[node.name]
        scale_of[node.name] = quantizer.scale
        weights: dict[str, Any] = {}
        if node.weight is not None:
            weights = _weights(node, weight_scales[node.module], input_scale)
            weights["weight_how"] = weight_how
        nodes.append(replace(node, quantizer=quantizer, **weights))
    return replace(graph, input_quantizer=source, nodes=tuple(nodes))


def _same_names(what: str, expected: set[str], given: set[str]) -> None:
    if missing := sorted(expected - given):
        raise InputError(
            f"{missing[0]}: no {what} quantizer was given for this tensor"
            + (f" ({len(missing) - 1} more)" if missing[1:] else "")
        )
    if unknown := sorted(given - expected):
        raise InputError(
            f"{unknown[0]}: a {what} quantizer was given for it, but the net holds no such tensor"
            + (f" ({len(unknown) - 1} more)" if unknown[1:] else "")
        )


def _check_activation(name: str, op: str, quantizer: Quantizer, profile: str) -> None:
    """The rules of a program for one activation; InputError naming the tensor."""
    if not is_float16_exact(quantizer.scale):
        raise InputError(f"{name}: scale {quantizer.scale!r} is not float16-exact; snap it first")
    if (quantizer.quant_min, quantizer.quant_max) != (INT8_MIN, INT8_MAX):
        raise InputError(f"{name}: activations use all of int8, {INT8_MIN}..{INT8_MAX}")
    if op == "sigmoid":
        if (quantizer.scale, quantizer.zero_point) != (SIGMOID_SCALE, SIGMOID_ZERO_POINT):
            raise InputError(
                f"{name}: a sigmoid's output is fixed at scale 1/256, zero-point "
                f"{SIGMOID_ZERO_POINT}, not {quantizer.scale!r}, {quantizer.zero_point}"
            )
    elif profile == "portable" and quantizer.zero_point != 0:
        raise InputError(
            f"{name}: zero-point {quantizer.zero_point}; the portable profile is symmetric"
        )


def _weights(node: Node, scale: np.ndarray, input_scale: float) -> dict[str, Any]:
    scale = np.asarray(scale)
    if scale.dtype != np.float32 or scale.shape != node.weight.shape[:1]:
        raise InputError(
            f"{node.module}: its weight scale is {scale.dtype} {scale.shape}, expected float32 "
            f"{node.weight.shape[:1]}"
        )
    if not is_float16_exact(scale):
        raise InputError(f"{node.module}: a weight scale is not float16-exact; snap it first")
    if not (np.isfinite(node.weight).all() and np.isfinite(node.bias).all()):
        raise InputError(f"{node.module}: a weight or bias is not a finite number")
    per_channel = (-1,) + (1,) * (node.weight.ndim - 1)
    rounded = np.rint(node.weight * (np.float32(1) / scale).reshape(per_channel))
    values = np.clip(rounded, -WEIGHT_MAX, WEIGHT_MAX).astype(np.int8)
    units = bias_on_grid(node.module, node.bias, input_scale, scale)
    bias = bias_value(units, input_scale, scale)
    # Where the grid is finer than float32, the float32 value decides: reading it back is exact.
    units = bias_on_grid(node.module, bias, input_scale, scale)
    return {"weight": values, "weight_scale": scale, "bias": bias, "bias_q": units}


def check_quantized(graph: Graph, profile: str) -> None:
    """The same rules on a finished graph, as a reader of a program file applies them."""
    ops = {graph.input_name: "input"} | {n.name: n.op for n in graph.nodes if n.op != "flatten"}
    for name, op in ops.items():
        _check_activation(name, op, graph.quantizer(name), profile)
    for node in graph.weighted():
        if node.weight_scale is None or not is_float16_exact(node.weight_scale):
            raise InputError(f"{node.module}: its weights are not int8 with float16-exact scales")
