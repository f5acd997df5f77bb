"""The contract of a target: what it writes, how that is read back, and how it runs here.

    class Tflite(Target[TfliteOptions, NoOptions]):
        name, file = "tflite", "model.tflite"
        def write(self, program, options): ...     # -> the artifact's contents
        def read(self, data): ...                   # -> Reading, by the format's own reader
        def open(self, artifact, options): ...      # -> Runner

A target is a package here whose module `TARGET` names an instance; it is found by its folder. Its
`compile` is not its own: it writes, reads what was written, compares that with the program's graph
and only then makes the folder. That `read` shares no code with `write` is what the comparison is
worth: a test forbids the import.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, final

from edgevit.choices import WEIGHTS_ONLY
from edgevit.errors import EdgevitError, InputError
from edgevit.graph import Graph, float_graph
from edgevit.graph.diff import Equal, Stored, compare, differs
from edgevit.graph.passes import fuse_activations
from edgevit.ops import Node, Quantizer
from edgevit.options import option_texts
from edgevit.program import Program, WeightsProgram
from edgevit.targets import Runner, make_options
from edgevit.targets.artifact import (
    Artifact,
    ArtifactData,
    Compiled,
    load_artifact,
    tool_versions,
    write_artifact,
)
from edgevit.targets.manifest import Audit, InputTensor, Manifest, OutputTensor
from edgevit.targets.pixels import same_pixels
from edgevit.targets.placement import Placement

if TYPE_CHECKING:
    import numpy as np

Options = TypeVar("Options")
RunOptions = TypeVar("RunOptions")


@dataclass(frozen=True)
class Reading:
    """What an artifact holds, by its bytes alone.

    graph       the operations with their weights, without quantizers; names are spelled as the
                artifact spells them (see `Target.spelled`), the input is "input"
    quantizers  by spelled name, of every tensor that the artifact quantizes; empty: it is a float
                artifact
    operators   how many of each of the format's operators
    tensors     spelled name -> the artifact's own name of the tensor that holds it: the int8 one
                where it is quantized, else the real one
    stored      how it holds real numbers
    outputs     the artifact's own names of the graph's outputs, in order
    input_values  (C, 256): what the program's input becomes for each pixel value, where the
                artifact takes pixels and makes its input of them, as int8 or as float32 before
                that; None where it takes the input
    program_sha256, labels, preprocessing, profile
                as its metadata has them; None where the format has none
    """

    graph: Graph
    quantizers: Mapping[str, Quantizer]
    operators: Counter[str]
    tensors: Mapping[str, str]
    outputs: tuple[str, ...]
    stored: Stored = field(default_factory=Stored)
    input_values: np.ndarray | None = None
    program_sha256: str | None = None
    labels: tuple[str, ...] | None = None
    preprocessing: Mapping[str, Any] | None = None
    profile: str | None = None


class Misread(EdgevitError):
    """What `read` raises where the artifact spells a tensor otherwise than the program.

    name    as `Target.spelling` spells it
    weight  whether it is the operation's weight that is not as it must be
    """

    def __init__(self, name: str, what: str, weight: bool = False) -> None:
        super().__init__(f"scale audit: {name}: {what}; the artifact was not kept")
        self.name, self.what, self.weight = name, what, weight


class Target(ABC, Generic[Options, RunOptions]):
    """One target; see the module."""

    name: ClassVar[str]
    """On the command line, in manifests, and of the folder."""
    summary: ClassVar[str]
    """One line of help."""
    file: ClassVar[str]
    """The artifact's name in its folder."""
    Options: type
    """Option class (edgevit.options) of `compile`."""
    RunOptions: type
    """Option class of `open`."""
    maps_last: ClassVar[bool] = False
    """Whether an output that is a map has its channels last, (1, H, W, C)."""
    packages: ClassVar[tuple[str, ...]]
    """Installed packages that an artifact is written with, for the manifest."""
    tolerance_steps: ClassVar[Mapping[type[Node], float]] = {}
    """How far one operation's result may be from the program's, in steps of its output, when this
    target's runtime here runs it on the program's own inputs; 0 for those that are not named."""

    # -- what a target does -------------------------------------------------------------------

    @abstractmethod
    def write(self, program: Program, options: Options) -> ArtifactData:
        """The artifact of a program.

        It MUST NOT choose, re-round or drop a scale but for `drops`. Raises InputError naming the
        operation that the target cannot hold, ToolMissing without its toolkit.
        """

    @abstractmethod
    def read(self, data: ArtifactData) -> Reading:
        """What an artifact's bytes hold, by the format's own reader and nothing of `write`.

        Raises EdgevitError, naming the place, for what is no graph of known operations.
        """

    @abstractmethod
    def edges(
        self, program: Program, options: Options
    ) -> tuple[InputTensor, tuple[OutputTensor, ...]]:
        """The artifact's input and outputs, as the manifest describes them."""

    @abstractmethod
    def open(self, artifact: Artifact, options: RunOptions) -> Runner:
        """The artifact ready to run on this machine."""

    def drops(self, graph: Graph) -> dict[str, str]:
        """Canonical name -> reason, of every quantizer that the target does without."""
        return {}

    def spelled(self, name: str) -> str:
        """A canonical tensor name as the artifact spells it."""
        return name

    def spelling(self, graph: Graph) -> Callable[[str], str]:
        """`spelled`, for a target that must know the graph to say what `read` calls a tensor."""
        return self.spelled

    def is_float(self, options: Options) -> bool:
        """Whether these options ask for a float artifact: the program's weights as real numbers,
        no activation quantizer, to compare with."""
        return False

    def weights_only(self, options: Options) -> bool:
        """Whether these options ask for int8 weights and real activations, which is to be run with
        less memory and without data. `write` and `edges` get a `WeightsProgram` then."""
        return False

    def float_profile(self, options: Options) -> str:
        """ "float32" or "float16": what a float artifact computes in."""
        return "float32"

    def compiled_ahead(
        self, data: ArtifactData, program: Program, options: Options
    ) -> tuple[ArtifactData, tuple[Placement, ...]]:
        """What a vendor's compiler makes of what was written, and where it puts the operators.

        Raises ToolMissing where the compiler is not here or fails, GateFailed where it leaves more
        to the CPU than the options allow. A target whose device compiles has nothing to add.
        """
        return data, ()

    def check(self, data: ArtifactData, program: Program, options: Options) -> None:
        """More that must hold of what was written, such as lint rules. EdgevitError otherwise."""

    def commands(self, options: Options) -> dict[str, str]:
        """Title -> command line that takes the artifact further on a device."""
        return {}

    def more_files(self, program: Program, options: Options) -> dict[str, bytes]:
        """What lies beside the artifact without being it, by name."""
        return {}

    # -- what every target has ----------------------------------------------------------------

    @final
    def compile(
        self,
        program: Program,
        folder: str | os.PathLike[str],
        force: bool = False,
        **options: Any,
    ) -> Manifest:
        """Writes the artifact folder, whole or not at all, and returns its manifest.

        program  a `WeightsProgram` asks for `weights_only`; any other is made one where it is asked
        options  of the target's `Options`
        force    replaces an artifact folder that is there
        Raises InputError (a bad option, an existing folder, a program that the target cannot
        hold), ToolMissing without the toolkit, and EdgevitError when what was written is not the
        program; nothing is left behind then.
        """
        if isinstance(program, WeightsProgram):
            options = {"weights_only": "on", **options}
        chosen = make_options(self.name, self.Options, options)
        program = self._as_asked(program, chosen)
        data, placement = self.compiled_ahead(self.write(program, chosen), program, chosen)
        reading, compared = self.audit(data, program)
        real = self.is_float(chosen) or self.weights_only(chosen)
        if bool(reading.quantizers) == real:
            raise EdgevitError(f"{self.name}: a float artifact has quantizers, or an int8 one none")
        self.check(data, program, chosen)
        _, outputs = self.edges(program, chosen)
        if reading.outputs != tuple(tensor.name for tensor in outputs):
            raise EdgevitError(f"{self.name}: the artifact's outputs are {reading.outputs}")
        return write_artifact(
            Path(folder),
            program,
            replace(self._compiled(program, chosen, data, reading, compared), placement=placement),
            force,
        )

    @final
    def audit(self, data: ArtifactData, program: Program) -> tuple[Reading, Equal]:
        """Reads an artifact's contents and compares them with the program, exactly.

        Raises EdgevitError naming what differs, is missing or is extra.
        """
        graph, info = program.graph(), program.info
        whole = not isinstance(program, WeightsProgram)
        try:
            reading = self.read(data)
        except Misread as error:
            raise differs(self._canonical(error, graph), error.what) from error
        dropped = self.drops(graph) if reading.quantizers else {}
        if whole and not reading.quantizers:
            graph = float_form(graph)
        compared = compare(
            graph,
            reading.graph,
            reading.quantizers,
            dropped=dropped,
            stored=reading.stored,
            spelled=self.spelling(graph),
        )
        if reading.input_values is not None:
            source = program.graph().quantizer(graph.input_name) if whole else None
            if not same_pixels(reading.input_values, info.preprocessing, source):
                raise differs(graph.input_name, "raw pixels do not become the program's input")
        for what, found, expected in (
            ("program_sha256", reading.program_sha256, program.sha256),
            ("labels", reading.labels, tuple(info.labels)),
            ("preprocessing", reading.preprocessing, info.preprocessing.to_json()),
            ("profile", reading.profile, info.profile),
        ):
            if found is not None and found != expected:
                raise differs(f"metadata {what}", f"is {str(found)[:80]!r}")
        return reading, compared

    @final
    def check_artifact(self, folder: str | os.PathLike[str], program: Program) -> Equal:
        """`audit` of a written artifact folder."""
        artifact = load_artifact(folder)
        if artifact.manifest.profile == WEIGHTS_ONLY:
            program = WeightsProgram.of(program)
        return self.audit(artifact.data, program)[1]

    @final
    def open_runner(self, artifact: Artifact, **options: Any) -> Runner:
        """`open` with the target's run options as keywords; InputError for a bad one."""
        return self.open(artifact, make_options(self.name, self.RunOptions, options, "RunOptions"))

    def _as_asked(self, program: Program, options: Options) -> Program:
        """The program, or its weights alone."""
        if not self.weights_only(options):
            if isinstance(program, WeightsProgram):
                raise InputError(
                    f"{self.name}: this net has int8 weights and no activation quantizers; compile "
                    "it with --weights-only"
                )
            return program
        return WeightsProgram.of(program)

    def _canonical(self, error: Misread, graph: Graph) -> str:
        """The name that the program has for what could not be read."""
        spelled = self.spelling(graph)
        if error.weight:
            modules = {spelled(node.module): f"{node.module}.weight" for node in graph.weighted()}
            return modules.get(error.name, error.name)
        return {spelled(name): name for name in graph.tensors()}.get(error.name, error.name)

    def _compiled(
        self,
        program: Program,
        options: Any,
        data: ArtifactData,
        reading: Reading,
        compared: Equal,
    ) -> Compiled:
        source, outputs = self.edges(program, options)
        graph, floating = program.graph(), self.is_float(options)
        return Compiled(
            target=self.name,
            file=self.file,
            data=data,
            tools=tool_versions(*self.packages),
            options=option_texts(options),
            input=source,
            outputs=outputs,
            ops=reading.operators,
            audit=None if floating else Audit(compared.activations, compared.weight_channels),
            profile=self.float_profile(options) if floating else None,
            drops=tuple(graph.owners() if floating else self.drops(graph)),
            islands=graph.islands() if reading.quantizers else (),
            commands=self.commands(options),
            files=self.more_files(program, options),
        )


def float_form(graph: Graph) -> Graph:
    """What a float artifact holds of a quantized graph.

    A clamp with a quantizer between it and its convolution is not fused; without quantizers nothing
    tells the two forms apart.
    """
    return fuse_activations(float_graph(graph))


def require_bytes(data: ArtifactData, target: str) -> bytes:
    """The contents of an artifact that is one file; InputError for a folder."""
    if not isinstance(data, bytes):
        raise InputError(f"a {target} artifact is a file, not a folder")
    return data


def require_folder(data: ArtifactData, target: str) -> Mapping[str, bytes]:
    """The contents of an artifact that is a folder; InputError for a file."""
    if isinstance(data, bytes):
        raise InputError(f"a {target} artifact is a folder, not a file")
    return data
