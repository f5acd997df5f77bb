"""ONNX Runtime's static quantization behind its pre-processing: QDQ, per channel, else defaults."""

from __future__ import annotations

from typing import Any

from _job import Job, run

TITLE = "ONNX Runtime, quantize_static"
REQUIREMENTS = ("onnxruntime==1.32.0", "onnx==1.23.2", "numpy==2.4.6")
FORMAT = "onnx"
SCALES = "calibrates anew"


def make(job: Job) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    images, prepared = job.calibration(), job.out.with_name("prepared.onnx")

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> Any:
            image = next(self.left, None)
            return None if image is None else {"input": image[None]}

    with job.timed("convert"):  # it calibrates in the same call
        source = str(job.inputs["float_onnx"])
        quant_pre_process(source, str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(job.out),
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
        )


if __name__ == "__main__":
    run(make)
