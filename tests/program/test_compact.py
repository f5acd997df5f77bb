"""The program's answers in its file: small, exact, and read back from files of before."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgevit.errors import InputError
from edgevit.ops import Quantizer
from edgevit.program import Program, Reference
from edgevit.program.compact import MAX_BYTES, check_size, read_reference, reference_bytes
from edgevit.program.tensors import read_tensors, tensor_bytes
from edgevit.targets import load_target
from edgevit.targets.artifact import MAX_COPIED_REFERENCE_BYTES
from tests.programs import make_program

QUANTIZER = Quantizer(0.0625, -3)
SHA256 = "1" * 64


def answers(images: int, classes: int, quantizer: Quantizer = QUANTIZER) -> Reference:
    rng = np.random.default_rng(0)
    steps = rng.integers(-128, 128, (images, classes), np.int8)
    logits = (steps.astype(np.float32) - quantizer.zero_point) * np.float32(quantizer.scale)
    floats = logits + rng.normal(0, 0.01, logits.shape).astype(np.float32)
    names = tuple(f"n{i % classes:08}/ILSVRC2012_val_{i:08}.JPEG" for i in range(images))
    return Reference(logits, names, SHA256, floats)


def test_the_programs_logits_are_exact_and_the_floats_classes_too() -> None:
    known = answers(2000, 37)
    data = reference_bytes(known, QUANTIZER)
    found = read_reference(data)
    assert np.array_equal(found.logits, known.logits)
    assert (found.paths, found.dataset_sha256) == (known.paths, known.dataset_sha256)
    assert found.float_logits is not None and known.float_logits is not None
    assert np.array_equal(found.float_logits.argmax(1), known.float_logits.argmax(1))
    assert np.abs(found.float_logits - known.float_logits).max() < 0.01
    assert reference_bytes(found, QUANTIZER) == data
    assert len(data) < 0.5 * len(known.to_bytes())


def test_ties_that_float16_makes_do_not_change_a_class() -> None:
    floats = np.array([[1.0, 1.00001, 0], [1.00001, 1.0, 0], [-2, -2.00001, -1.99999]], np.float32)
    known = Reference(np.zeros((3, 3), np.float32), ("a", "b", "c"), SHA256, floats)
    data = reference_bytes(known, QUANTIZER)
    found = read_reference(data)
    assert found.float_logits is not None
    assert found.float_logits.argmax(1).tolist() == [1, 0, 2]
    assert reference_bytes(found, QUANTIZER) == data


@pytest.mark.parametrize(
    "changed",
    [
        {"logits": np.array([[0.03, 0.0]], np.float32)},  # between two steps
        {"logits": np.array([[100.0, 0.0]], np.float32)},  # beyond int8
        {"float_logits": np.array([[1e30, 0.0]], np.float32)},  # beyond float16
        {"float_logits": None},
    ],
    ids=["between", "beyond-int8", "beyond-float16", "no-float"],
)
def test_answers_of_any_kind_survive(changed: dict[str, np.ndarray | None]) -> None:
    zeros = np.zeros((1, 2), np.float32)
    known = replace(Reference(zeros, ("a",), SHA256, zeros), **changed)
    found = read_reference(reference_bytes(known, QUANTIZER))
    assert np.array_equal(found.logits, known.logits)
    assert (found.float_logits is None) == (known.float_logits is None)
    if known.float_logits is not None:
        assert np.array_equal(found.float_logits, known.float_logits)


def test_a_file_of_before_is_read() -> None:
    known = answers(5, 3)
    found = read_reference(known.to_bytes())
    assert np.array_equal(found.logits, known.logits) and found.paths == known.paths


@pytest.mark.parametrize(
    "damage",
    [
        {"float_top1": np.array([0, 3], np.int32)},
        {"float_top1": np.array([-1, 0], np.int32)},
        {"float_top1": np.array([0], np.int32)},
        {"float_top1": np.array([0, 1], np.int8)},
        {"float_logits": np.zeros((2, 2), np.float16)},
        {"float_logits": np.full((2, 3), np.nan, np.float16)},
        {"logits": np.zeros((2, 3), np.float32)},
        {"logits": np.zeros(6, np.int8)},
        {"paths": np.frombuffer(b"a", np.uint8)},
        {"more": np.zeros(1, np.int8)},
    ],
    ids=lambda damage: next(iter(damage)),
)
def test_damaged_answers_are_refused(damage: dict[str, np.ndarray]) -> None:
    tensors, metadata = read_tensors(reference_bytes(answers(2, 3), QUANTIZER), "x")
    with pytest.raises(InputError, match=r"reference"):
        read_reference(tensor_bytes({**tensors, **damage}, metadata))
    for name in ("logits", "paths", "float_logits", "float_top1"):
        left = {key: value for key, value in tensors.items() if key != name}
        with pytest.raises(InputError, match=r"reference"):
            read_reference(tensor_bytes(left, metadata))


@pytest.mark.parametrize(
    ("key", "value"),
    [("scale", "nan"), ("scale", "0"), ("scale", "x"), ("zero_point", "1000"),
     ("zero_point", "1" * 5000), ("dataset_sha256", "x"), ("schema_version", "3")],
)  # fmt: skip
def test_damaged_metadata_is_refused(key: str, value: str) -> None:
    tensors, metadata = read_tensors(reference_bytes(answers(2, 3), QUANTIZER), "x")
    with pytest.raises(InputError):
        read_reference(tensor_bytes(tensors, {**metadata, key: value}))
    with pytest.raises(InputError):
        left = {name: text for name, text in metadata.items() if name != key}
        read_reference(tensor_bytes(tensors, left))


def test_what_a_file_can_not_hold_is_known_before_the_work() -> None:
    check_size(70_000, 1000, 40 * 70_000)
    with pytest.raises(InputError, match=r"report on 17\d{4} images or fewer"):
        check_size(200_000, 1000, 40 * 200_000)
    assert MAX_BYTES > 170_000 * 3000


def test_many_answers_stay_in_the_program_and_few_go_along(tmp_path: Path) -> None:
    program = make_program()
    output = program.graph().quantizer(program.graph().output_name)
    classes = program.info.model.classes
    many = MAX_COPIED_REFERENCE_BYTES // (8 * classes) + 1
    for count, copied in ((many, False), (100, True)):
        made = program.with_info(program.info, answers(count, classes, output))
        path = made.save(tmp_path / f"{count}.evq")
        with zipfile.ZipFile(path) as archive:
            stored = archive.getinfo("reference.safetensors").file_size
        paths = sum(len(path) + 1 for path in made.reference.paths)
        assert stored - paths < 0.45 * made.reference.size_bytes + 1000
        loaded = Program.load(path)
        assert np.array_equal(loaded.reference.logits, made.reference.logits)
        assert loaded.to_bytes() == path.read_bytes()
        folder = tmp_path / f"tflite-{count}"
        manifest = load_target("tflite").compile(loaded, folder)
        assert (manifest.reference is not None) == copied
        assert (folder / "reference.safetensors").exists() == copied
        assert json.loads((folder / "manifest.json").read_text())["program"]["file"] == path.name
