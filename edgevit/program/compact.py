"""The program's answers on known images, as a program file holds them: exact, in a byte a logit.

A program's logits are steps of its output's quantizer, so int8 holds all of them. Of the float net
it holds the logits as float16, to compare with, and the predicted classes, to gate on.

    logits        int8 [N, C]: real = (stored - zero_point) * scale, both in the metadata
    float_logits  float16 [N, C], where they are known
    float_top1    int32 [N], beside them: float16 may make two logits of a row equal
    paths         uint8: the images' paths, joined by line breaks

Other answers are stored as `Reference.to_bytes` does, as float32; files of before hold that, too.
"""

from __future__ import annotations

import os

import numpy as np

from edgevit.errors import InputError
from edgevit.ops import Quantizer
from edgevit.program.info import Reference
from edgevit.program.tensors import read_tensors, tensor_bytes

SCHEMA_VERSION = "2"
MAX_BYTES = 2**29
_NAME = "reference.safetensors"
_BYTES_A_LOGIT, _BYTES_AN_IMAGE = 3, 4


def check_size(images: int, classes: int, path_bytes: int) -> None:
    """Raises InputError when a program file could not hold the answers on so many images.

    path_bytes  of all paths together
    """
    size_bytes = images * (classes * _BYTES_A_LOGIT + _BYTES_AN_IMAGE) + path_bytes + images
    if size_bytes > MAX_BYTES:
        most = MAX_BYTES * images // size_bytes
        raise InputError(
            f"the program's answers on {images} images of {classes} classes take {size_bytes} "
            f"bytes, and {MAX_BYTES} is the most that a program file holds: report on {most} "
            "images or fewer (val=, or --eval-data)"
        )


def reference_bytes(reference: Reference, quantizer: Quantizer) -> bytes:
    """The member of the program file.

    quantizer   of the program's output
    """
    steps = np.rint(reference.logits / np.float32(quantizer.scale)) + quantizer.zero_point
    stored = np.clip(steps, -128, 127).astype(np.int8)
    if not np.array_equal(_real(stored, quantizer.scale, quantizer.zero_point), reference.logits):
        return reference.to_bytes()
    tensors = {"logits": stored, "paths": _path_bytes(reference.paths)}
    if reference.float_logits is not None:
        with np.errstate(over="ignore"):
            halves = reference.float_logits.astype(np.float16)
        if not np.isfinite(halves).all():
            return reference.to_bytes()
        top1 = reference.float_logits.argmax(1).astype(np.int32)
        tensors |= {"float_logits": halves, "float_top1": top1}
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "dataset_sha256": reference.dataset_sha256,
        "scale": repr(quantizer.scale),
        "zero_point": str(quantizer.zero_point),
    }
    return tensor_bytes(tensors, metadata)


def read_reference(data: bytes) -> Reference:
    """The inverse of `reference_bytes`. Raises InputError for any other file."""
    tensors, metadata = read_tensors(data, _NAME)
    if metadata.get("schema_version") != SCHEMA_VERSION:
        return Reference.from_bytes(data)
    known = {"logits": "int8", "paths": "uint8", "float_logits": "float16", "float_top1": "int32"}
    if any(known.get(name) != value.dtype.name for name, value in tensors.items()):
        raise InputError(f"{_NAME} holds other tensors than its schema version has")
    try:
        quantizer = Quantizer(float(metadata["scale"]), int(metadata["zero_point"]))
        text = os.fsdecode(tensors["paths"].tobytes())
        logits = _real(tensors["logits"], quantizer.scale, quantizer.zero_point)
        return Reference(
            logits,
            tuple(text.split("\n")) if text else (),
            metadata["dataset_sha256"],
            _float_logits(tensors.get("float_logits"), tensors.get("float_top1"), logits.shape),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{_NAME} is damaged: {error}") from error


def _float_logits(
    halves: np.ndarray | None, top1: np.ndarray | None, shape: tuple[int, ...]
) -> np.ndarray | None:
    """float32 (N, C) whose largest of each row is the class in `top1`."""
    if halves is None and top1 is None:
        return None
    if halves is None or top1 is None or len(shape) != 2 or halves.shape != shape:
        raise ValueError("float logits of another shape, or without their classes")
    if top1.shape != shape[:1] or not ((top1 >= 0) & (top1 < shape[1])).all():
        raise ValueError("classes of the float net that there are not")
    logits = halves.astype(np.float32)
    rows = np.flatnonzero(logits.argmax(1) != top1)
    highest = logits[rows].max(1)
    logits[rows, top1[rows]] = np.nextafter(highest, np.float32(np.inf))
    return logits


def _real(stored: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    return (stored.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def _path_bytes(paths: tuple[str, ...]) -> np.ndarray:
    return np.frombuffer(os.fsencode("\n".join(paths)), np.uint8)
