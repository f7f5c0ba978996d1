"""A fitted model as one ONNX file."""
