"""Stamp: what a release adds to an exported model (version, provenance), without touching a number of the graph."""

from heimdall_assets.errors import InvalidInput


def stamp_onnx(data: bytes, metadata: dict[str, str]) -> bytes:
    """Return the model with further ``metadata_props``; equal inputs give equal bytes.

    Raises:
        InvalidInput: the model already says one of these keys.
        CorruptObject: ``data`` is no whole, valid ONNX file.
    """
    from heimdall_assets.learning.export.onnx_file import check_onnx

    proto = check_onnx(data)
    present = {item.key for item in proto.metadata_props}
    if both := sorted(present & set(metadata)):
        raise InvalidInput(f"metadata {', '.join(both)}: stands in the model already, expected other keys")
    for key, value in sorted(metadata.items()):
        proto.metadata_props.add(key=key, value=value)
    stamped: bytes = proto.SerializeToString(deterministic=True)
    return stamped
