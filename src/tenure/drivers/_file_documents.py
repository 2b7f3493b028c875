"""Documents in files: each in one of its own, replaced as a whole, compared before.

Whoever saves has the present file locked, writes the new one beside it, and renames it over
the old. So a crash leaves the old document or the new one, and readers need no lock. A file
that has no contents is nothing but a lock: the document does not exist yet.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
from collections.abc import Iterator, Sequence

from .._runtime.base import Runtime
from ..errors import StorageError
from ._file_names import (
    MAKE,
    NEW_SUFFIX,
    READ,
    WRITE,
    check_fit,
    file_name,
    in_place,
    make_folder,
    remove,
    remove_old,
    storage_error,
)
from .document import Document

SUFFIX = ".json"
LOCK_TRIES = 20
HEADER_BYTES = 1024

_EXCLUSIVE = fcntl.LOCK_EX | fcntl.LOCK_NB
_KIND = "a document"
_encode = json.JSONEncoder(ensure_ascii=False).encode


class Documents:
    """The documents of one namespace. Every method blocks, as long as a file takes."""

    def __init__(self, folder: str, user: int, runtime: Runtime) -> None:
        self.folder = folder
        self._user = user
        self._runtime = runtime

    def load(self, kind: str, name: str) -> tuple[Document | None, str | None]:
        """The document and its version, or None and None."""
        path = document_path(self.folder, kind, name)
        try:
            file = os.open(path, READ)
        except FileNotFoundError:
            return None, None
        except OSError as error:
            raise storage_error(error, path, _KIND) from error
        try:
            found = self._contents(path, file)
        finally:
            os.close(file)
        if not found:
            return None, None
        header, _, body = found.partition(b"\n")
        version = _header(path, header, name)[1]
        return _document(path, kind, body), version

    def save(
        self, kind: str, name: str, document: Document | None, version: str | None
    ) -> str | None:
        """Save or delete the document if its version is that; return the new version.

        None if it was another. Raises `BlockingIOError` if somebody else is saving it.
        """
        path = document_path(self.folder, kind, name)
        new = self._runtime.unique()
        text = b"" if document is None else _text(name, new, document)
        try:
            with self._locked(path, make=bool(text) and version is None) as file:
                if file is None:
                    return new if document is None and version is None else None
                found = self._contents(path, file, HEADER_BYTES)
                if not found and version is not None:
                    return None
                if found and _header(path, found.partition(b"\n")[0], name)[1] != version:
                    return None
                try:
                    if not text:
                        os.unlink(path)
                    elif not self._replace(path, new, text, lasting=kind == "record"):
                        return None
                except BaseException:
                    if not found:
                        remove(path)  # there was nothing, and there is nothing
                    raise
                return new
        except (BlockingIOError, StorageError):
            raise
        except OSError as error:
            raise storage_error(error, path, _KIND) from error

    def names(self, kind: str) -> Sequence[str]:
        """The names of all documents of a kind."""
        folder = kind_folder(self.folder, kind)
        names = []
        try:
            with os.scandir(folder) as entries:
                files = [(entry.name, entry.path) for entry in entries]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise storage_error(error, folder, _KIND) from error
        for file, path in files:
            if file.endswith(SUFFIX):
                name = self._name(path)
                if name is not None:
                    names.append(name)
            elif file.endswith(NEW_SUFFIX):
                remove_old(path, self._runtime.wall())
        return names

    def _name(self, path: str) -> str | None:
        try:
            file = os.open(path, READ)
        except FileNotFoundError:
            return None  # deleted meanwhile
        except OSError as error:
            raise storage_error(error, path, _KIND) from error
        try:
            found = self._contents(path, file, HEADER_BYTES)
        finally:
            os.close(file)
        return _header(path, found.partition(b"\n")[0], None)[0] if found else None

    @contextlib.contextmanager
    def _locked(self, path: str, make: bool) -> Iterator[int | None]:
        """The file, locked and in its place; None if there is none and none is to be made."""
        for _ in range(LOCK_TRIES):
            file = self._open(path, make)
            if file is None:
                yield None
                return
            try:
                try:
                    fcntl.flock(file, _EXCLUSIVE)
                except BlockingIOError:
                    os.sched_yield()
                    continue
                if in_place(path, file):
                    yield file
                    return
            finally:
                # Not by closing alone: the child of a fork may have a copy.
                fcntl.flock(file, fcntl.LOCK_UN)
                os.close(file)
        raise BlockingIOError

    def _open(self, path: str, make: bool) -> int | None:
        try:
            return os.open(path, MAKE if make else WRITE, 0o600)
        except FileNotFoundError:
            if not make:
                return None
        make_folder(self.folder)
        make_folder(os.path.dirname(path))
        return os.open(path, MAKE, 0o600)

    def _contents(self, path: str, file: int, piece: int | None = None) -> bytes:
        """What is in the file; with a `piece`, read so many bytes at a time up to a line's end."""
        found = os.fstat(file)
        check_fit(path, found, self._user, _KIND)
        contents = b""
        try:
            while len(contents) < found.st_size:
                read = os.pread(file, piece or found.st_size, len(contents))
                contents += read
                if not read or (piece and b"\n" in read):
                    break
        except OSError as error:
            raise storage_error(error, path, _KIND) from error
        return contents

    def _replace(self, path: str, new: str, text: bytes, lasting: bool) -> bool:
        """Put a new file in the place of one that is locked; False if it was swept away."""
        beside = f"{path.removesuffix(SUFFIX)}.{new}{NEW_SUFFIX}"
        try:
            file = os.open(beside, MAKE | os.O_EXCL, 0o600)
            try:
                written = 0
                while written < len(text):
                    written += os.write(file, text[written:])
                if lasting:
                    # Or the name could be on the disk before what it names. A roster may
                    # well be lost with the machine: so are all its sessions.
                    os.fsync(file)
            finally:
                os.close(file)
            os.rename(beside, path)
        except FileNotFoundError:
            return False
        except BaseException:
            remove(beside)
            raise
        return True


@functools.lru_cache(maxsize=1024)
def document_path(folder: str, kind: str, name: str) -> str:
    """The path of a document's file."""
    return os.path.join(kind_folder(folder, kind), file_name(name) + SUFFIX)


def kind_folder(folder: str, kind: str) -> str:
    """The folder of all documents of a kind: in it, none is taken for a lock file."""
    return os.path.join(folder, kind + "s")


def _text(name: str, version: str, document: Document) -> bytes:
    header = _encode({"name": name, "version": version})
    return f"{header}\n{_encode(document)}\n".encode("utf-8", "surrogatepass")


def _header(path: str, line: bytes, name: str | None) -> tuple[str, str]:
    """The name and the version, as the first line of a file tells."""
    try:
        header = json.loads(line.decode("utf-8", "surrogatepass"))
        told, version = header["name"], header["version"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _damaged(path, f"its first line is no header: {error!r}") from error
    if not isinstance(told, str) or not isinstance(version, str) or (name not in (None, told)):
        raise _damaged(path, f"it is the document of {told!r}")
    return told, version


def _document(path: str, kind: str, body: bytes) -> Document:
    try:
        document: Document = json.loads(body.decode("utf-8", "surrogatepass"))
        if kind == "roster":
            whole = isinstance(document["token"], int) and all(
                isinstance(each, list) and len(each) == 6 and isinstance(each[1], str)
                for each in document["claims"]
            )
        else:
            whole = isinstance(document["text"], str)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _damaged(path, repr(error)) from error
    if not whole:
        raise _damaged(path, f"it is no {kind}")
    return document


def _damaged(path: str, what: str) -> StorageError:
    return StorageError(
        f"{path}: damaged, and left as it is ({what}); repair it, or delete it while nothing runs"
    )
