"""JSON as others write it: read with its type, and its text writable afterwards."""

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

T = TypeVar("T")

# An escape of JSON, read from the left so that an escaped backslash is not taken for a beginning.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def decode(decoder: Callable[[bytes], T], body: bytes) -> T:
    """What `decoder` makes of the body. Half a surrogate pair in a text becomes U+FFFD.

    JSON's grammar allows such a half, and UTF-8 cannot write it: one name of one instance must
    not keep all others from being read or shown. Raises what `decoder` does for anything else.
    """
    try:
        return decoder(body)
    except msgspec.DecodeError:
        if b"\\ud" not in body and b"\\uD" not in body:
            raise
        return decoder(_ESCAPE.sub(_mend, body))


def _mend(escape: "re.Match[bytes]") -> bytes:
    return b"\\ufffd" if escape["half"] else escape[0]
