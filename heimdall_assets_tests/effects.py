"""What a module would do to the world outside memory, read off its syntax tree without running it.

Belongs here: which calls change a file system, reach another machine or read the clock. Does not belong here: who may
(``test_house``). Names are followed through ``import ... as`` and ``from ... import``, not through variables: a path's
method is known by its name and by how many arguments it takes.
"""

import ast
from collections.abc import Iterator

WRITING_MODULES = {"shutil", "tempfile", "sqlite3", "shelve", "dbm", "fileinput"}
"""Good for little else than changing files: importing one is enough."""

WRITING_OS = {
    "chmod", "chown", "fdopen", "ftruncate", "lchown", "link", "makedirs", "mkdir", "mkfifo", "mknod", "open", "remove",
    "removedirs", "rename", "renames", "replace", "rmdir", "symlink", "truncate", "unlink", "utime", "write",
}  # fmt: skip

PATH_METHODS = {
    "chmod", "hardlink_to", "lchmod", "mkdir", "rmdir", "symlink_to", "touch", "unlink", "write_bytes", "write_text",
}  # fmt: skip
"""Methods that only paths have."""

MOVING_METHODS = {"rename", "replace"}
"""A path's take one argument and no keyword; those of strings, dates and tables take others."""

SAVERS = {
    "imsave", "print_figure", "print_pdf", "print_png", "print_svg", "save", "save_file",
    "save_model", "savefig", "savetxt", "savez", "savez_compressed", "to_csv", "to_excel", "to_feather", "to_hdf",
    "to_json", "to_parquet", "to_pickle", "tofile", "write_feather", "write_table", "FileHandler",
    "RotatingFileHandler", "TimedRotatingFileHandler", "open_memmap",
}  # fmt: skip
"""Calls that fill the file they are handed; a buffer in memory is fine, and so is none where they return bytes."""

RETURNING = {"to_csv", "to_json", "to_parquet"}
ENCODERS = {"safetensors.numpy.save", "safetensors.torch.save"}
"""Named as if they wrote, and return bytes."""

BUFFERS = {"io.BytesIO", "io.StringIO"}

CONNECTING_MODULES = {
    "aiohttp", "boto3", "botocore", "fsspec", "ftplib", "http.client", "http.server", "httpx", "huggingface_hub",
    "mlflow", "obstore", "paramiko", "psycopg2", "ray", "requests", "smtplib", "socket", "socketserver", "sqlalchemy",
    "ssl", "torch.hub", "urllib.request", "urllib3", "webbrowser",
}  # fmt: skip


CLOCKS = {
    "datetime.date.today", "datetime.datetime.now", "datetime.datetime.today", "datetime.datetime.utcnow",
    "pandas.Timestamp.now", "pandas.Timestamp.utcnow", "time.monotonic", "time.monotonic_ns",
    "time.perf_counter", "time.perf_counter_ns", "time.time", "time.time_ns",
}  # fmt: skip


class Tree:
    """A module's syntax tree, and what its names were imported as."""

    def __init__(self, source: str):
        self.nodes = list(ast.walk(ast.parse(source)))
        self.names: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                self.names |= {alias.asname: alias.name for alias in node.names if alias.asname}
            elif isinstance(node, ast.ImportFrom) and node.module:
                self.names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        self.buffers: set[str] = set()
        self.buffers |= {
            target.id
            for node in self.nodes
            if isinstance(node, ast.Assign) and self.is_buffer(node.value)
            for target in node.targets
            if isinstance(target, ast.Name)
        }

    def list_calls(self) -> Iterator[ast.Call]:
        return (node for node in self.nodes if isinstance(node, ast.Call))

    def list_modules(self) -> Iterator[tuple[int, str]]:
        """Yield line and full name of whatever is imported, at the top or inside a function."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)

    def name(self, node: ast.expr) -> str:
        """Return the dotted name of what is called; ``?`` stands for what is no plain name."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{self.name(node.value)}.{node.attr}"
        return "?"

    def is_buffer(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Name):
            return node.id in self.buffers
        return isinstance(node, ast.Call) and self.name(node.func) in BUFFERS


def find_writes(source: str) -> list[str]:
    """Return what in a module's source would change a file system, one line each; empty: nothing would."""
    tree = Tree(source)
    found = [
        (line, f"imports {name}")
        for line, name in tree.list_modules()
        if name.split(".")[0] in WRITING_MODULES or (name.startswith("os.") and name.removeprefix("os.") in WRITING_OS)
    ]
    found += [(call.lineno, f"calls {tree.name(call.func)}") for call in tree.list_calls() if _writes(tree, call)]
    return [f"line {line}: {what}" for line, what in sorted(found)]


def find_connections(source: str) -> list[str]:
    """Return what in a module's source could reach another machine, one line each; empty: nothing could."""
    tree = Tree(source)
    found = [
        (line, f"imports {name}")
        for line, name in tree.list_modules()
        if any(f"{name}.".startswith(f"{module}.") for module in CONNECTING_MODULES)
    ]
    for call in tree.list_calls():
        name = tree.name(call.func)
        asked = next((word.value for word in call.keywords if word.arg == "pretrained"), None)
        unsure = not isinstance(asked, ast.Constant) or asked.value is not False
        if name.startswith("torch.hub.") or (name.split(".")[-1] == "create_model" and asked is not None and unsure):
            found.append((call.lineno, f"calls {name}"))
    return [f"line {line}: {what}" for line, what in sorted(found)]


def find_clock_reads(source: str) -> list[str]:
    """Return where a module's source asks what time it is, one line each; empty: nowhere."""
    tree = Tree(source)
    found = [(call.lineno, tree.name(call.func)) for call in tree.list_calls()]
    return [f"line {line}: calls {name}" for line, name in sorted(found) if name in CLOCKS]


def _writes(tree: Tree, call: ast.Call) -> bool:
    name = tree.name(call.func)
    owner, _, last = name.rpartition(".")
    is_method = isinstance(call.func, ast.Attribute) and owner != "dataclasses"
    if owner == "os":
        return last in WRITING_OS
    if last in {"open", "ZipFile", "TarFile", "memmap"} or any(word.arg == "mmap_mode" for word in call.keywords):
        return _opens_to_write(tree, call, owner)
    if last in MOVING_METHODS:
        return is_method and len(call.args) == 1 and not call.keywords and not isinstance(call.args[0], ast.Dict)
    if name.endswith("onnx.export"):
        return _fills_a_file(tree, [*call.args[2:3], *(word.value for word in call.keywords if word.arg == "f")])
    if last in SAVERS and owner and not owner.startswith("heimdall_assets") and name not in ENCODERS:
        handed = [*call.args, *(word.value for word in call.keywords if word.arg)]
        return not (last in RETURNING and not call.args) and _fills_a_file(tree, handed)
    return is_method and last in PATH_METHODS


def _fills_a_file(tree: Tree, handed: list[ast.expr]) -> bool:
    return bool(handed) and not any(tree.is_buffer(argument) for argument in handed)


def _opens_to_write(tree: Tree, call: ast.Call, owner: str) -> bool:
    """Return whether a file is opened in a mode that writes, or in one that only a run would tell."""
    words = {word.arg: word.value for word in call.keywords}
    if "fileobj" in words or any(tree.is_buffer(argument) for argument in call.args[:1]):
        return False
    of_path = isinstance(call.func, ast.Attribute) and owner.split(".")[0] not in _OPENING_MODULES
    mode = words.get("mmap_mode", words.get("mode"))
    if mode is None:
        at = 0 if of_path else 1
        mode = call.args[at] if len(call.args) > at else ast.Constant("r")
    if not isinstance(mode, ast.Constant) or not isinstance(mode.value, str):
        return not (isinstance(mode, ast.Constant) and mode.value is None)
    return bool(set("wax+") & set(mode.value.split(":")[0].split("|")[0]))


_OPENING_MODULES = {"io", "gzip", "bz2", "lzma", "codecs", "tarfile", "zipfile", "wave", "numpy", "builtins"}
