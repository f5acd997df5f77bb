"""ai-edge-quantizer with a program's weights, and its ranges in place of a calibration's."""

from __future__ import annotations

import numpy as np
from _job import Job, run

TITLE = "ai-edge-quantizer, handed edgevit's scales"
REQUIREMENTS = (
    "litert-torch==0.10.0", "ai-edge-quantizer==0.10.0", "ai-edge-litert==2.3.0", "torch==2.13.0",
    "torchao==0.18.0", "numpy==2.4.6",
)  # fmt: skip
FORMAT = "tflite"
SCALES = "given"


def make(job: Job) -> None:
    from ai_edge_quantizer import (  # pyright: ignore[reportMissingImports]
        quantizer,
        recipe,
    )

    made = quantizer.Quantizer(job.inputs["given_tflite"].read_bytes(), recipe.static_wi8_ai8())
    image = job.calibration(channels_last=True)[:1]
    # One image tells the names; the ranges are the program's.
    ranges = made.calibrate({"serving_default": [{"input": image}]})
    given = job.net("given_net")[0]["quantizers"]
    for name, held in ranges.items():
        if name in given:
            scale, zero_point = given[name]["scale"], given[name]["zero_point"]
            for end, value in (("min", -128), ("max", 127)):
                shape = np.shape(held[end])
                held[end] = np.full(shape, (value - zero_point) * scale, np.float32)
    if left := sorted(set(given) - set(ranges)):
        job.note(f"{len(left)} of the given ranges have no tensor to take them, as {left[0]}")
    with job.timed("convert"):
        result = made.quantize(calibration_result=ranges, enable_progress_report=False)
    job.out.write_bytes(bytes(result.quantized_model))


if __name__ == "__main__":
    run(make)
