"""Bodies in pieces, compressed, huge or damaged."""

import gzip
import zlib
from collections.abc import Callable
from functools import cache

import httpx
import pytest

from exporter.cloud.api import LIST_INSTANCES
from exporter.errors import (
    BadResponseError,
    Reason,
)
from exporter.transport.bodies import MAX_RESPONSE_BYTES
from tests.support.cloud_api import EMPTY, NOTHING, Api, Stream, answers, ok
from tests.support.virtual_time import Clock


async def test_a_body_in_pieces_is_put_together(clock: Clock) -> None:
    stream = Stream([EMPTY[:7], EMPTY[7:]])
    api = Api(lambda request: httpx.Response(200, stream=stream))
    assert await api.list_backups() == NOTHING
    assert stream.closed


async def test_a_huge_body_is_noticed_while_it_is_read(clock: Clock) -> None:
    stream = Stream(b" " * 65_536 for _ in range(10**6))
    api = Api(lambda request: httpx.Response(200, stream=stream))
    error = await api.fail()
    assert error.reason is Reason.BAD_RESPONSE
    assert error.message == "the body is over 10 MiB"
    assert MAX_RESPONSE_BYTES < stream.taken <= MAX_RESPONSE_BYTES + 65_536
    assert stream.closed
    assert len(api.requests) == 1
    assert api.errors == {Reason.BAD_RESPONSE: 1}


async def test_a_body_of_just_10_mib_is_read(clock: Clock) -> None:
    body = EMPTY + b" " * (10 * 1024 * 1024 - len(EMPTY))
    assert await Api(answers(ok(body))).list_backups() == NOTHING
    assert (await Api(answers(ok(body + b" "))).fail()).reason is Reason.BAD_RESPONSE


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("identity", bytes),
        ("", bytes),
    ],
)
async def test_a_body_that_is_compressed_unasked_is_read(
    clock: Clock, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    packed = compress(EMPTY)

    def answer(request: httpx.Request) -> httpx.Response:
        stream = Stream([packed[:5], packed[5:]])
        return httpx.Response(200, headers={"Content-Encoding": encoding}, stream=stream)

    assert await Api(answer).list_backups() == NOTHING


async def test_a_compressed_error_is_read_too(clock: Clock) -> None:
    body = gzip.compress(b'{"error_code": "DBS.200001", "error_msg": "bad"}')

    def answer(request: httpx.Request) -> httpx.Response:
        headers = {"Content-Encoding": "gzip"}
        return httpx.Response(400, headers=headers, stream=Stream([body]))

    assert (await Api(answer).fail()).message == "HTTP 400: DBS.200001 bad"


@cache
def bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(b" " * 2**20) for _ in range(megabytes)]
    return b"".join([*parts, packer.flush()])


@pytest.mark.parametrize("pieces", [1, 50])
async def test_a_bomb_does_not_go_off(clock: Clock, pieces: int) -> None:
    packed = bomb(150)
    size = -(-len(packed) // pieces)
    stream = Stream(packed[start : start + size] for start in range(0, len(packed), size))

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=stream)

    error = await Api(answer).fail()
    assert error.message == "the body is over 10 MiB"
    assert stream.taken <= len(packed) // pieces * max(1, pieces // 10) + size


async def test_what_follows_a_compressed_body_is_bounded_as_well(clock: Clock) -> None:
    packed = gzip.compress(EMPTY)
    stream = Stream(packed if n == 0 else b"\0" * 65_536 for n in range(10**6))

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=stream)

    assert (await Api(answer).fail()).message == "the body is over 10 MiB"
    assert stream.taken <= MAX_RESPONSE_BYTES + 2 * 65_536


@pytest.mark.parametrize(
    ("encoding", "body", "message"),
    [
        ("gzip", gzip.compress(EMPTY, mtime=0)[:-9], "ends too early"),
        ("gzip", b"", "ends too early"),
        ("gzip", EMPTY, "is damaged"),
        ("deflate", b"\x00\x01", "is damaged"),
        ("br", EMPTY, "not asked for: br"),
        ("zstd", EMPTY, "not asked for: zstd"),
        ("gzip, gzip", EMPTY, "not asked for: gzip, gzip"),
    ],
)
async def test_a_body_that_cannot_be_unpacked_makes_no_sense(
    clock: Clock, encoding: str, body: bytes, message: str
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, headers={"Content-Encoding": encoding}, stream=Stream([body] if body else [])
        )

    error = await Api(answer).fail()
    assert error.reason is Reason.BAD_RESPONSE
    assert message in error.message


async def test_an_answer_that_makes_no_sense_is_left_to_who_counts_it(clock: Clock) -> None:
    """The exchange itself went well: the error is not counted yet."""
    api = Api(answers(ok(b'{"instances": 5}')))
    with pytest.raises(BadResponseError) as caught:
        await api.client.fetch_instances(version="v3", offset=0, query=api.query)
    assert not caught.value.counted
    assert api.errors == {}
    assert [operation for operation, _ in api.observed] == [LIST_INSTANCES]
    assert len(api.requests) == 1
