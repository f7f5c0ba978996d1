"""Strange files: what is not read here, told by its first bytes, and what to do about it.

Belongs here: names of formats that people hand in by mistake or packed. Does not belong here: formats that are read
(``formats``, ``tables``).
"""

import io
import zipfile
import zlib

from heimdall_assets.formats.archives import measure_zip_directory

_SHOWN = 5
_MAX_DIRECTORY_BYTES = 4_000_000  # longer lists are not read

_PACKED = "is packed; unpack it, and inspect what comes out"
_KNOWN: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "gzip archive", f"{_PACKED} (gunzip)"),
    (b"\xfd7zXZ\0", "xz archive", f"{_PACKED} (unxz)"),
    (b"BZh", "bzip2 archive", f"{_PACKED} (bunzip2)"),
    (b"\x28\xb5\x2f\xfd", "Zstandard archive", f"{_PACKED} (unzstd)"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip archive", _PACKED),
    (b"Rar!", "RAR archive", _PACKED),
    (b"SQLite format 3\0", "SQLite database", "is read where it is: HEIMDALL_DATABASE_URL=sqlite:///FILE"),
    (b"\x89HDF\r\n\x1a\n", "HDF5 file", "is not read; write its samples as .npy, or its levels as Parquet or CSV"),
    (b"MATLAB 5.0", "MATLAB file", "is not read; write its samples as .npy, or its levels as CSV"),
    (b"\xd0\xcf\x11\xe0", "Excel workbook of old", "is not read; save its sheet as CSV UTF-8"),
    (b"fLaC", "FLAC sound", "is not read; write its samples as WAV"),
    (b"OggS", "Ogg sound", "holds sound that lost its phases, expected IQ"),
    (b"ID3", "MP3 sound", "holds sound that lost its phases, expected IQ"),
    (b"%PDF", "PDF document", "holds no recording"),
    (b"\x89PNG\r\n\x1a\n", "PNG picture", "holds no recording"),
    (b"\xff\xd8\xff", "JPEG picture", "holds no recording"),
)
"""First bytes -> what it is, and what to do about it."""


def name_strange(head: bytes, is_whole: bool = True) -> tuple[str, str] | None:
    """Return what a file is that is not read here, and what to do about it; None: it is none that is known.

    Args:
        head: its first bytes; all of them, for the list of what an archive of files holds.
        is_whole: whether these are all of them.
    """
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _name_zip(head) if is_whole else ("ZIP archive", f"{_PACKED} (unzip)")
    if head[257:262] == b"ustar":
        return "tar archive", _PACKED
    for magic, title, advice in _KNOWN:
        if head.startswith(magic):
            return title, advice
    return None


def _name_zip(data: bytes) -> tuple[str, str]:
    """Return what a ZIP archive is, by the names of its members; nothing of it is unpacked."""
    names: list[str] = []
    if measure_zip_directory(data) <= _MAX_DIRECTORY_BYTES:
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, zlib.error, ValueError, OSError, NotImplementedError, UnicodeDecodeError):
            return "ZIP archive that is damaged", "cannot be unpacked, expected a whole copy"
    if any(name.startswith("xl/") for name in names):
        return "Excel workbook", "is not read; save its sheet as CSV UTF-8"
    shown = [f"{name!r:.60}" for name in names[:_SHOWN]]
    listed = ", ".join(shown) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    if names and all(name.endswith(".npy") for name in names):
        return f"NumPy archive (.npz) of {listed}", (
            "holds several arrays; save each receiver's samples as one .npy (numpy.save(NAME, array))"
        )
    return f"ZIP archive of {listed}" if names else "ZIP archive", f"{_PACKED} (unzip)"
