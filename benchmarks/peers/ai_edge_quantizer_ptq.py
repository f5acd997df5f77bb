"""ai-edge-quantizer's static int8 of our float32 TFLite."""

from __future__ import annotations

from _job import Job, run

TITLE = "ai-edge-quantizer, static int8"
REQUIREMENTS = (
    "litert-torch==0.10.0", "ai-edge-quantizer==0.10.0", "ai-edge-litert==2.3.0", "torch==2.13.0",
    "torchao==0.18.0", "numpy==2.4.6",
)  # fmt: skip
FORMAT = "tflite"
SCALES = "calibrates anew"


def make(job: Job) -> None:
    from ai_edge_quantizer import (  # pyright: ignore[reportMissingImports]
        quantizer,
        recipe,
    )

    made = quantizer.Quantizer(job.inputs["float_tflite"].read_bytes(), recipe.static_wi8_ai8())
    images = [{"input": image[None]} for image in job.calibration(channels_last=True)]
    with job.timed("calibrate"):
        ranges = made.calibrate({"serving_default": images})
    with job.timed("convert"):
        result = made.quantize(calibration_result=ranges, enable_progress_report=False)
    job.out.write_bytes(bytes(result.quantized_model))


if __name__ == "__main__":
    run(make)
