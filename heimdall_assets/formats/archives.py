"""Archives of one recording: a tar or zip, maybe compressed, expanded no further than recordings pack.

Belongs here: members and their sizes, and refusing whatever costs more than its bytes are worth. Does not belong here:
which members a recording has (``sigmf_archive``). Sources: POSIX.1-2017 pax; APPNOTE.TXT 6.3.10 (ZIP).
"""

import bz2
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NoReturn

from heimdall_assets.errors import InvalidRecording

_MAX_MEMBERS = 16
_MAX_EXPANSION = 30
"""Samples of a receiver, even 8 bit ones far below full scale, are never packed tighter than this."""
_FREE_BYTES = 16_000_000  # and what may expand more than that: short recordings of a test
_PIECE_BYTES = 1 << 18
_MAX_DICTIONARY_BYTES = 100_000_000  # xz -9 asks for 65 MiB; a header may ask for 4 GiB
_TEXT_TYPES = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_MAX_HEADER_BYTES = 1 << 16  # of names and of what pax headers say
_MAX_DIRECTORY_BYTES = 1 << 21  # of members with names and comments as long as can be


def list_members(data: bytes, name: str) -> list[tuple[PurePosixPath, bytes]]:
    """Return the plain files that an archive holds, in its order.

    Raises:
        InvalidRecording: no archive, cut off, more members than a recording has, one that is no plain file, or what
            expands to more than a recording can.
    """
    try:
        return _list_zip(data, name) if data[:4] == b"PK\x03\x04" else _list_tar(_expand(data, name), name)
    except InvalidRecording:
        raise
    except EOFError:
        raise InvalidRecording(
            f"{name}: {len(data)} compressed bytes that are cut off, expected a whole SigMF archive"
        ) from None
    except Exception as error:  # the libraries let more than their own errors through for hostile headers
        raise InvalidRecording(
            f"{name}: {len(data)} bytes that are no whole tar ({error!s:.80}), expected a SigMF archive"
        ) from None


def _list_tar(data: bytes, name: str) -> list[tuple[PurePosixPath, bytes]]:
    _check_headers(data, name)
    members = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for number, member in enumerate(archive):
            path = PurePosixPath(member.name)
            _check_path(path, number, name)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                refuse_members(name, f"member {member.name!r:.80}")
            content = archive.extractfile(member)
            read = b"" if content is None else content.read()
            if len(read) != member.size:
                refuse_members(name, f"{len(read)} of {member.size} bytes of {member.name!r:.80}")
            members.append((path, read))
    return members


def _list_zip(data: bytes, name: str) -> list[tuple[PurePosixPath, bytes]]:
    if measure_zip_directory(data) > _MAX_DIRECTORY_BYTES:
        refuse_members(name, f"more than {_MAX_MEMBERS} members")
    members = []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        listed = archive.infolist()
        excess = sum(max(0, member.file_size - _MAX_EXPANSION * member.compress_size) for member in listed)
        # Members that share their bytes could each claim all of them.
        if excess > _FREE_BYTES or sum(member.compress_size for member in listed) > len(data):
            _refuse_expansion(data, name)
        for number, member in enumerate(listed):
            path = PurePosixPath(member.filename)
            _check_path(path, number, name)
            if member.is_dir():
                continue
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                refuse_members(name, f"member {member.filename!r:.80}, packed by another method than deflate")
            # As much as the list claims: asked for all, the library expands whatever is there.
            with archive.open(member, mode="r") as stream:
                members.append((path, stream.read(member.file_size)))
    return members


def measure_zip_directory(data: bytes) -> int:
    """Return how many bytes a ZIP archive's list of members takes by its own word, 0 where it has none.

    Whoever opens the archive reads all of the list, and keeps some hundred bytes for each member.
    Source: APPNOTE.TXT 6.3.10, sections 4.3.14 (ZIP64 record) and 4.3.16.
    """
    at = data.rfind(b"PK\x05\x06", max(0, len(data) - 65_557))
    if at < 0 or len(data) < at + 22:
        return 0
    if at >= 76 and data[at - 20 : at - 16] == b"PK\x06\x07":
        return int.from_bytes(data[at - 36 : at - 28], "little")
    return int.from_bytes(data[at + 12 : at + 16], "little")


def _check_headers(data: bytes, name: str) -> None:
    """Check that no tar header is followed by long texts: names, or what pax says, which are read with it."""
    at, number = 0, 0
    while number < 4 * _MAX_MEMBERS and len(block := data[at : at + tarfile.BLOCKSIZE]) == tarfile.BLOCKSIZE:
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            return  # the end, or nothing that the library reads on from
        if header.type in _TEXT_TYPES and header.size > _MAX_HEADER_BYTES:
            refuse_members(name, f"a header of {header.size} bytes")
        at += tarfile.BLOCKSIZE + -(-header.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        number += 1


def _check_path(path: PurePosixPath, number: int, name: str) -> None:
    if number >= _MAX_MEMBERS or path.is_absolute() or ".." in path.parts:
        refuse_members(name, f"member {number} {str(path)!r:.80}")


def _expand(data: bytes, name: str) -> bytes:
    """Return ``data`` without its compression, which its first bytes tell.

    It is expanded piece by piece: what packs tighter than a recording ends it there, however long the file is.
    """
    if data[:2] == b"\x1f\x8b":
        pieces = _expand_gzip(data)
    elif data[:6] == b"\xfd7zXZ\x00" or data[:3] == b"BZh":
        pieces = _expand_blocks(
            data,
            lzma.LZMADecompressor(memlimit=_MAX_DICTIONARY_BYTES) if data[:1] == b"\xfd" else bz2.BZ2Decompressor(),
        )
    else:
        return data
    expanded, excess = [], 0
    for piece, num_consumed in pieces:
        excess = max(0, excess + len(piece) - _MAX_EXPANSION * num_consumed)
        if excess > _FREE_BYTES:
            _refuse_expansion(data, name)
        expanded.append(piece)
    return b"".join(expanded)


def _expand_gzip(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield pieces, and how many bytes each was packed in.

    Raises:
        EOFError: the data end before the archive does.
    """
    gzip, rest = zlib.decompressobj(31), memoryview(data)
    while not gzip.eof:
        if not rest:
            raise EOFError("compressed bytes that are cut off")
        piece = gzip.decompress(rest[:_PIECE_BYTES], _PIECE_BYTES)
        num_consumed = min(_PIECE_BYTES, len(rest)) - len(gzip.unconsumed_tail)
        rest = rest[num_consumed:]
        yield piece, num_consumed


def _expand_blocks(data: bytes, reader: "lzma.LZMADecompressor | bz2.BZ2Decompressor") -> Iterator[tuple[bytes, int]]:
    """Yield pieces, and how many bytes each was packed in, as a reader hands out that keeps what it is fed.

    Raises:
        EOFError: the data end before the archive does.
    """
    at = 0
    while not reader.eof:
        fed = data[at : at + _PIECE_BYTES] if reader.needs_input else b""
        if reader.needs_input and not fed:
            raise EOFError("compressed bytes that are cut off")
        at += len(fed)
        yield reader.decompress(fed, _PIECE_BYTES), len(fed)


def _refuse_expansion(data: bytes, name: str) -> NoReturn:
    raise InvalidRecording(
        f"{name}: {len(data)} bytes, a part of which expands to more than {_MAX_EXPANSION} times its length, expected "
        f"a recording, which packs at most {_MAX_EXPANSION} to 1"
    )


def refuse_members(name: str, found: str) -> NoReturn:
    """Refuse an archive for what it ``found`` among its members.

    Raises:
        InvalidRecording: always.
    """
    raise InvalidRecording(
        f"{name}: archive holds {found}, expected one .sigmf-meta and one dataset of the same name and no others"
    )
