"""Standard output and error, whatever the one who started the program has made of them."""

import contextlib
import os
import sys
import threading
from typing import NoReturn

_given_up = False


def open_closed() -> None:
    """Give each standard stream that is closed (`>&-`) a place, before anything else takes it.

    A socket that became descriptor 1 would be written to; libuv ends a process that has none. What
    is printed to a closed output is an error, as anywhere; what is logged to a closed one is lost.
    """
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # the lowest that is free: this one
    # Python leaves out those that it has found closed.
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)


def write_stdout(data: bytes) -> None:
    """OSError where it cannot be written: a pipe's reader that went away, a full disk."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError:
        # What is left in the buffer would be tried once more at the exit, with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def print_out(text: str) -> bool:
    """What the program was asked to print; whether it could be, which is told if not."""
    try:
        write_stdout(text.encode())
    except OSError as exc:
        complain(f"cannot write to standard output: {exc.strerror}")
        return False
    return True


def complain(line: str) -> None:
    """Tell the person who started the program; where that cannot be done, the exit code says it."""
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def give_up() -> None:
    """A thread hangs in writing to a stream that nobody reads: a log driver that stalls."""
    global _given_up
    _given_up = True


class LastResort:
    """Ends the process where its proper end hangs: a thread that reads from a dead file server."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def arm(self, seconds: float, code: int) -> None:
        self._timer = threading.Timer(seconds, os._exit, (code,))
        self._timer.daemon = True
        self._timer.start()

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def leave(code: int) -> NoReturn:
    """End the process, without waiting for the streams if one was given up."""
    if _given_up:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)  # the interpreter's own end would wait for the thread's lock
    sys.exit(code)
