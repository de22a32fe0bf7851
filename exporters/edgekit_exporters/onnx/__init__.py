"""ONNX: bases and adapters as ONNX Runtime reads them."""
