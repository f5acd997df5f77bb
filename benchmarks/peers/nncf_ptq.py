"""NNCF's post-training quantization of the ONNX file with its defaults, run by ONNX Runtime."""

from __future__ import annotations

from _job import Job, run

TITLE = "NNCF, quantize (ONNX)"
REQUIREMENTS = ("nncf==3.4.0", "onnx==1.23.2", "onnxruntime==1.32.0", "numpy==2.4.6")
FORMAT = "onnx"
SCALES = "calibrates anew"


def make(job: Job) -> None:
    import nncf
    import onnx

    images = job.calibration()
    model = onnx.load(str(job.inputs["float_onnx"]))
    data = nncf.Dataset(list(images), lambda image: {"input": image[None]})
    with job.timed("convert"):  # it calibrates in the same call
        quantized = nncf.quantize(model, data, subset_size=len(images))
    onnx.save(quantized, str(job.out))


if __name__ == "__main__":
    run(make)
