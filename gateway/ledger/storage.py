"""The file operations that a log depends on, in one object, so that a test can let a disk fail.

What is special about them is said here once: a new file exists after a power loss only if its directory was synced
too, and a failed sync must never be repeated on the same file, because the kernel may have dropped the pages and will
report success (that decision is `tail`'s).
"""

import os
from pathlib import Path

_CREATE = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC

# macOS has no fdatasync.
_sync_data = getattr(os, "fdatasync", os.fsync)


class SegmentIO:
    """The operating system's files. A test overrides what shall fail."""

    def create(self, path: Path) -> int:
        """A descriptor that appends to a new file; the file must not exist."""
        return os.open(path, _CREATE, 0o640)

    def append_to(self, path: Path) -> int:
        """A descriptor that appends to an existing file."""
        return os.open(path, _APPEND)

    def write(self, descriptor: int, data: bytes) -> int:
        return os.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        _sync_data(descriptor)

    def sync_directory(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def truncate(self, path: Path, length: int) -> None:
        """Cut a file and make the cut durable."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, length)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def write_over(self, path: Path) -> int:
        """A descriptor for a file that is begun anew, whatever a crash left under its name."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)

    def rename(self, path: Path, to: Path) -> None:
        os.replace(path, to)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def free_bytes(self, path: Path) -> int:
        """Bytes an unprivileged process may still write on the file system of `path`."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize


def write_all(io: SegmentIO, descriptor: int, data: bytes) -> None:
    """One write; the rest of a short one (a disk about to be full) is tried again, so that the real error shows."""
    written = io.write(descriptor, data)
    while written < len(data):
        written += io.write(descriptor, data[written:])
