"""Integer arithmetic on int8 tensors: compiled for the CPU, by torch operations elsewhere.

`exact` has what the operations build their integer steps of. `build` compiles it for ctypes,
`native` C++ extensions of torch; `cache` is where both keep what they built.
"""
