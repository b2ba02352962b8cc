"""Errors and kills at chosen system calls, by Linux's own means: seccomp's user notifications (kernel 5.0 or newer).

A child asks for a filter; every call on the list then waits until its parent, the supervisor, has said whether it goes
on, fails with an error, or the child dies. That reaches the calls of SQLite and USearch too, and needs no package and
no rights. See seccomp_unotify(2).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

_NUMBERS = {  # asm/unistd_64.h, asm-generic/unistd.h
    "x86_64": {
        "seccomp": 317, "write": 1, "pwrite64": 18, "writev": 20, "fsync": 74, "fdatasync": 75, "ftruncate": 77,
        "rename": 82, "renameat2": 316, "mkdir": 83, "unlink": 87, "unlinkat": 263, "rmdir": 84, "sendfile": 40,
        "copy_file_range": 326, "openat": 257, "fallocate": 285,
    },
    "aarch64": {
        "seccomp": 277, "write": 64, "pwrite64": 68, "writev": 66, "fsync": 82, "fdatasync": 83, "ftruncate": 46,
        "renameat": 38, "renameat2": 276, "mkdirat": 34, "unlinkat": 35, "sendfile": 71, "copy_file_range": 285,
        "openat": 56, "fallocate": 47,
    },
}  # fmt: skip
_OF_A_HANDLE = {
    "write",
    "pwrite64",
    "writev",
    "fsync",
    "fdatasync",
    "ftruncate",
    "sendfile",
    "copy_file_range",
    "fallocate",
}
_PR_SET_NO_NEW_PRIVS, _SET_MODE_FILTER, _NEW_LISTENER = 38, 1, 8
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06
_RECEIVE, _SEND, _CONTINUE = 0xC0502100, 0xC0182101, 1
_REQUEST = "QIIiIQ6Q"

CALLS = tuple(name for name in _NUMBERS.get(platform.machine(), {}) if name != "seccomp")
AVAILABLE = sys.platform == "linux" and bool(CALLS)


class _Step(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("value", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("steps", ctypes.POINTER(_Step)))


def ask_for_filter(supervisor: socket.socket) -> None:
    """Let every later call on the list wait for the supervisor, who gets the listener through a socket."""
    numbers = [_NUMBERS[platform.machine()][name] for name in CALLS]
    count = len(numbers)
    program = [(_LOAD, 0, 0, 0), *((_EQUALS, count - at, 0, number) for at, number in enumerate(numbers))]
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOTIFY)]
    steps = (_Step * len(program))(*(_Step(*step) for step in program))
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    listener = library.syscall(
        _NUMBERS[platform.machine()]["seccomp"],
        _SET_MODE_FILTER,
        _NEW_LISTENER,
        ctypes.byref(_Program(len(program), steps)),
    )
    if listener < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "seccomp")
    socket.send_fds(supervisor, [b"listener"], [listener])
    os.close(listener)


def supervise(child: socket.socket, root: Path, decide: Callable[[str], int | None]) -> list[str]:
    """Answer for each call of a child that changes something below a folder, until the child ends; return their names.

    Args:
        child: the socket that the listener comes through.
        root: calls on open files elsewhere go on unseen.
        decide: returns 0 to let a call of this name go on, an error number to fail it, None to kill the child there.
    """
    _, (listener,), _, _ = socket.recv_fds(child, 16, 1)
    names = {number: name for name, number in _NUMBERS[platform.machine()].items()}
    seen: list[str] = []
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    try:
        while True:
            if poll.poll()[0][1] & select.POLLIN == 0:  # nobody is left who could call
                return seen
            request = bytearray(struct.calcsize(_REQUEST))
            try:
                fcntl.ioctl(listener, _RECEIVE, request, True)
            except FileNotFoundError:  # the child died meanwhile
                continue
            number, process, _, call, _, _, *arguments = struct.unpack(_REQUEST, request)
            name, fault = names[call], 0
            if _counts(name, process, arguments, root):
                seen.append(name)
                answer = decide(name)
                if answer is None:
                    os.kill(process, signal.SIGKILL)
                    continue
                fault = answer
            try:
                fcntl.ioctl(listener, _SEND, struct.pack("QqiI", number, 0, -fault, 0 if fault else _CONTINUE))
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
    finally:
        os.close(listener)


def _counts(name: str, process: int, arguments: list[int], root: Path) -> bool:
    if name == "openat":
        return bool(arguments[2] & os.O_CREAT)
    if name not in _OF_A_HANDLE:
        return True
    handle = arguments[2] if name == "copy_file_range" else arguments[0]
    try:
        return Path(f"/proc/{process}/fd/{handle}").readlink().is_relative_to(root)
    except OSError:
        return False
