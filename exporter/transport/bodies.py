"""The body of an answer: whole, decoded, and within bounds."""

import zlib
from collections.abc import AsyncIterator

import httpx

from exporter.errors import BadResponseError
from exporter.transport.failures import quote

MAX_RESPONSE_BYTES = 10 * 1024 * 1024


async def read_body(response: httpx.Response) -> bytes:
    """The decoded body; BadResponseError as soon as it is over the bound, not after."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    assert isinstance(response.stream, httpx.AsyncByteStream)
    if encoding in ("", "identity"):
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.stream:
            size += len(chunk)
            if size > MAX_RESPONSE_BYTES:
                raise BadResponseError(_too_large())
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise BadResponseError(
            f"the body comes in an encoding that was not asked for: {quote(encoding)}"
        )
    return await _inflate(response.stream, gzip=encoding != "deflate")


async def _inflate(stream: AsyncIterator[bytes] | httpx.AsyncByteStream, *, gzip: bool) -> bytes:
    """A compressed body, though none was asked for. A bomb is noticed while it is inflated."""
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | (16 if gzip else 0))
    body = bytearray()
    received = 0
    try:
        async for chunk in stream:
            received += len(chunk)
            if received > MAX_RESPONSE_BYTES:
                raise BadResponseError(_too_large())
            body += inflater.decompress(chunk, MAX_RESPONSE_BYTES + 1 - len(body))
            if len(body) > MAX_RESPONSE_BYTES:
                raise BadResponseError(_too_large())
    except zlib.error as exc:
        raise BadResponseError(f"the compressed body is damaged: {exc}") from exc
    if not inflater.eof:
        raise BadResponseError("the compressed body ends too early")
    return bytes(body)


def _too_large() -> str:
    return f"the body is over {MAX_RESPONSE_BYTES // 1024 // 1024} MiB"
