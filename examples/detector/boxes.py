"""Boxes: what the maps are trained to be (FCOS, arXiv 1904.01355), and boxes of maps, in NumPy.

A place of a map stands for the centre of its cell. It is trained to hold a thing where it lies
within a stride of the thing's centre, at the level whose stride fits the thing's size; its class
logit is trained to be the overlap of its box with the thing's (arXiv 2006.04388).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from examples.detector.net import STRIDES, flat

SIDES = (40, 64, np.inf)
"""Longest side of the things that each level is for, pixels."""
LEAST_SCORE, OVERLAP, MOST = 0.05, 0.6, 100


@dataclass(frozen=True)
class Found:
    """Boxes of one image, best first: float32 (M, 4) in pixels, int64 (M,), float32 (M,)."""

    boxes: np.ndarray
    kinds: np.ndarray
    scores: np.ndarray


def places(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Of an input of `size` pixels: centres float32 (P, 2) as x, y, and strides float32 (P,)."""
    centres, strides = [], []
    for stride in STRIDES:
        axis = (np.arange(size // stride, dtype=np.float32) + 0.5) * stride
        y, x = np.meshgrid(axis, axis, indexing="ij")
        centres.append(np.stack([x.ravel(), y.ravel()], 1))
        strides.append(np.full(x.size, stride, np.float32))
    return np.concatenate(centres), np.concatenate(strides)


def targets(boxes: np.ndarray, kinds: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """What each place is to hold: its kind int64 (P,), -1 for none, and the distances to its box's
    left, top, right and bottom in pixels, float32 (P, 4)."""
    centres, strides = places(size)
    kind = np.full(len(centres), -1, np.int64)
    distances = np.ones((len(centres), 4), np.float32)
    for box, k in zip(boxes, kinds, strict=True):
        level = STRIDES[int(np.searchsorted(SIDES, max(box[2:] - box[:2])))]
        sides = np.concatenate([centres - box[:2], box[2:] - centres], 1)
        near = abs(centres - (box[:2] + box[2:]) / 2).max(1) <= strides
        here = near & (strides == level) & (sides.min(1) > 0)
        kind[here], distances[here] = k, sides[here]
    return kind, distances


def loss(outputs: tuple[Tensor, ...], kind: Tensor, distances: Tensor) -> Tensor:
    """Of a batch: `kind` int64 (N, P) and `distances` float32 (N, P, 4) as `targets` makes them."""
    logits, boxes = flat(outputs)
    size = outputs[0].shape[-1] * STRIDES[0]
    strides = torch.from_numpy(places(size)[1]).to(boxes)
    here = kind >= 0
    overlap, enclosing = _overlaps((boxes.exp() * strides[:, None])[here], distances[here])
    wanted = torch.zeros_like(logits)
    wanted[here] = functional.one_hot(kind[here], logits.shape[2]) * overlap.detach()[:, None]
    away = (logits.sigmoid() - wanted).square().detach()
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return ((away * entropy).sum() + 2 * (1 - enclosing).sum()) / here.sum().clamp_min(1)


def _overlaps(found: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union, and the same less the empty part of the hull (arXiv 1902.09630), of
    boxes around one place, given by their distances (M, 4)."""

    def area(sides: Tensor) -> Tensor:
        return (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3])

    both = area(torch.minimum(found, wanted))
    union = area(found) + area(wanted) - both
    hull = area(torch.maximum(found, wanted))
    return both / union, both / union - (hull - union) / hull


def decode(outputs: tuple[np.ndarray, ...]) -> list[Found]:
    """Boxes of the maps of N images, as `Detector` gives them."""
    tensors = tuple(torch.from_numpy(np.ascontiguousarray(o)) for o in outputs)
    logits, sides = (each.numpy().astype(np.float64) for each in flat(tensors))
    size = outputs[0].shape[-1] * STRIDES[0]
    centres, strides = places(size)
    distances = np.exp(np.clip(sides, -8, 8)) * strides[:, None]
    low, high = centres - distances[..., :2], centres + distances[..., 2:]
    boxes = np.concatenate([low, high], 2).clip(0, size).astype(np.float32)
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return [_suppressed(b, s) for b, s in zip(boxes, scores, strict=True)]


def _suppressed(boxes: np.ndarray, scores: np.ndarray) -> Found:
    """Without boxes that overlap a better one of their kind; `scores` (P, kinds)."""
    place, kind = np.nonzero(scores > LEAST_SCORE)
    score = scores[place, kind]
    order = np.argsort(-score, kind="stable")[: 10 * MOST]
    place, kind, score = place[order], kind[order], score[order]
    kept: list[int] = []
    for i in range(len(place)):
        rivals = [k for k in kept if kind[k] == kind[i]]
        if not rivals or overlaps(boxes[place[i]], boxes[place[rivals]]).max() <= OVERLAP:
            kept.append(i)
        if len(kept) == MOST:
            break
    return Found(boxes[place[kept]], kind[kept], score[kept])


def overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of one box (4,) with others (M, 4)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return both / np.maximum(areas - both, 1e-9)


def mean_average_precision(
    found: list[Found], boxes: list[np.ndarray], kinds: list[np.ndarray], names: tuple[str, ...]
) -> tuple[float, float]:
    """COCO's mAP, from 0 to 1: over overlaps of 0.5 to 0.95, and at 0.5 (needs pycocotools)."""
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def entry(image: int, box: np.ndarray, kind: int, **more: float) -> dict[str, object]:
        left, top, right, bottom = (float(v) for v in box)
        sides = [left, top, right - left, bottom - top]
        area = sides[2] * sides[3]
        return {"image_id": image, "category_id": int(kind), "bbox": sides, "area": area, **more}

    wanted = [
        entry(i, box, kind, iscrowd=0)
        for i, each in enumerate(zip(boxes, kinds, strict=True))
        for box, kind in zip(*each, strict=True)
    ]
    answers = [
        entry(i, box, kind, score=float(score))
        for i, each in enumerate(found)
        for box, kind, score in zip(each.boxes, each.kinds, each.scores, strict=True)
    ]
    if not answers:
        return 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(len(boxes))],
            "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
            "annotations": [{"id": 1 + i, **each} for i, each in enumerate(wanted)],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(answers), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])
