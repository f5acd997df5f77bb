"""Builds an ONNX with TensorRT-RTX, which needs no GPU for it, and says as JSON what it said.

    python tools/build_with_rtx.py model.onnx

TensorRT-RTX is not TensorRT: that it parses and builds a graph is a good sign and no result. It
also accepts graphs that TensorRT refuses or runs in float (see
edgevit/targets/tensorrt/lint/rules.py).
NVIDIA-licensed: `make test-rtx` installs it into this project's environment, nothing ships it.
"""

from __future__ import annotations

import json
import sys
import time


def main(path: str) -> int:
    import tensorrt_rtx as rtx

    class Logger(rtx.ILogger):
        def __init__(self) -> None:
            rtx.ILogger.__init__(self)
            self.serious: list[tuple[str, str]] = []

        def log(self, severity, message: str) -> None:
            name = str(severity).rpartition(".")[2]
            if name not in ("INFO", "VERBOSE"):
                self.serious.append((name, message.strip()))

    logger = Logger()
    builder = rtx.Builder(logger)
    # The network must outlive the build, or the library crashes.
    network = builder.create_network(0)
    parser = rtx.OnnxParser(network, logger)
    start_s = time.monotonic()
    parsed = parser.parse_from_file(path)
    parse_s = time.monotonic() - start_s
    found = {
        "tensorrt_rtx": rtx.__version__,
        "parsed": parsed,
        "parser_errors": [str(parser.get_error(i)) for i in range(parser.num_errors)],
        "parser_messages": [list(each) for each in logger.serious],
        "parse_s": parse_s,
        "layers": network.num_layers,
    }
    logger.serious.clear()
    if parsed:
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(rtx.ComputeCapability.SM86, 0)
        start_s = time.monotonic()
        engine = builder.build_serialized_network(network, config)
        found |= {
            "builder_messages": [list(each) for each in dict.fromkeys(logger.serious)],
            "build_s": time.monotonic() - start_s,
            "engine_bytes": engine.nbytes if engine is not None else None,
        }
    print(json.dumps(found, indent=1))
    return 0 if found.get("engine_bytes") else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
