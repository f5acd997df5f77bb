"""The detector example: its boxes and mAP on known cases, and a tiny run to its artifact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import edgevit
from examples.detector.__main__ import main
from examples.detector.boxes import Found, decode, loss, mean_average_precision, overlaps, targets
from examples.detector.net import STRIDES, Detector, flat
from examples.scenes import Shapes, make_scenes
from tests.examples.nets import TINY, checkpoint  # noqa: F401

SIZE = 128
SCENES = make_scenes(Shapes(), 12, (0, 7), SIZE)
TARGETS = [targets(b, k, SIZE) for b, k in zip(SCENES.boxes, SCENES.kinds, strict=True)]
KINDS, DISTANCES = (np.stack(each) for each in zip(*TARGETS, strict=True))
NAMES = Shapes.names
ONE = np.array([[0, 0, 100, 100]], np.float32)


def perfect() -> tuple[np.ndarray, ...]:
    """The maps that a net without a fault would give."""
    maps, start = [], 0
    for stride in STRIDES:
        side = SIZE // stride
        part = slice(start, start + side**2)
        kind = KINDS[:, part].reshape(-1, side, side)
        logits = np.where(kind[:, None] == np.arange(len(NAMES))[:, None, None], 12, -12)
        boxes = np.log(DISTANCES[:, part] / stride).reshape(-1, side, side, 4)
        maps.append((logits.astype(np.float32), boxes.transpose(0, 3, 1, 2)))
        start += side**2
    return *(scores for scores, _ in maps), *(boxes for _, boxes in maps)


def coco(found: list[Found], boxes: list[np.ndarray], kinds: list[np.ndarray]) -> tuple[float, ...]:
    pytest.importorskip("pycocotools", reason="pip install 'edgevit[examples]': mAP needs it")
    return mean_average_precision(found, boxes, kinds, NAMES)


def test_every_thing_is_some_places_target() -> None:
    for boxes, kinds, found in zip(SCENES.boxes, SCENES.kinds, KINDS, strict=True):
        assert len(boxes) and set(found[found >= 0]) == set(kinds)
    assert len({int(np.sum(found >= 0)) for found in KINDS}) > 1


def test_perfect_maps_decode_to_the_scenes_boxes_and_cost_nothing() -> None:
    maps = perfect()
    for found, boxes, kinds in zip(decode(maps), SCENES.boxes, SCENES.kinds, strict=True):
        for box, kind in zip(boxes, kinds, strict=True):
            mine = found.boxes[found.kinds == kind]
            assert overlaps(box, mine).max() > 0.999
        assert len(found.boxes) == len(boxes)
    tensors = tuple(torch.from_numpy(np.ascontiguousarray(m)) for m in maps)
    arguments = torch.from_numpy(KINDS), torch.from_numpy(DISTANCES)
    assert float(loss(tensors, *arguments)) < 1e-3
    shifted = tuple(t + 0.3 for t in tensors)
    assert float(loss(shifted, *arguments)) > 0.1
    assert coco(decode(maps), SCENES.boxes, SCENES.kinds) == (
        pytest.approx(1, abs=1e-6), pytest.approx(1, abs=1e-6)
    )  # fmt: skip


def test_the_map_is_cocos() -> None:
    kind, score = np.array([2]), np.array([0.9], np.float32)
    near = Found(np.array([[0, 0, 100, 82]], np.float32), kind, score)
    # Overlap 0.82: right at 0.5, 0.55, ..., 0.8, which are 7 of 10 thresholds.
    assert coco([near], [ONE], [kind]) == (pytest.approx(0.7), pytest.approx(1))
    nothing = Found(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))
    # One of two found: precision 1 at 51 of 101 recalls.
    half = pytest.approx(51 / 101)
    assert coco([Found(ONE, kind, score), nothing], [ONE, ONE], [kind, kind]) == (half, half)
    other = Found(ONE, kind + 1, score)
    assert coco([other], [ONE], [kind]) == (0, 0)
    assert coco([nothing], [ONE], [kind]) == (0, 0)


def test_boxes_that_overlap_a_better_one_of_their_kind_are_dropped() -> None:
    maps = list(perfect())
    whole = len(decode(tuple(maps))[0].boxes)
    # A second kind wherever there is a first: boxes of another kind stay.
    for level in range(len(STRIDES)):
        logits = maps[level].copy()
        logits[:, 0] = np.maximum(logits[:, 0], logits.max(1) - 6)
        maps[level] = logits
    doubled = decode(tuple(maps))[0]
    assert whole < len(doubled.boxes) <= 2 * whole
    assert (np.diff(doubled.scores) <= 0).all()


def test_a_few_steps_lower_the_loss(checkpoint: Path) -> None:  # noqa: F811
    torch.manual_seed(0)
    net = Detector(edgevit.load(checkpoint), len(NAMES)).train()
    images = edgevit.Preprocessing(SIZE, SIZE).normalise(SCENES.images)
    wanted = torch.from_numpy(KINDS), torch.from_numpy(DISTANCES)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    losses = []
    for _ in range(25):
        found = loss(net(images), *wanted)
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        losses.append(float(found.detach()))
    assert losses[-1] < 0.8 * losses[0]
    logits, boxes = flat(net(images))
    assert logits.shape == (12, 336, 5) and boxes.shape == (12, 336, 4)


def test_a_tiny_run_ends_in_an_artifact_that_gives_the_programs_maps(
    checkpoint: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    pytest.importorskip("pycocotools", reason="pip install 'edgevit[examples]': mAP needs it")
    names = ("tflite", "onnx", "coreml")
    chosen = [f"--target={name}" for name in names]
    found = main([*TINY, *chosen, "--checkpoint", str(checkpoint), "--out", str(tmp_path)])
    assert list(found) == ["float", "PTQ", "fine-tuned", *(f"artifact {name}" for name in names)]
    assert found["artifact tflite"] == found["fine-tuned"]
    assert all(0 <= both <= half <= 1 for both, half in found.values())
    program = edgevit.Program.load(tmp_path / "model.evq")
    images = make_scenes(Shapes(), 4, (5,), 64).images
    expected = program.outputs(program.info.preprocessing.normalise(images)).values()
    assert [tuple(each.shape[1:]) for each in expected] == [
        (5, 8, 8), (5, 4, 4), (5, 2, 2), (4, 8, 8), (4, 4, 4), (4, 2, 2)
    ]  # fmt: skip
    for target in names:
        answers = edgevit.open(tmp_path / target).outputs(images).values()
        for mine, theirs in zip(answers, expected, strict=True):
            if target == "tflite":
                assert np.array_equal(mine, theirs.numpy())
            noise = np.square(mine - theirs.numpy()).sum() / np.square(theirs.numpy()).sum()
            assert noise < 1e-2, target
