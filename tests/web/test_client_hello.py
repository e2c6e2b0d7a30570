"""The beginning of a handshake, as clients and attackers write it."""

import functools
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.web.client_hello import MAX_HELLO_BYTES, read_groups

SECP256R1, SECP521R1, X25519 = 23, 25, 29  # RFC 8446, 4.2.7


@functools.cache  # all authorities of this machine are read for each
def hello(curve: str | None = None) -> bytes:
    """What OpenSSL says first."""
    context = ssl.create_default_context()
    if curve is not None:
        context.set_ecdh_curve(curve)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="exporter.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    ("curve", "groups"),
    [("prime256v1", [SECP256R1]), ("secp521r1", [SECP521R1]), ("X25519", [X25519])],
)
def test_the_groups_that_openssl_offers_are_read(curve: str, groups: list[int]) -> None:
    assert read_groups(hello(curve)) == groups


def test_more_is_waited_for_until_the_hello_is_complete() -> None:
    said = hello()
    assert {read_groups(said[:length]) for length in range(len(said))} == {None}
    assert SECP256R1 in (read_groups(said) or ())


def test_a_hello_may_come_in_many_records() -> None:
    said = hello("prime256v1")
    records = b"".join(b"\x16\x03\x01\x00\x01" + bytes([byte]) for byte in said[5:])
    assert read_groups(records) == [SECP256R1]
    assert read_groups(records[:-1]) is None


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff" + bytes(65535),
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03",
    ],
)
def test_nonsense_names_no_groups(nonsense: bytes) -> None:
    assert read_groups(nonsense) == ()


def test_a_hello_without_end_is_not_waited_for() -> None:
    record = b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" + bytes(16380)
    assert read_groups(record * (MAX_HELLO_BYTES // 16384)) is None
    assert read_groups(record * (MAX_HELLO_BYTES // 16384 + 1)) == ()


@given(st.binary(max_size=600), st.integers(0, 300), st.binary(max_size=8))
def test_whatever_is_said_is_read_or_not_and_raises_nothing(
    said: bytes, at: int, put: bytes
) -> None:
    read_groups(said)
    spoiled = hello()
    read_groups(spoiled[:at] + put + spoiled[at + len(put) :])
