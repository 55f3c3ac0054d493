"""What is in a folder or a zip that strangers filled, read without harm.

Nothing is unpacked to disk, no link is followed, nothing but an ordinary file is opened. A size is
checked when announced and again when read; a zip bomb costs what is allowed and no more. Whatever
is not read keeps its place in the list, with the status of its row and a reason in words.
"""

import contextlib
import errno
import io
import itertools
import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .table import Status

MAX_FILE = 256 * 2**20  # bytes of a notebook, or of a student's own zip
MAX_PATH = 1_000  # characters of a path in a zip

Problem = tuple[Status, str]


class Refused(Exception):
    """What was handed in is not read; the argument is the problem of its row."""

    @property
    def problem(self) -> Problem:
        """The status and the reason of the row."""
        return self.args[0]


@dataclass(frozen=True)
class Source:
    """Where bytes are: a file on disk, then the place of the entry in each zip on the way."""

    path: Path
    entries: tuple[int, ...] = ()

    def read(self) -> bytes:
        """The bytes, unpacked."""
        with _opened(self.path) as stream:
            return _unpacked(stream, self.entries)


@dataclass(frozen=True)
class Thing:
    """A file or a folder.

    Attributes:
        parts: its path, in NFC and printable; never "..", never absolute.
        shown: its path as it was, but for what cannot be printed.
        when: the time of its last change, after that of the zip that it is in.
        size: in bytes, as announced.
        folder: whether it is one.
        open: a stream of its bytes, while the zip that it is in is open.
        source: to open it again.
        problem: why it is not read.
    """

    parts: tuple[str, ...]
    shown: str
    when: tuple[int, ...] = ()
    size: int = 0
    folder: bool = False
    open: Callable[[], io.BufferedIOBase] | None = None
    source: Source | None = None
    problem: Problem | None = None

    @property
    def hidden(self) -> bool:
        """Whether it is what a system or an editor leaves behind."""
        return any(p.startswith(".") or p.lower() in _PASSED_OVER for p in self.parts)

    def blocks(self) -> Iterator[bytes]:
        """Its bytes: as many as were announced, and no more than are allowed.

        Raises:
            Refused: they are not to be had.
        """
        if self.size > MAX_FILE:
            raise Refused(_too_big(self.size))
        with damage(), self.open() as stream:
            left = self.size
            for block in _limited(stream):
                left -= len(block)
                yield block
            if left:
                raise Refused(unread("damaged: it has not the size that was announced"))
            if not self.size:
                raise Refused(unread("the file is empty"))


def walk(root: Path) -> Iterator[Thing]:
    """Everything in a folder, but what is in hidden folders.

    Raises:
        ValueError: the folder itself cannot be read.
    """
    stack = [(root, ())]
    while stack:
        here, parts = stack.pop()
        try:
            found = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            if not parts:
                raise ValueError(f"{root} cannot be read: {error.strerror}") from error
            shown = printable("/".join(parts))
            yield Thing(clean(parts), shown, folder=True, problem=_ours(error))
            continue
        for entry in found:
            thing = on_disk(Path(entry.path), (*parts, entry.name))
            yield thing
            if thing.folder and not thing.hidden:
                stack.append((Path(entry.path), (*parts, entry.name)))


def on_disk(path: Path, parts: tuple[str, ...]) -> Thing:
    """The thing at a path, which is `parts` from where the submissions begin."""
    shown = printable("/".join(parts))
    try:
        status = path.lstat()
    except OSError as error:
        return Thing(clean(parts), shown, problem=_ours(error))
    mode, problem = status.st_mode, None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        problem = _LINK if stat.S_ISLNK(mode) else _NO_FILE
    return Thing(
        clean(parts),
        shown,
        (status.st_mtime_ns,),
        status.st_size,
        stat.S_ISDIR(mode),
        lambda: _opened(path),
        Source(path),
        problem,
    )


def archived(archive: zipfile.ZipFile, at: Thing) -> Iterator[Thing]:
    """Everything in an open zip, which is itself the thing `at`."""
    infos = archive.infolist()
    shared, times = _overlapping(infos), Counter(i.filename for i in infos)
    for place, info in enumerate(infos):
        name = info.orig_filename
        if not info.flag_bits & 0x800:  # it does not say UTF-8, but many a program writes it
            with contextlib.suppress(UnicodeError):
                name = name.encode("cp437").decode()
        parts = [p for p in re.split(r"[/\\]", name[:MAX_PATH]) if p not in ("", ".", "..")]
        folder = name.endswith("/")
        trick = None if folder else _trick(name)
        if trick:  # the dots are no reason to pass it over
            parts = [p.lstrip(".") or "unnamed" for p in parts]
        if not parts and not folder:
            parts = ["unnamed"]
        yield Thing(
            (*at.parts, *clean(parts)),
            (f"{at.shown}/" if at.shown else "") + printable(name[:MAX_PATH]),
            (*at.when, int("{:04}{:02}{:02}{:02}{:02}{:02}".format(*info.date_time))),
            info.file_size,
            folder,
            lambda info=info: archive.open(info),
            replace(at.source, entries=(*at.source.entries, place)),
            trick or _trouble(info, times[info.filename] > 1, info.header_offset in shared),
        )


@contextlib.contextmanager
def damage():
    """What a damaged file raises is the file's fault; anything else is ours."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        bad = isinstance(error, _DAMAGE) or getattr(error, "errno", None) == errno.EINVAL
        problem = unread(f"damaged: {printable(str(error))[:200]}") if bad else _ours(error)
        raise Refused(problem) from error


def clean(parts: Sequence[str]) -> tuple[str, ...]:
    """One way to write each name; a Mac writes an é as two characters."""
    return tuple(printable(unicodedata.normalize("NFC", part)) for part in parts)


def printable(text: str) -> str:
    """Without control characters, changes of direction and what UTF-8 cannot hold."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "_" for c in text)


def unread(why: str) -> Problem:
    """What is said of a file that cannot be read."""
    return Status.NOT_A_NOTEBOOK, why


def megabytes(size: int) -> str:
    """A size as people read it."""
    return f"{size / 2**20:.0f} MB"


_PASSED_OVER = {"__macosx", "thumbs.db", "desktop.ini", "submission_metadata.yml"}
# What zipfile and zlib raise on bytes that are wrong; a RuntimeError is an encrypted entry.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, OverflowError,
    LookupError, NotImplementedError, RuntimeError,
)  # fmt: skip
_NO_FILE = (Status.SUSPECT, "no ordinary file, but a pipe, a socket or a device")
_LINK = (Status.SUSPECT, "a link, which is never followed: hand in the file itself")


def _trick(name: str) -> Problem | None:
    tricks = {
        "leads out of the zip": ".." in re.split(r"[/\\]", name),
        "is absolute": name[:1] in ("/", "\\"),
        "names a drive": bool(re.match("[A-Za-z]:", name)),
        "has a backslash": "\\" in name,
        "has a null character": "\0" in name,
        f"has more than {MAX_PATH} characters": len(name) > MAX_PATH,
    }
    found = [trick for trick, there in tricks.items() if there]
    return (Status.SUSPECT, f"its path in the zip, {name[:100]!r}, {found[0]}") if found else None


def _trouble(info: zipfile.ZipInfo, twice: bool, shared: bool) -> Problem | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return _LINK if kind == stat.S_IFLNK else _NO_FILE
    if info.filename.endswith("/"):
        return None
    if twice:
        return Status.SUSPECT, "the zip holds this name more than once"
    if info.flag_bits & 0x2041:
        return unread("encrypted: hand it in without a password")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return unread("packed by a method that is not read: zip it with «deflate»")
    return unread("damaged: another file of the zip has the same bytes") if shared else None


def _overlapping(infos: list[zipfile.ZipInfo]) -> set[int]:
    """Where the entries begin that reach into the next, as those of a zip bomb do."""
    order = sorted(infos, key=lambda info: info.header_offset)
    return {
        a.header_offset
        for a, b in itertools.pairwise(order)
        if a.header_offset + 30 + a.compress_size > b.header_offset
    }


@contextlib.contextmanager
def _opened(path: Path):
    """An ordinary file; what became a link since fails, what became a pipe does not wait."""
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(path, "rb", opener=lambda name, mode: os.open(name, mode | flags)) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise Refused(_NO_FILE)
        yield stream


def _unpacked(stream: io.BufferedIOBase, entries: tuple[int, ...]) -> bytes:
    if not entries:
        return b"".join(_limited(stream))
    with zipfile.ZipFile(stream) as archive, archive.open(archive.infolist()[entries[0]]) as inner:
        content = b"".join(_limited(inner))
    return _unpacked(io.BytesIO(content), entries[1:])


def _limited(stream: io.BufferedIOBase) -> Iterator[bytes]:
    read = 0
    while block := stream.read(2**20):
        read += len(block)
        if read > MAX_FILE:
            raise Refused(_too_big(read))
        yield block


def _too_big(size: int) -> Problem:
    most = megabytes(MAX_FILE)
    return unread(f"{megabytes(size)}, more than the {most} that are read: clear its outputs")


def _ours(error: Exception) -> Problem:
    why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return Status.INFRA_ERROR, f"it cannot be read on this machine: {printable(why)[:200]}"
