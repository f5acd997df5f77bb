"""litert-torch of a torch.export archive with a quantize and a dequantize on every tensor."""

from __future__ import annotations

from typing import Any

from _job import Job, run

TITLE = "litert-torch, handed edgevit's scales"
REQUIREMENTS = (
    "litert-torch==0.10.0", "ai-edge-quantizer==0.10.0", "ai-edge-litert==2.3.0", "torch==2.13.0",
    "torchao==0.18.0", "numpy==2.4.6",
)  # fmt: skip
FORMAT = "tflite"
SCALES = "given"


def unfold_weights(module: Any) -> None:
    """Each int8 weight as a real one behind quantize: the converter takes no int8 constant.

    The real weight is a multiple of its scale, so that the same integers come back.
    """
    import torch

    ops = torch.ops.quantized_decomposed
    for node in list(module.graph.nodes):
        if node.target is not ops.dequantize_per_channel.default:
            continue
        held = [module.get_buffer(each.target) for each in node.args[:3]]
        name = node.name + "_real"
        module.register_buffer(name, node.target(*held, *node.args[3:]))
        with module.graph.inserting_before(node):
            real = module.graph.get_attr(name)
            quantize = ops.quantize_per_channel.default
            again = module.graph.call_function(quantize, (real, *node.args[1:]))
        node.args = (again, *node.args[1:])
    module.graph.eliminate_dead_code()
    module.recompile()


def make(job: Job) -> None:
    import litert_torch  # pyright: ignore[reportMissingImports]
    import torch
    import torchao.quantization.pt2e  # noqa: F401  it registers the operations of the pairs
    from litert_torch.quantize.pt2e_quantizer import (  # pyright: ignore[reportMissingImports]
        PT2EQuantizer,
        get_symmetric_quantization_config,
    )
    from litert_torch.quantize.quant_config import (  # pyright: ignore[reportMissingImports]
        QuantConfig,
    )

    image = torch.from_numpy(job.calibration(channels_last=True)[:1])
    # The converter asks it whether ranges are static; it quantizes nothing here.
    quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    quantized = torch.export.load(job.inputs["given_pt2"]).module()
    unfold_weights(quantized)
    with job.timed("convert"):
        made = litert_torch.convert(
            litert_torch.to_channel_last_io(quantized, args=[0]),
            (image,),
            quant_config=QuantConfig(pt2e_quantizer=quantizer),
        )
    made.export(str(job.out))


if __name__ == "__main__":
    run(make)
