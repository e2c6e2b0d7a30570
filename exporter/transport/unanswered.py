"""Why no answer came: what the network, TLS or a proxy did, whom it concerns, what to do."""

import errno
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import aiohttp
import httpx

from exporter.errors import (
    ApiError,
    BadResponseError,
    RateLimitedError,
    Reason,
    UnavailableError,
)
from exporter.transport.backoff import parse_retry_after
from exporter.transport.failures import PROXY_ACCESS_HINT, quote


@dataclass(frozen=True, slots=True)
class Way:
    """Where a request goes: to whom, and by way of which proxy (without its password)."""

    host: str  # with the port where it is not the scheme's own
    is_https: bool = True
    proxy: str = ""

    @property
    def to(self) -> str:
        return f"{self.host} by way of the proxy {self.proxy}" if self.proxy else self.host

    def asked(self, unresolved: str) -> str:
        """Who is to answer next: the DNS, as long as a name is `unresolved`."""
        return f"the DNS for {self.name_of(unresolved)}" if unresolved else self.to

    def name_of(self, name: str) -> str:
        return f"the proxy's name {name}" if self.proxy else f"the name {name}"


_RESOLVER_HINT = (
    "check this machine's resolver (/etc/resolv.conf) and the way to it (firewall, port 53)"
)


class TunnelError(aiohttp.ClientConnectionError):
    """The proxy did not answer CONNECT as HTTP wants; the cause says how."""


def timed_out(way: Way, seconds: float, *, begun: bool, unresolved: str) -> ApiError:
    """The whole of an exchange took longer than it may; the answer may have `begun`, or the DNS
    not even answered for the name that is `unresolved`."""
    if unresolved:
        return UnavailableError(
            f"the DNS did not answer for {way.name_of(unresolved)} within {seconds:g} s",
            reason=Reason.TIMEOUT,
            hint=_RESOLVER_HINT,
        )
    if begun:
        return UnavailableError(
            f"the answer of {way.to} did not end within {seconds:g} s",
            reason=Reason.TIMEOUT,
            hint="the endpoint or a proxy is slow, or stops in the middle: raise api.timeout if it"
            " is only slow",
        )
    return UnavailableError(
        f"no answer from {way.to} within {seconds:g} s",
        reason=Reason.TIMEOUT,
        hint="firewall, proxy, security group? Something may drop what is sent there; where the"
        " endpoint is only slow, raise api.timeout",
    )


def network_error(exc: Exception, way: Way, *, now: float) -> ApiError:
    """What kept an answer from coming, of all that aiohttp, httpx and the system raise."""
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        return _refused_tunnel(exc, way, now)
    if isinstance(exc, TunnelError):
        return _broken_tunnel(exc, way)
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        return _unknown_name(exc, way)
    for cause in causes(exc):
        if isinstance(cause, aiohttp.ClientError):
            continue  # of the same classes as what it wraps, but without its facts
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _bad_certificate(cause, way)
        if isinstance(cause, ssl.SSLError):
            return _failed_handshake(cause, way)
    if isinstance(exc, aiohttp.ClientProxyConnectionError):
        what, _ = _system_error(exc, way.proxy)
        return _no_network(
            f"the proxy cannot be reached: {what}",
            f"is api.proxy_url right, and does the proxy run? {way.host} itself was not asked",
        )
    if isinstance(exc, aiohttp.ClientResponseError):
        return _no_http(exc, way)
    if any(isinstance(cause, aiohttp.ClientPayloadError) for cause in causes(exc)):
        return _no_network(
            f"{way.to} closed the connection in the middle of its answer",
            "a server, proxy or firewall on the way ends connections too early",
        )
    return _no_network(*_system_error(exc, way.to))


def causes(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__


def _no_network(message: str, hint: str, status: int | None = None) -> ApiError:
    return UnavailableError(message, reason=Reason.NETWORK, hint=hint, status=status)


# The proxy -------------------------------------------------------------------------------------


def _proxy_hint(status: int, way: Way) -> str:
    """What to do about a proxy that answers for itself."""
    if status == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
        return PROXY_ACCESS_HINT
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return "the proxy limits how often it may be asked: lower api.rate_limit, or ask its owner"
    if status >= 500:
        return f"the proxy does not reach {way.host}: can it resolve that name and connect to it?"
    return f"the proxy must allow CONNECT to {way.host}: ask its owner, or look at its log"


def _refused_tunnel(exc: aiohttp.ClientHttpProxyError, way: Way, now: float) -> ApiError:
    said = " ".join(filter(None, (f"HTTP {exc.status}", quote(exc.message))))
    message = f"the proxy {way.proxy} answered CONNECT to {way.host} with {said}"
    hint = _proxy_hint(exc.status, way)
    named = exc.headers.get("Retry-After") if exc.headers is not None else None
    retry_after = parse_retry_after(named, now=now)
    if exc.status == httpx.codes.TOO_MANY_REQUESTS:
        return RateLimitedError(message, hint=hint, status=exc.status, retry_after=retry_after)
    error = _no_network(message, hint, exc.status)
    if exc.status == httpx.codes.SERVICE_UNAVAILABLE:
        error.retry_after = retry_after
    return error


def _broken_tunnel(exc: TunnelError, way: Way) -> ApiError:
    if isinstance(exc.__cause__, aiohttp.ClientResponseError):
        what = f"the proxy {way.proxy} answered CONNECT to {way.host} with something else than HTTP"
    else:
        what = f"the proxy {way.proxy} closed the connection when asked for {way.host}"
    return _no_network(what, "is api.proxy_url the address of an HTTP proxy? Look at its log")


# TLS -------------------------------------------------------------------------------------------

_OTHER_NAME = frozenset({62, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_NOT_YET_VALID, _EXPIRED = 9, 10
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"})
_NO_VERSION = frozenset(
    {
        "TLSV1_ALERT_PROTOCOL_VERSION",
        "UNSUPPORTED_PROTOCOL",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "NO_PROTOCOLS_AVAILABLE",
        "DH_KEY_TOO_SMALL",
    }
)


def _bad_certificate(exc: ssl.SSLCertVerificationError, way: Way) -> ApiError:
    said = quote(exc.verify_message or str(exc)).rstrip(".")
    if exc.verify_code in _OTHER_NAME:
        return _no_network(
            f"the certificate of {way.host} is for another name: {said}",
            "is it the right endpoint? A proxy or firewall that opens TLS, or a name of your own"
            " for the endpoint, needs a certificate for just that name",
        )
    if exc.verify_code == _EXPIRED:
        return _no_network(
            f"the certificate of {way.host} is out of date: {said}",
            "renew it where it is served; where it is valid for others, set this machine's clock",
        )
    if exc.verify_code == _NOT_YET_VALID:
        return _no_network(
            f"the certificate of {way.host} is not valid yet: {said}",
            "set this machine's clock; where that is right, the certificate came too early",
        )
    return _no_network(
        f"the certificate of {way.host} is not trusted: {said}",
        "name the authority that signed it in api.ca_file; if you expect a public one, a proxy or"
        " firewall on the way opens TLS",
    )


def _failed_handshake(exc: ssl.SSLError, way: Way) -> ApiError:
    code, said = exc.reason or "", quote(str(exc))
    if code in _NO_TLS:
        return _no_network(
            f"{way.host} does not speak TLS: https was sent to a port of plain http",
            "write http:// in the endpoint, or the port that speaks https",
        )
    if code in _NO_VERSION:
        return _no_network(
            f"{way.host} and this program have no version of TLS in common: {said}",
            "TLS 1.2 or newer is needed there",
        )
    if "CERTIFICATE_REQUIRED" in code:
        return _no_network(
            f"{way.host} asks for a client's certificate",
            "no endpoint of the cloud does: is it the right address?",
        )
    return _no_network(
        f"the TLS handshake with {way.host} failed: {said}",
        "is it the right address and port? A firewall may cut what it does not know",
    )


_TLS_RECORD = re.compile(r"b['\"]\\+x1[56]\\+x03")  # an alert or a handshake, as aiohttp shows it


def _no_http(exc: aiohttp.ClientResponseError, way: Way) -> ApiError:
    said = str(exc.message)
    if not way.is_https and _TLS_RECORD.search(said):
        return BadResponseError(
            f"{way.host} answers plain http with TLS", hint="write https:// in the endpoint"
        )
    return BadResponseError(
        f"not an HTTP answer of {way.host}: {quote(said)}",
        hint="is it the right address and port?",
    )


# Names and addresses ---------------------------------------------------------------------------

_NO_SUCH_NAME = frozenset(
    code
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY")
    if (code := getattr(socket, name, None)) is not None
)


def _unknown_name(exc: aiohttp.ClientConnectorDNSError, way: Way) -> ApiError:
    name = way.name_of(quote(exc.host))
    setting = "api.proxy_url" if way.proxy else "the endpoint"
    said = quote(exc.strerror or str(exc.os_error))
    if exc.errno in _NO_SUCH_NAME:
        return _no_network(
            f"the DNS knows no address of {name}: {said}",
            f"check the spelling in {setting}; a private name needs the resolver that knows it",
        )
    return _no_network(
        f"the DNS did not answer for {name}: {said}",
        _RESOLVER_HINT,
    )


# By the number that the system gives: what happened (after the host), and what to do.
_SYSTEM_ERRORS = {
    errno.ECONNREFUSED: (
        "refused the connection",
        "nothing listens on that port, or a firewall refuses it: check address and port",
    ),
    errno.ECONNRESET: (
        "reset the connection",
        "a firewall, proxy or server on the way cuts it; a port that speaks no TLS does so too",
    ),
    errno.ENETUNREACH: (
        "is unreachable: no route to its network",
        "check routes, VPN and gateway of this machine",
    ),
    errno.EHOSTUNREACH: (
        "is unreachable: no route to it",
        "check routes, VPN, firewall and security group",
    ),
    errno.ETIMEDOUT: (
        "did not answer: the connection timed out",
        "firewall, proxy, security group? Something drops what is sent there",
    ),
    errno.EMFILE: (
        "was not asked: this process has too many open files",
        "raise its limit (ulimit -n, LimitNOFILE=) or lower api.max_connections",
    ),
    errno.EADDRNOTAVAIL: (
        "was not asked: this machine has no free port or no address for it",
        "check its addresses, and how many connections it holds",
    ),
    errno.EACCES: (
        "was not asked: this machine forbids it",
        "check its firewall, network policy and SELinux",
    ),
}
_SYSTEM_ERRORS |= {
    errno.EPIPE: _SYSTEM_ERRORS[errno.ECONNRESET],
    errno.ECONNABORTED: _SYSTEM_ERRORS[errno.ECONNRESET],
    errno.ENETDOWN: _SYSTEM_ERRORS[errno.ENETUNREACH],
    errno.EHOSTDOWN: _SYSTEM_ERRORS[errno.EHOSTUNREACH],
    errno.ENFILE: _SYSTEM_ERRORS[errno.EMFILE],
    errno.EPERM: _SYSTEM_ERRORS[errno.EACCES],
}


def _system_error(exc: Exception, address: str) -> tuple[str, str]:
    """What happened at `address`, and what to do."""
    for cause in causes(exc):
        number = cause.errno if isinstance(cause, OSError) else None
        if number is not None and number in _SYSTEM_ERRORS:
            what, hint = _SYSTEM_ERRORS[number]
            return f"{address} {what}", hint
        if isinstance(cause, aiohttp.ServerDisconnectedError):
            return (
                f"{address} closed the connection without an answer",
                "a proxy, a firewall, or a port that speaks another protocol (https?)",
            )
        if isinstance(cause, ConnectionError) and not isinstance(cause, aiohttp.ClientError):
            # Of uvloop, without a number: the end has come before TLS was agreed upon.
            return (
                f"{address} closed the connection in the middle of the TLS handshake",
                "a firewall or proxy that does not let this name through, or a port without TLS",
            )
    return (
        f"the connection to {address} failed: {quote(str(exc)) or type(exc).__name__}",
        "is the endpoint right, and reachable from here (DNS, firewall, proxy)?",
    )
