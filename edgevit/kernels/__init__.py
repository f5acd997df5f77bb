"""Integer arithmetic on int8 tensors: compiled for the CPU, by torch operations elsewhere.

`exact` has what the operations build their integer steps of, `build` the compiling.
"""
