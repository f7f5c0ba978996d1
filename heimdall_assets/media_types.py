"""Media types of bytes at rest: what an artifact says that it is.

Belongs here: names. Does not belong here: what is read or written (``formats``, ``stores.objects``).
"""

JSON_MEDIA_TYPE = "application/json"
JSON_LINES_MEDIA_TYPE = "application/jsonl"
PARQUET_MEDIA_TYPE = "application/vnd.apache.parquet"
NPY_MEDIA_TYPE = "application/x-npy"
SAFETENSORS_MEDIA_TYPE = "application/x-safetensors"
ONNX_MEDIA_TYPE = "application/onnx"
SVG_MEDIA_TYPE = "image/svg+xml"
BINARY_MEDIA_TYPE = "application/octet-stream"
