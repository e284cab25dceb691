"""A policy as an ONNX graph: `export_onnx`."""

from s5_adapters.onnx.policy import export_onnx

__all__ = ["export_onnx"]
