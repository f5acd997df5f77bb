"""What every target must keep; a target's test class inherits it and says how its files tick.

    class TestTflite(TargetContract):
        target, options = "tflite", [{"io": "int8"}, …]

An artifact is a file (bytes) or a folder (path -> bytes).

Programs are small and seeded; each test compiles into a folder of its own. What `write` makes of a
program and options is kept for the session: a test that means the writing itself asks for
`fresh`.
"""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edgevit.commands.compile import compile_command
from edgevit.errors import EdgevitError, InputError
from edgevit.files import read_tree, write_tree
from edgevit.ops import LayerNorm
from edgevit.ops.base import Unary
from edgevit.options import option_fields
from edgevit.program import Program, Reference, WeightsProgram
from edgevit.schema import check_json, json_schema
from edgevit.targets import load_target, target_names
from edgevit.targets.artifact import ArtifactData, load_artifact, size_bytes
from edgevit.targets.base import Target
from edgevit.targets.manifest import Audit, Manifest
from tests.operation_programs import norm_program
from tests.programs import make_program, seeded_pixels, with_graph

ACTIVATION = "stages.0.blocks.0.channel_mixer.act"


class Mish(Unary):
    """An operation that no target knows."""

    kind = "mish"


@cache
def _written(target: type[Target[Any, Any]], program: Program, options: Any) -> ArtifactData:
    return WRITE[target](target(), program, options)


WRITE: dict[type[Target[Any, Any]], Any] = {}
"""Each target's own `write`."""


def read(artifact: Path) -> ArtifactData:
    return read_tree(artifact) if artifact.is_dir() else artifact.read_bytes()


def write(artifact: Path, data: ArtifactData) -> None:
    """In place of what is there."""
    if isinstance(data, Mapping):
        shutil.rmtree(artifact)
        write_tree(artifact, data)
    else:
        artifact.write_bytes(data)


def sha256_of(data: ArtifactData) -> str:
    """Of a folder: of what `sha256sum` prints for its sorted files."""
    if not isinstance(data, Mapping):
        return hashlib.sha256(data).hexdigest()
    rows = [f"{hashlib.sha256(data[name]).hexdigest()}  {name}\n" for name in sorted(data)]
    return hashlib.sha256("".join(rows).encode()).hexdigest()


def _text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _without_quantizer(program: Program, name: str) -> Program:
    graph = program.graph()
    kept = {own: quantizer for own, quantizer in graph.quantizers.items() if own != name}
    return with_graph(program, replace(graph, quantizers=kept))


CONTRACT = {"artifact", "base", "manifest", "pixels"}
"""The modules of edgevit.targets that every target imports."""


def _modules(package: str, start: str) -> set[str]:
    """The modules of a package that one of them imports, directly or over others, with itself."""
    found: set[str] = set()
    waiting = [f"{package}.{start}"]
    while waiting:
        name = waiting.pop()
        known = found | {f"{package}.{shared}" for shared in CONTRACT}
        if name in known or not name.startswith(f"{package}."):
            continue
        try:
            spec = find_spec(name)
        except ModuleNotFoundError:  # a name in a module, not a module
            continue
        if spec is None or spec.origin is None:
            continue
        found.add(name)
        for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
            elif isinstance(node, ast.Import):
                waiting += [each.name for each in node.names]
    return {name.removeprefix(f"{package}.") for name in found}


class TargetContract:
    """Tests over one target. `tamper` is the only thing that knows the artifact's format."""

    target: str
    profiles: tuple[str, ...] = ("portable",)
    options: tuple[dict[str, str], ...] = ({},)
    toolkit_modules: tuple[str, ...] = ()
    """Modules below edgevit.targets that import the format's toolkit and know nothing of programs.
    """
    logit_steps: float = 8
    """How far the small program's logits may be off in a runner with rounding of its own."""
    home: str = ""
    """The package of `read` and `write`, where they are not in the target's own."""
    run_options: Mapping[str, str] = MappingProxyType({})
    """What opens an artifact on any machine."""

    def same(self, manifest: Manifest) -> Manifest:
        """A manifest without what differs from one run to the next."""
        return manifest

    def golden_options(self, program: Program) -> tuple[dict[str, str], ...]:
        """What the goldens compile the program with (tests/goldens.py)."""
        return self.options

    def tamper(self, data: Any, program: Program) -> Iterator[tuple[str, ArtifactData]]:
        """Changed artifacts, each with the name its audit must give."""
        raise NotImplementedError

    def tamper_weights(self, data: Any, program: Program) -> Iterator[tuple[str, ArtifactData]]:
        """As `tamper`, of an artifact of int8 weights alone; for a target that has the form."""
        raise NotImplementedError

    @property
    def loaded(self) -> Target[Any, Any]:
        return load_target(self.target)

    @pytest.fixture(autouse=True)
    def fresh(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
        """Without `fresh.undo()`, what was written once is not written again."""
        kind = type(self.loaded)
        WRITE[kind] = kind.write
        monkeypatch.setattr(kind, "write", lambda _, *given: _written(kind, *given))
        yield monkeypatch

    def compile(self, program: Program, folder: Path, **options: Any) -> Manifest:
        return self.loaded.compile(program, folder, options.pop("force", False), **options)

    def cases(self) -> Iterator[tuple[Program, dict[str, str]]]:
        for profile in self.profiles:
            for options in self.options:
                yield make_program(profile=profile), dict(options)

    # -- the artifact ---------------------------------------------------------------------------

    def test_the_target_is_found_by_its_name(self) -> None:
        assert self.target in target_names() and self.target == self.loaded.name
        assert isinstance(self.loaded, Target) and self.loaded.summary
        for each in option_fields(self.loaded.Options):
            assert each.option.help

    def test_what_reads_shares_no_import_with_what_writes(self) -> None:
        """But how the format's own toolkit is imported."""
        names = [f"{self.home or self.target}.{name}" for name in ("read", "write")]
        reading, writing = (_modules("edgevit.targets", name) for name in names)
        assert names[0] in reading and names[1] in writing
        assert (reading & writing) - CONTRACT <= set(self.toolkit_modules)

    def test_a_bad_option_is_an_input_error(self, tmp_path: Path) -> None:
        program = make_program()
        for each in option_fields(self.loaded.Options):
            if each.kind is Path:
                continue  # any text is the name of a file
            value: Any = ("abacus",) if each.form == "list" else "abacus"
            rule = "is not one of" if each.option.choices and each.form == "one" else "it must be"
            with pytest.raises(InputError, match=f"{each.flag} .*'abacus'.* {rule}"):
                self.compile(program, tmp_path / "out", **{each.name: value})
        match = f"--abacus is not an option of {self.target}; no target has it"
        with pytest.raises(InputError, match=match):
            self.compile(program, tmp_path / "out", abacus="on")
        assert list(tmp_path.iterdir()) == []

    def test_the_audit_is_exact_and_counts_everything(self, tmp_path: Path) -> None:
        for index, (program, options) in enumerate(self.cases()):
            manifest = self.compile(program, tmp_path / str(index), **options)
            graph = program.graph()
            kept = len(graph.activations()) - len(manifest.drops)
            channels = sum(len(node.weight_scale) for node in graph.weighted())
            assert manifest.audit == Audit(kept, channels, exact=True)
            self.loaded.check_artifact(tmp_path / str(index), program)

    def test_the_manifest_fits_its_schema_and_tells_the_truth(self, tmp_path: Path) -> None:
        schema = json_schema(Manifest, "manifest.json")
        for index, (program, options) in enumerate(self.cases()):
            folder = tmp_path / str(index)
            returned = self.compile(program, folder, **options)
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            assert manifest == returned.to_json()
            assert Manifest.load(folder) == returned
            check_json(manifest, "manifest.json", schema)
            data = read(folder / manifest["artifact"]["file"])
            assert manifest["artifact"]["size_bytes"] == size_bytes(data)
            assert manifest["artifact"]["sha256"] == sha256_of(data)
            assert manifest["options"] == {
                each.name: _text(options.get(each.name, each.default))
                for each in option_fields(self.loaded.Options)
                if each.kind is not Path
            }
            assert manifest["program"]["sha256"] == program.sha256
            assert manifest["labels"] == list(program.info.labels)
            assert manifest["target"] == self.target and manifest["reference"] is None
            assert set(manifest["drops"]) <= set(program.graph().activations())

    def test_the_reference_goes_along(self, tmp_path: Path) -> None:
        logits = np.zeros((2, 10), np.float32)
        reference = Reference(logits, ("a/1.jpg", "b/2.jpg"), "1" * 64)
        program = make_program().with_info(make_program().info, reference)
        manifest = self.compile(program, tmp_path / "out")
        entry = manifest.reference
        assert entry is not None
        data = (tmp_path / "out" / entry.file).read_bytes()
        assert entry.sha256 == hashlib.sha256(data).hexdigest()
        assert (entry.count, entry.dataset_sha256) == (2, "1" * 64)

    def test_the_same_program_gives_the_same_bytes(
        self, tmp_path: Path, fresh: pytest.MonkeyPatch
    ) -> None:
        fresh.undo()
        first = self.compile(make_program(), tmp_path / "a")
        second = self.compile(make_program(), tmp_path / "b")
        assert self.same(first) == self.same(second)

    # -- what must fail, by name ------------------------------------------------------------------

    def fails(self, program: Program, folder: Path, error: type[EdgevitError], match: str) -> None:
        with pytest.raises(error, match=match):
            self.compile(program, folder / "out")
        assert list(folder.iterdir()) == []

    def test_an_operation_it_does_not_know_is_named(self, tmp_path: Path) -> None:
        program = make_program()
        graph = program.graph()
        unknown = Mish(name=ACTIVATION, inputs=graph.node(ACTIVATION).inputs)
        broken = graph.with_nodes(unknown if n.name == ACTIVATION else n for n in graph.nodes)
        match = f"{ACTIVATION}.*mish"
        self.fails(with_graph(program, broken), tmp_path, InputError, match)

    def test_a_tensor_without_a_quantizer_is_named(self, tmp_path: Path) -> None:
        program = make_program()
        broken = _without_quantizer(program, ACTIVATION)
        match = f"{ACTIVATION}: tensor has no quantizer"
        self.fails(broken, tmp_path, InputError, match)

    def test_an_input_without_a_quantizer_is_named(self, tmp_path: Path) -> None:
        program = make_program()
        broken = _without_quantizer(program, "input")
        match = "input: tensor has no quantizer"
        self.fails(broken, tmp_path, InputError, match)

    def test_a_tampered_artifact_is_found_and_named(self, tmp_path: Path) -> None:
        program = make_program()
        manifest = self.compile(program, tmp_path / "out")
        artifact = tmp_path / "out" / manifest.artifact.file
        count = 0
        for name, data in self.tamper(read(artifact), program):
            # The manifest is made to fit, so that it is the audit that has to see it.
            write(artifact, data)
            entry = replace(manifest.artifact, sha256=sha256_of(data))
            changed = replace(manifest, artifact=entry)
            (tmp_path / "out" / "manifest.json").write_bytes(changed.text())
            with pytest.raises(EdgevitError) as error:
                self.loaded.check_artifact(tmp_path / "out", program)
            assert name in str(error.value), (name, str(error.value))
            count += 1
        assert count

    def test_an_artifact_that_is_not_its_manifests_is_not_run(self, tmp_path: Path) -> None:
        manifest = self.compile(make_program(), tmp_path / "out")
        artifact = tmp_path / "out" / manifest.artifact.file
        data = read(artifact)
        changed = (
            {**data, "more": b""}
            if isinstance(data, Mapping)
            else data[:-1] + bytes([data[-1] ^ 1])
        )
        write(artifact, changed)
        with pytest.raises(InputError, match="sha256"):
            load_artifact(tmp_path / "out")

    def test_the_runner_holds_the_programs_tensors(self, tmp_path: Path) -> None:
        """Every tensor that the artifact keeps, in the program's shape, a few steps off at most."""
        program, pixels = make_program(), seeded_pixels(2)
        graph = program.graph()
        for index, options in enumerate(self.options):
            manifest = self.compile(program, tmp_path / str(index), **options)
            runner = self.loaded.open_runner(
                load_artifact(tmp_path / str(index)), **self.run_options
            )
            scores = runner.scores(pixels)
            assert scores.shape == (2, 10) and scores.dtype == np.float32
            found = dict(runner.tensors(pixels, program))
            kept = set(graph.activations()) - set(manifest.drops)
            assert kept <= set(found) <= set(graph.activations())
            for name, values in found.items():
                assert values.shape == (2, *graph.shape(name)[1:]), name
            outputs = runner.outputs(pixels)
            assert list(outputs) == [output.name for output in manifest.outputs]
            for output in manifest.outputs:
                values = outputs[output.name]
                assert values.dtype == np.float32 and values.shape == (2, *output.shape[1:])
            assert np.array_equal(outputs[manifest.outputs[0].name], scores)
            expected = program.run(program.info.preprocessing.normalise(pixels)).numpy()
            if not runner.probabilities:
                step = graph.quantizer(graph.output_name).scale
                assert np.abs(scores - expected).max() <= self.logit_steps * step
            else:
                assert np.allclose(scores.sum(1), 1, atol=2e-3)

    def test_an_output_has_its_authors_name(self, tmp_path: Path) -> None:
        """In the manifest and by the runner, for every option; without one it is as before."""
        program = make_program()
        named = with_graph(program, replace(program.graph(), given_names=("answers",)))
        for index, options in enumerate(self.options):
            if options.get("output_type") == "classifier":
                continue  # Core ML's own names
            manifest = self.compile(named, tmp_path / str(index), **options)
            assert [output.name for output in manifest.outputs] == ["answers"]
        runner = self.loaded.open_runner(load_artifact(tmp_path / "0"), **self.run_options)
        assert list(runner.outputs(seeded_pixels(1))) == ["answers"]
        other = self.compile(program, tmp_path / "unnamed", **self.options[0])
        assert other.outputs[0].name in ("logits", "probabilities", "classLabel_probs")

    def test_an_artifact_of_another_program_is_found(self, tmp_path: Path) -> None:
        self.compile(make_program(), tmp_path / "out")
        with pytest.raises(EdgevitError):
            self.loaded.check_artifact(tmp_path / "out", make_program(seed=1))

    # -- float islands ----------------------------------------------------------------------------

    def norm_program(self, profile: str, **changed: Any) -> Program:
        """A classifier with a layer norm "n1.layer_norm", of which fields may be changed."""
        program = norm_program(profile)
        if not changed:
            return program
        graph = program.graph()
        nodes = [replace(n, **changed) if n.kind == "layer_norm" else n for n in graph.nodes]
        return with_graph(program, graph.with_nodes(nodes))

    def test_an_island_is_named_audited_and_run(self, tmp_path: Path) -> None:
        for profile in self.profiles:
            program, folder = self.norm_program(profile), tmp_path / profile
            manifest = self.compile(program, folder)
            assert manifest.islands == ("n1.layer_norm",)
            kept = len(program.graph().activations()) - len(manifest.drops)
            assert manifest.audit == Audit(kept, 30, exact=True)
            check_json(manifest.to_json(), "manifest.json", json_schema(Manifest, "manifest.json"))
            assert Manifest.load(folder) == manifest
            runner = self.loaded.open_runner(load_artifact(folder), **self.run_options)
            pixels = seeded_pixels(2, 16)
            expected = program.run(program.info.preprocessing.normalise(pixels)).numpy()
            step = program.graph().quantizer(program.graph().output_name).scale
            assert np.abs(runner.scores(pixels) - expected).max() <= self.logit_steps * step

    def test_an_island_with_other_numbers_is_found_and_named(self, tmp_path: Path) -> None:
        profile = self.profiles[0]
        program = self.norm_program(profile)
        self.compile(program, tmp_path / "out")
        node = program.graph().node("n1.layer_norm")
        assert isinstance(node, LayerNorm)
        for part in ("weight", "bias"):
            values = getattr(node.weights, part).copy()
            values[5] *= np.float32(1.01)
            weights = replace(node.weights, **{part: values})
            with pytest.raises(EdgevitError, match=f"n1.layer_norm.{part}: differs"):
                other = self.norm_program(profile, weights=weights)
                self.loaded.check_artifact(tmp_path / "out", other)
        with pytest.raises(EdgevitError, match="n1.layer_norm: eps is"):
            other = self.norm_program(profile, eps=2.0**-19)
            self.loaded.check_artifact(tmp_path / "out", other)

    # -- int8 weights alone -----------------------------------------------------------------------

    @property
    def has_weights_only(self) -> bool:
        return "weights_only" in {each.name for each in option_fields(self.loaded.Options)}

    def test_weights_alone_are_audited_and_run(self, tmp_path: Path) -> None:
        if not self.has_weights_only:
            self._refuses_weights_alone(tmp_path)
            return
        program, pixels = make_program(), seeded_pixels(4)
        weights = WeightsProgram.of(program)
        manifest = self.compile(program, tmp_path / "out", weights_only="on")
        channels = sum(len(node.weight_scale) for node in program.graph().weighted())
        assert manifest.audit == Audit(0, channels, exact=True)
        assert manifest.profile == "weights-only" and manifest.drops == ()
        assert manifest.options["weights_only"] == "on"
        assert manifest.program.sha256 == program.sha256
        check_json(manifest.to_json(), "manifest.json", json_schema(Manifest, "manifest.json"))
        assert Manifest.load(tmp_path / "out") == manifest
        for own in (program, weights):
            assert self.loaded.check_artifact(tmp_path / "out", own).weight_channels == channels
        with pytest.raises(EdgevitError, match="scale audit"):
            self.loaded.check_artifact(tmp_path / "out", make_program(seed=1))
        runner = self.loaded.open_runner(load_artifact(tmp_path / "out"))
        found, expected = (
            runner.scores(pixels),
            weights.run(program.info.preprocessing.normalise(pixels)).numpy(),
        )
        # Far less than the weights of another net give, whose logits are of this size.
        assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
        # A program that is weights alone needs no option; the artifact is the same.
        again = self.compile(weights, tmp_path / "again")
        assert again.artifact == manifest.artifact and again.options == manifest.options
        with pytest.raises(InputError, match="compile it with --weights-only"):
            self.compile(weights, tmp_path / "off", weights_only="off")
        assert not (tmp_path / "off").exists()

    def _refuses_weights_alone(self, folder: Path) -> None:
        match = f"--weights-only is not an option of {self.target}; it is one of coreml, tflite"
        for program, options in (
            (make_program(), {"weights_only": "on"}), (WeightsProgram.of(make_program()), {}),
        ):  # fmt: skip
            with pytest.raises(InputError, match=match):
                self.compile(program, folder / "out", **options)
        assert list(folder.iterdir()) == []

    def test_weights_alone_that_were_tampered_with_are_found(self, tmp_path: Path) -> None:
        if not self.has_weights_only:
            return
        program = make_program()
        manifest = self.compile(program, tmp_path / "out", weights_only="on")
        data, count = read(tmp_path / "out" / manifest.artifact.file), 0
        for name, changed in self.tamper_weights(data, program):
            with pytest.raises(EdgevitError) as error:
                self.loaded.audit(changed, WeightsProgram.of(program))
            assert name in str(error.value), (name, str(error.value))
            count += 1
        assert count
        # The whole program is not what it holds, nor is it what a whole artifact holds.
        with pytest.raises(EdgevitError, match="one of the two is not quantized"):
            self.loaded.audit(data, program)
        self.compile(program, tmp_path / "whole")
        whole = read(tmp_path / "whole" / manifest.artifact.file)
        with pytest.raises(EdgevitError, match="scale audit"):
            self.loaded.audit(whole, WeightsProgram.of(program))

    def test_the_command_refuses_weights_alone_beside_a_target_without(
        self, tmp_path: Path
    ) -> None:
        program, out = make_program().save(tmp_path / "m.evq"), tmp_path / "build"
        asked = ("--target", self.target, "--target", "tflite", "--weights-only", "-o", out)
        result = self.run(program, *asked)
        if self.has_weights_only:
            assert result.exit_code == 0, result.output
            profile = json.loads((out / self.target / "manifest.json").read_text())["profile"]
            assert profile == "weights-only"
        else:
            assert isinstance(result.exception, InputError), result.output
            assert f"not an option of {self.target}; " in str(result.exception)
            assert not out.exists()

    # -- files ------------------------------------------------------------------------------------

    def test_nothing_is_left_behind_when_the_audit_fails(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> None:
            raise EdgevitError("scale audit: input: differs")

        monkeypatch.setattr(type(self.loaded), "read", fail)
        self.fails(make_program(), tmp_path, EdgevitError, "scale audit: input")

    def test_a_folder_is_replaced_only_when_told_to(self, tmp_path: Path) -> None:
        program, folder = make_program(), tmp_path / "out"
        self.compile(program, folder)
        before = read_tree(folder)
        with pytest.raises(InputError, match="exists already"):
            self.compile(make_program(seed=1), folder)
        assert read_tree(folder) == before
        self.compile(make_program(seed=1), folder, force=True)
        self.loaded.check_artifact(folder, make_program(seed=1))
        assert [p.name for p in tmp_path.iterdir()] == ["out"]

    def test_a_folder_that_is_not_an_artifact_is_never_replaced(self, tmp_path: Path) -> None:
        mine = tmp_path / "out" / "mine.txt"
        mine.parent.mkdir()
        mine.write_text("mine")
        with pytest.raises(InputError, match="not written by edgevit"):
            self.compile(make_program(), mine.parent, force=True)
        assert mine.read_text() == "mine" and list(tmp_path.iterdir()) == [mine.parent]

    # -- the command ------------------------------------------------------------------------------

    def run(self, *arguments: object) -> Any:
        return CliRunner().invoke(compile_command, [str(a) for a in arguments])

    def test_the_command_writes_the_folder_and_prints_json(self, tmp_path: Path) -> None:
        program = make_program().save(tmp_path / "m.evq")
        out = tmp_path / "build"
        result = self.run(program, "--target", self.target, "-o", out, "--json")
        assert result.exit_code == 0, result.output
        manifest = json.loads(result.stdout)[self.target]
        written = (out / self.target / "manifest.json").read_text(encoding="utf-8")
        assert manifest == json.loads(written)
        assert manifest["program"]["file"] == "m.evq"
        result = self.run(program, "--target", self.target, "-o", out, "--force")
        assert result.exit_code == 0 and "exact" in result.stdout

    def test_a_file_that_is_no_program_leaves_nothing(self, tmp_path: Path) -> None:
        bad = tmp_path / "bad.evq"
        bad.write_bytes(make_program().to_bytes()[:-7])
        result = self.run(bad, "--target", self.target, "-o", tmp_path / "build")
        assert isinstance(result.exception, InputError) and result.exception.exit_code == 2
        assert list(tmp_path.iterdir()) == [bad]
