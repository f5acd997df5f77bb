"""Every operation in a Core ML package: written, read back, and run by the reference interpreter.

The interpreter stands in for Core ML, which no machine here has: it says whether the package means
what the program means, not how Apple's hardware rounds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from edgevit.errors import EdgevitError, InputError
from edgevit.graph import Graph
from edgevit.ops import OPERATIONS, HardSigmoid, Sigmoid
from edgevit.program import Program
from edgevit.targets.base import float_form
from edgevit.targets.coreml import TARGET
from edgevit.targets.coreml.options import CoremlOptions
from edgevit.targets.coreml.records import RECORDS
from edgevit.targets.coreml.write import HINDRANCES, write_package
from tests.operation_programs import (
    LABELS,
    any_program,
    norm_program,
    operation_graph,
    operation_program,
)
from tests.programs import make_program, replace_node, with_graph
from tests.random_graphs import random_program
from tests.targets.coreml_editor import Editor, converted
from tests.targets.coreml_steps import differences, nodes_by_name

EXACT = CoremlOptions(compute_precision="float32", input_type="tensor")
FLOAT = CoremlOptions(precision="float16")
REFUSED = "conv_transpose 2/3"
CHOSEN = (
    "conv of 2 groups", "conv depthwise, dilated", "conv_transpose 3/2", "linear of maps",
    "add gate first", "mul plane first", "hard_sigmoid", "avg_pool2d 3/2", "max_pool2d 3/2",
    "resize bilinear, uneven", "slice rows", "softmax", "kept quantizers", "layer_norm of 48",
)  # fmt: skip
"""A form of each kind of operation; the others are for the full run: a conversion takes seconds."""


def forms() -> list[Any]:
    rest = [label for label in LABELS if label not in (*CHOSEN, REFUSED)]
    return [*CHOSEN, *(pytest.param(label, marks=pytest.mark.full) for label in rest)]


def random_input(program: Program, count: int, seed: int = 5) -> torch.Tensor:
    """Images whose input values are any int8."""
    graph = program.graph()
    source = graph.quantizer(graph.input_name)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-128, 128, (count, *graph.input_shape[1:]), generator=generator)
    return (values - source.zero_point).float() * source.scale


def test_every_operation_is_written_and_read() -> None:
    assert set(HINDRANCES) == set(OPERATIONS)
    pairs = {"thresholded_relu", "crop", "classify", "silu"}  # parts of what others are
    assert {"conv", "concat", "pad"} < set(RECORDS) - pairs


@pytest.mark.parametrize("label", forms())
@pytest.mark.parametrize("profile", ["portable", "asymmetric"])
def test_the_interpreter_computes_what_the_program_does(label: str, profile: str) -> None:
    """On the program's own inputs.

    Measured over every form (seed 0, portable, 64 random images each, 20 million values): fused,
    nothing differs but hard_sigmoid, in one input value of 256 (2,772 of 131,072 results): MIL's
    alpha is float32(1 / 6), which is above a sixth, and there the program has a tie. With a
    rounding more, 3 of 8.2 million values of convolutions differ (reciprocal) or 1 (division), and
    31 of 525,824 of sums (division). Every difference is of one step.
    """
    seed = LABELS.index(label) % 3
    program = operation_program(label, seed, profile)
    files, images = converted(program, EXACT), random_input(program, 16)
    nodes = nodes_by_name(program)
    for rounding in ("fused", "reciprocal", "division"):
        for name, off in differences(files, program, images, "float32", rounding).items():
            node = nodes.get(name)
            allowed = TARGET.tolerance_steps.get(type(node), 0) if node else 0
            if rounding == "fused" and not isinstance(node, HardSigmoid):
                allowed = 0
            assert off.max_steps <= allowed, (rounding, name, off)


def test_float16_is_within_the_targets_tolerance() -> None:
    """Float16 has 11 bits, and 8 of them go into the step's number.

    Measured over every form (seed 1, asymmetric, 64 random images each): of convolutions 1.7 % of
    the values differ, of averages 10 %, of sums 1.3 %, of the others 0.3 to 3.5 %; each by one
    step. A value that is only moved is off its grid by 0.05 steps at most, as float16 holds it.
    """
    for label in ("conv and relu6", "add", "hard_swish"):
        program = operation_program(label, 1)
        files = converted(program, CoremlOptions(input_type="tensor"))
        found = differences(files, program, random_input(program, 16), "float16", "division")
        nodes = nodes_by_name(program)
        for name, off in found.items():
            allowed = TARGET.tolerance_steps.get(type(nodes[name]), 0) if name in nodes else 0
            assert off.max_steps <= allowed, (label, name, off)


def test_what_core_ml_cannot_hold_is_refused_by_name() -> None:
    program = operation_program(REFUSED, 0)
    name = program.graph().outputs[0]
    with pytest.raises(InputError, match=f"{name}: Core ML has no transposed convolution"):
        TARGET.write(program, CoremlOptions())
    whole = operation_graph("slice rows", 0)
    node = whole.nodes[-1]
    idle = any_program(replace_node(whole, node.name, start=0, stop=16, step=1))
    with pytest.raises(InputError, match=f"{node.name}: this slice changes nothing"):
        TARGET.write(idle, CoremlOptions())


def test_a_classifier_needs_one_output_of_scores() -> None:
    options = CoremlOptions(output_type="classifier")
    with pytest.raises(InputError, match="one output with a score for each of its 10 labels"):
        TARGET.write(operation_program("conv", 0), options)
    with pytest.raises(InputError, match="adds one of its own"):
        TARGET.write(operation_program("softmax", 0), options)


def several_outputs() -> Program:
    graph = operation_graph("vectors", 3)
    names = (graph.nodes[0].name, graph.nodes[3].name, graph.outputs[0])
    return any_program(Graph(graph.input_shape, graph.nodes, names))


def test_several_outputs_of_any_rank_have_names_of_their_own() -> None:
    program = several_outputs()
    graph = program.graph()
    files = converted(program, EXACT)
    reading, _ = TARGET.audit(files, program)
    assert reading.outputs == ("n0_conv2d_output", "n3_linear_output", "n6_concat_output")
    _, outputs = TARGET.edges(program, EXACT)
    assert [output.shape for output in outputs] == [graph.shape(name) for name in graph.outputs]
    assert tuple(output.name for output in outputs) == reading.outputs


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("options", [EXACT, FLOAT], ids=["int8", "float16"])
def test_what_is_read_is_what_was_written(seed: int, options: CoremlOptions) -> None:
    """For random graphs of every operation; the comparison is of everything but names."""
    program = random_program(seed, ("portable", "asymmetric")[seed % 2], operations=7)
    files = converted(program, options)
    reading, _ = TARGET.audit(files, program)
    graph = program.graph()
    graph = float_form(graph) if options is FLOAT else graph
    assert [type(n) for n in reading.graph.nodes] == [type(n) for n in graph.nodes]
    assert bool(reading.quantizers) is (options is not FLOAT)


def test_a_float_package_of_a_silu_is_read() -> None:
    """coremltools writes silu for x * sigmoid(x) where no quantizer stands between the two."""
    program = make_program(activation="quick-gelu")
    files = converted(program, FLOAT)
    reading, _ = TARGET.audit(files, program)
    gates = [n for n in reading.graph.nodes if isinstance(n, Sigmoid)]
    assert reading.operators["silu"] == 12 and len(gates) == 12 + reading.operators["sigmoid"]
    editor = Editor(files)
    editor.of_kind("silu")[0].type = "sigmoid"
    with pytest.raises(EdgevitError, match="stem.act1.mul: made by conv2d"):
        TARGET.audit(editor.done(), program)


# -- packages that were changed -------------------------------------------------------------------

Change = tuple[str, str, dict[str, list[Any]]]
CHANGES: tuple[Change, ...] = (
    ("conv depthwise, dilated", "conv", {"dilations": [1, 1], "pad": [1, 1, 1, 1]}),
    ("conv_transpose 3/2", "crop", {"crop_height": [0, 1]}),
    ("hard_sigmoid", "sigmoid_hard", {"alpha": [0.2]}),
    ("avg_pool2d 3/2", "avg_pool", {"kernel_sizes": [4, 2]}),
    ("max_pool2d 3/2", "max_pool", {"kernel_sizes": [4, 4]}),
    ("resize bilinear, uneven", "upsample_bilinear", {"align_corners": [True]}),
    ("slice rows", "slice_by_index", {"begin": [0, 0, 2, 0]}),
    ("softmax", "softmax", {"axis": [0]}),
    ("kept quantizers", "pad", {"pad": [0, 0, 0, 0, 0, 1, 0, 2]}),
    ("kept quantizers", "concat", {"interleave": [True]}),
)
"""Those that keep every shape: coremltools itself refuses to read a package with another one."""
KINDS = {
    "crop": "conv_transpose", "sigmoid_hard": "hard_sigmoid", "upsample_bilinear": "resize",
    "slice_by_index": "slice",
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change[0]}: {change[1]}")
def test_a_changed_attribute_is_found_and_named(change: Change) -> None:
    label, kind, arguments = change
    program = operation_program(label, LABELS.index(label) % 3)
    editor = Editor(converted(program, EXACT))
    for argument, values in arguments.items():
        editor.numbers(editor.of_kind(kind)[-1], argument)[:] = values
    names = [n.name for n in program.graph().nodes if KINDS.get(kind, kind) in n.kind]
    with pytest.raises(EdgevitError, match=f"scale audit: {names[-1]}"):
        TARGET.audit(editor.done(), program)


def test_another_order_of_a_concat_is_found() -> None:
    program = operation_program("concat", LABELS.index("concat") % 3)
    editor = Editor(converted(program, EXACT))
    values = editor.of_kind("concat")[0].inputs["values"].arguments
    values[0].name, values[1].name = values[1].name, values[0].name
    with pytest.raises(EdgevitError, match="n4.concat"):
        TARGET.audit(editor.done(), program)


def test_an_activation_that_is_another_is_found() -> None:
    program = operation_program("conv and relu6", 1)
    editor = Editor(converted(program, CoremlOptions(input_type="tensor")))
    editor.of_kind("relu6")[0].type = "relu"
    with pytest.raises(EdgevitError, match="n1.conv2d: the activation behind it is relu, program"):
        TARGET.audit(editor.done(), program)


def test_a_value_that_is_read_before_it_is_rounded_is_found() -> None:
    """The quantizer is there, and another operation goes past it."""
    program = operation_program("add", 1)
    editor = Editor(converted(program, CoremlOptions(input_type="tensor")))
    (added,) = editor.of_kind("add")
    makers = editor.makers
    dequantize = makers[added.inputs["x"].arguments[0].name]
    quantize = makers[dequantize.inputs["input"].arguments[0].name]
    added.inputs["x"].arguments[0].name = quantize.inputs["input"].arguments[0].name
    with pytest.raises(EdgevitError, match="n0.conv2d: it is read before it is quantized"):
        TARGET.audit(editor.done(), program)


def test_a_rounding_that_is_left_out_is_found() -> None:
    """An average's values are not on its input's grid, whose quantizer it shares."""
    label = "avg_pool2d 3/2"
    program = operation_program(label, LABELS.index(label) % 3)
    editor = Editor(converted(program, EXACT))
    (pool,) = editor.of_kind("avg_pool")
    last = editor.of_kind("dequantize")[-1]
    block = editor.operations
    pool.outputs[0].name, kept = last.outputs[0].name, pool.outputs[0].name
    for op in [last, *(q for q in editor.of_kind("quantize")
                       if q.inputs["input"].arguments[0].name == kept)]:  # fmt: skip
        block.remove(op)
    with pytest.raises(
        EdgevitError, match="n1.avg_pool2d: the output has real numbers, program int8"
    ):
        TARGET.audit(editor.done(), program)


def test_outputs_in_another_order_are_found() -> None:
    program = several_outputs()
    editor = Editor(converted(program, EXACT))
    (block,) = editor.spec.mlProgram.functions["main"].block_specializations.values()
    block.outputs[:] = list(block.outputs)[::-1]
    described = [type(o)() for o in editor.spec.description.output]
    for new, old in zip(described, reversed(editor.spec.description.output)):
        new.CopyFrom(old)
    del editor.spec.description.output[:]
    editor.spec.description.output.extend(described)
    with pytest.raises(EdgevitError, match="n0.conv2d: the outputs are"):
        TARGET.audit(editor.done(), program)


@pytest.mark.parametrize(
    "options",
    [CoremlOptions(), CoremlOptions(compute_precision="float32"),
     CoremlOptions(deployment_target="iOS16", precision="float16")],
    ids=["int8", "float32", "iOS16"],
)  # fmt: skip
@pytest.mark.parametrize(("kind", "argument"), [("thresholded_relu", "alpha"),
                                                ("sigmoid_hard", "alpha"),
                                                ("sigmoid_hard", "beta")])  # fmt: skip
def test_core_mls_hard_swish_is_audited(options: CoremlOptions, kind: str, argument: str) -> None:
    program = make_program(activation="hard-swish")
    files = converted(program, options)
    TARGET.audit(files, program)
    editor = Editor(files)
    value = editor.constant(editor.of_kind(kind)[0], argument).immediateValue.tensor
    if value.WhichOneof("value") == "floats":
        value.floats.values[0] += 0.25
    else:
        value.bytes.values = np.float16(0.25).tobytes()
    with pytest.raises(EdgevitError, match=f"stem.act1: {kind} has {argument}"):
        TARGET.audit(editor.done(), program)


def test_a_norm_whose_squares_float16_does_not_hold_is_refused() -> None:
    """They are held in float32, which the message names."""
    program = norm_program()
    graph = program.graph()
    wide = replace(graph.quantizer("n0.conv2d"), scale=1.5)
    quantizers = {**graph.quantizers, "n0.conv2d": wide}
    program = with_graph(program, replace(graph, quantizers=quantizers))
    with pytest.raises(InputError, match=r"n1\.layer_norm: .* --compute-precision float32"):
        write_package(program, CoremlOptions())
    TARGET.audit(write_package(program, EXACT), program)
