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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, final

from edgevit import __version__
from edgevit.errors import EdgevitError, InputError
from edgevit.files import sha256_bytes
from edgevit.graph import Graph, float_graph
from edgevit.graph.diff import Compared, Stored, compare, differs
from edgevit.ops import Node, Quantizer
from edgevit.program import Program
from edgevit.targets.artifact import (
    Artifact,
    ArtifactData,
    load_artifact,
    size_bytes,
    write_artifact,
)
from edgevit.targets.manifest import (
    REFERENCE_FILE,
    ArtifactFile,
    Audit,
    InputTensor,
    Manifest,
    Model,
    OutputTensor,
    ProgramFile,
    ReferenceFile,
)
from edgevit.targets.pixels import quantized_pixels

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
    input_values  int8 (3, 256): what the program's input becomes for each pixel value, where the
                artifact takes pixels and makes its input of them; None where it takes the input
    program_sha256, labels, preprocessing
                as its metadata has them; None where the format has none
    """

    graph: Graph
    quantizers: Mapping[str, Quantizer]
    operators: Counter[str]
    tensors: Mapping[str, str]
    stored: Stored = field(default_factory=Stored)
    input_values: np.ndarray | None = None
    program_sha256: str | None = None
    labels: tuple[str, ...] | None = None
    preprocessing: Mapping[str, Any] | None = None


class Runner(Protocol):
    """An artifact that can be run here, by its own runtime or by a reference."""

    engine: str
    """What runs it, for people: name, version, arithmetic."""
    probabilities: bool
    """Whether the scores are probabilities already, not logits."""

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (N, H, W, 3), cropped to the input's size, to float32 (N, classes)."""
        ...

    def outputs(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Every output by its name in the manifest, dequantized: float32 (N, …)."""
        ...

    def tensors(self, pixels: np.ndarray, program: Program) -> Iterator[tuple[str, np.ndarray]]:
        """Canonical name and values of the program's tensors, in the program's shapes.

        int8 where the artifact holds the tensor quantized, float32 where it holds real values;
        tensors that it does not hold are left out.
        """
        ...


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

    def is_float(self, options: Options) -> bool:
        """Whether these options ask for a float artifact: the program's weights as real numbers,
        no activation quantizer, to compare with."""
        return False

    def float_profile(self, options: Options) -> str:
        """ "float32" or "float16": what a float artifact computes in."""
        return "float32"

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

        options  of the target's `Options`
        force    replaces an artifact folder that is there
        Raises InputError (a bad option, an existing folder, a program that the target cannot
        hold), ToolMissing without the toolkit, and EdgevitError when what was written is not the
        program; nothing is left behind then.
        """
        chosen = self.make_options(self.Options, options)
        data = self.write(program, chosen)
        reading, compared = self.audit(data, program)
        if bool(reading.quantizers) == self.is_float(chosen):
            raise EdgevitError(f"{self.name}: a float artifact has quantizers, or an int8 one none")
        self.check(data, program, chosen)
        more = self.more_files(program, chosen)
        manifest = self._manifest(program, chosen, data, reading, compared, more)
        write_artifact(Path(folder), data, manifest, program.reference, force, more)
        return manifest

    @final
    def audit(self, data: ArtifactData, program: Program) -> tuple[Reading, Compared]:
        """Reads an artifact's contents and compares them with the program, exactly.

        Raises EdgevitError naming what differs, is missing or is extra.
        """
        reading = self.read(data)
        graph, info = program.graph(), program.info
        if reading.quantizers:
            dropped = self.drops(graph)
        else:
            graph, dropped = float_graph(graph), {}
        compared = compare(
            graph,
            reading.graph,
            reading.quantizers,
            dropped=dropped,
            stored=reading.stored,
            spelled=self.spelled,
        )
        if reading.input_values is not None:
            source = program.graph().quantizer(graph.input_name)
            wanted = quantized_pixels(info.preprocessing, source)
            if not (reading.input_values == wanted).all():
                raise differs(graph.input_name, "raw pixels do not become the program's input")
        for what, found, expected in (
            ("program_sha256", reading.program_sha256, program.sha256),
            ("labels", reading.labels, tuple(info.labels)),
            ("preprocessing", reading.preprocessing, info.preprocessing.to_json()),
        ):
            if found is not None and found != expected:
                raise differs(f"metadata {what}", f"is {str(found)[:80]!r}")
        return reading, compared

    @final
    def check_artifact(self, folder: str | os.PathLike[str], program: Program) -> Compared:
        """`audit` of a written artifact folder."""
        return self.audit(load_artifact(folder).data, program)[1]

    @final
    def open_runner(self, artifact: Artifact, **options: Any) -> Runner:
        """`open` with the target's run options as keywords; InputError for a bad one."""
        return self.open(artifact, self.make_options(self.RunOptions, options))

    def make_options(self, kind: Callable[..., Any], given: Mapping[str, Any]) -> Any:
        """An option class of keywords; InputError for an option that it does not have."""
        from edgevit.targets import made_options

        return made_options(self.name, kind, given)

    def _manifest(
        self,
        program: Program,
        options: Any,
        data: ArtifactData,
        reading: Reading,
        compared: Compared,
        more: Mapping[str, bytes],
    ) -> Manifest:
        info, graph = program.info, program.graph()
        source, outputs = self.edges(program, options)
        floating = self.is_float(options)
        drops = graph.owners() if floating else list(self.drops(graph))
        versions = {name: metadata.version(name) for name in self.packages}
        return Manifest(
            target=self.name,
            artifact=ArtifactFile(self.file, sha256_bytes(data), size_bytes(data)),
            program=ProgramFile(program.file_name, program.sha256),
            profile=self.float_profile(options) if floating else info.profile,  # type: ignore[arg-type]
            model=Model(info.model.variant, info.model.classes),
            tools={"edgevit": __version__, **versions},
            options={name: str(value) for name, value in asdict(options).items()},
            input=source,
            outputs=outputs,
            preprocessing=info.preprocessing,
            labels=tuple(info.labels),
            drops=tuple(drops),
            ops=dict(sorted(reading.operators.items())),
            audit=None if floating else Audit(compared.activations, compared.weight_channels),
            reference=_reference(program),
            commands=self.commands(options),
            files={name: sha256_bytes(content) for name, content in more.items()},
        )


def _reference(program: Program) -> ReferenceFile | None:
    reference = program.reference
    if reference is None:
        return None
    return ReferenceFile(
        REFERENCE_FILE,
        sha256_bytes(reference.to_bytes()),
        reference.dataset_sha256,
        len(reference.paths),
    )


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
