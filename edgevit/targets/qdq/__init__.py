"""QDQ ONNX, as several targets write it: no target itself.

`write` and `emit` make a model of a graph, `read` and `operators` a graph of a model, and share
nothing but how onnx is imported (`toolkit`). `runner` runs a model under ONNX Runtime.
"""
