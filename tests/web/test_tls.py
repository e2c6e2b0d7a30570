"""TLS as clients meet it."""

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
import ssl
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from exporter.web.client_limits import ClientLimits
from exporter.web.live_config import LoadedWebConfig
from exporter.web.tls_context import parse_sans
from tests.support.certificates import Authority, Issued
from tests.support.front import (
    Front,
    connections_of,
    is_closed,
    read_response,
    request,
    respond,
    serving,
)


class Guarded:
    """A folder with a CA, the server's certificate and a web configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.server = self.authority.issue("server")
        self.path = folder / "web.yml"

    def load(self, tls: str = "", rest: str = "") -> LoadedWebConfig:
        self.write(tls, rest)
        return LoadedWebConfig(self.path)

    def write(self, tls: str = "", rest: str = "") -> None:
        new = self.folder / "web.new"
        new.write_text(
            "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
            + "".join(f"  {line}\n" for line in tls.splitlines())
            + rest
        )
        os.replace(new, self.path)

    def client(self, certificate: Issued | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.cert_file))
        if certificate is not None:
            context.load_cert_chain(certificate.cert_file, certificate.key_file)
        return context


@pytest.fixture
def guarded(tmp_path: Path) -> Guarded:
    return Guarded(tmp_path)


CLIENT_CERTIFICATES = "client_ca_file: test-CA.crt\nclient_auth_type: RequireAndVerifyClientCert\n"


async def serial_number(front: Front, tls: ssl.SSLContext) -> int:
    _, writer = await front.connect(tls)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(shown).serial_number


async def test_a_request_over_tls_is_answered(guarded: Guarded) -> None:
    async with serving(web_config=guarded.load()) as front:
        status, _, body = await front.get(tls=guarded.client())
    assert (status, body) == (200, b"hello")


def limited(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = version
    return context


@pytest.mark.parametrize(
    ("minimum", "version", "allowed"),
    [
        ("TLS13", ssl.TLSVersion.TLSv1_3, True),
        ("TLS13", ssl.TLSVersion.TLSv1_2, False),
        ("TLS12", ssl.TLSVersion.TLSv1_2, True),
        ("TLS12", ssl.TLSVersion.TLSv1_1, False),
        ("TLS11", ssl.TLSVersion.TLSv1_1, True),
        ("TLS11", ssl.TLSVersion.TLSv1, False),
    ],
)
async def test_the_minimum_version_is_enforced(
    guarded: Guarded, minimum: str, version: ssl.TLSVersion, allowed: bool
) -> None:
    async with serving(web_config=guarded.load(f"min_version: {minimum}")) as front:
        client = limited(guarded.client(), version)
        if allowed:
            assert (await front.get(tls=client))[0] == 200
        else:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await front.get(tls=client)
        assert (await front.get(tls=guarded.client()))[0] == 200


async def test_the_maximum_version_is_enforced(guarded: Guarded) -> None:
    async with serving(web_config=guarded.load("max_version: TLS12")) as front:
        _, writer = await front.connect(guarded.client())
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.2"


async def refusal(front: Front, tls: ssl.SSLContext) -> str:
    """OpenSSL's reason on the client's side: the alert that the server has sent."""
    with pytest.raises(ssl.SSLError) as raised:
        # In TLS 1.3 the client is through before the server has looked at its certificate.
        await front.get(tls=tls)
    return raised.value.reason or ""


def failures(logs: Sequence[Mapping[str, object]]) -> list[object]:
    return [entry["cause"] for entry in logs if entry["event"] == "TLS handshake failed"]


async def test_a_client_without_a_certificate_is_told_so(guarded: Guarded) -> None:
    with capture_logs() as logs:
        async with serving(web_config=guarded.load(CLIENT_CERTIFICATES)) as front:
            told = await refusal(front, guarded.client())
    assert told == "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    assert failures(logs) == ["peer did not return a certificate"]


async def test_a_client_with_a_certificate_of_another_ca_is_told_so(
    guarded: Guarded, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "another CA").issue("stranger", client=True)
    with capture_logs() as logs:
        async with serving(web_config=guarded.load(CLIENT_CERTIFICATES)) as front:
            told = await refusal(front, guarded.client(stranger))
    assert told == "TLSV1_ALERT_UNKNOWN_CA"
    assert failures(logs) == [
        "client certificate not accepted: unable to get local issuer certificate"
    ]


async def test_a_client_that_speaks_an_old_version_only_is_told_so(guarded: Guarded) -> None:
    with capture_logs() as logs:
        async with serving(web_config=guarded.load("min_version: TLS13")) as front:
            told = await refusal(front, limited(guarded.client(), ssl.TLSVersion.TLSv1_2))
    assert told == "TLSV1_ALERT_PROTOCOL_VERSION"
    assert failures(logs) == ["unsupported protocol"]


def shake_hands(port: int, tls: ssl.SSLContext) -> None:
    """As most clients do it: asyncio's own does not say what it dislikes."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
        tls.wrap_socket(plain, server_hostname="127.0.0.1").close()


async def test_a_client_that_does_not_believe_the_certificate_leaves_a_line(
    guarded: Guarded,
) -> None:
    with capture_logs() as logs:
        async with serving(web_config=guarded.load()) as front:
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.to_thread(shake_hands, front.port, ssl.create_default_context())
            await front.get(tls=guarded.client())
    assert failures(logs) == ["tlsv1 alert unknown ca"]


async def test_who_only_looks_whether_the_port_is_open_leaves_no_line(guarded: Guarded) -> None:
    with capture_logs() as logs:
        async with serving(web_config=guarded.load()) as front:
            for _ in range(3):
                _, writer = await front.connect()
                writer.close()
                await writer.wait_closed()
            await front.get(tls=guarded.client())
    assert failures(logs) == []


async def test_the_same_failure_again_and_again_is_said_once(guarded: Guarded) -> None:
    with capture_logs() as logs:
        async with serving(web_config=guarded.load(CLIENT_CERTIFICATES)) as front:
            for _ in range(5):
                await refusal(front, guarded.client())
    assert failures(logs) == ["peer did not return a certificate"]


async def test_plain_http_is_answered_with_what_to_do(guarded: Guarded) -> None:
    with capture_logs() as logs:
        async with serving(web_config=guarded.load()) as front:
            reader, writer = await front.connect()
            status, headers, body = await request(reader, writer)
            assert (status, headers["connection"]) == (400, "close")
            assert body == b"Client sent an HTTP request to an HTTPS server.\r\n"
            assert await is_closed(reader)
            assert (await front.get(tls=guarded.client()))[0] == 200
    assert failures(logs) == ["the client speaks plain HTTP"]


async def test_nonsense_is_answered_with_an_alert(guarded: Guarded) -> None:
    async with serving(web_config=guarded.load()) as front:
        reader, writer = await front.connect()
        writer.write(b"\x16\x03\x01\x00\x05hello")
        assert (await reader.read())[:1] == b"\x15"  # a record of the kind "alert"


async def test_a_client_with_a_certificate_of_the_ca_is_let_in(guarded: Guarded) -> None:
    prometheus = guarded.authority.issue("prometheus", client=True)
    async with serving(web_config=guarded.load(CLIENT_CERTIFICATES)) as front:
        assert (await front.get(tls=guarded.client(prometheus)))[0] == 200


async def test_a_certificate_for_servers_does_not_let_a_client_in(guarded: Guarded) -> None:
    async with serving(web_config=guarded.load(CLIENT_CERTIFICATES)) as front:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await front.get(tls=guarded.client(guarded.server))


async def test_verify_if_given_lets_in_who_has_none_and_refuses_who_has_a_wrong_one(
    guarded: Guarded, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "another CA").issue("stranger", client=True)
    tls = "client_ca_file: test-CA.crt\nclient_auth_type: VerifyClientCertIfGiven"
    async with serving(web_config=guarded.load(tls)) as front:
        assert (await front.get(tls=guarded.client()))[0] == 200
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await front.get(tls=guarded.client(stranger))


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        (x509.DNSName("prometheus.example"), True),
        (x509.RFC822Name("sre@example.com"), True),
        (x509.IPAddress(ipaddress.ip_address("2001:db8::1")), True),
        (x509.DNSName("other.example"), False),
        (x509.UniformResourceIdentifier("spiffe://prometheus.example"), False),
    ],
)
async def test_only_the_named_clients_are_let_in(
    guarded: Guarded, name: x509.GeneralName, allowed: bool
) -> None:
    sans = "client_allowed_sans: [prometheus.example, sre@example.com, '2001:db8::1']"
    client = guarded.authority.issue("client", client=True, sans=(name,))
    async with serving(web_config=guarded.load(CLIENT_CERTIFICATES + sans)) as front:
        if allowed:
            assert (await front.get(tls=guarded.client(client)))[0] == 200
        else:
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await front.get(tls=guarded.client(client))


@pytest.mark.parametrize("auth", ["RequireAndVerifyClientCert", "VerifyClientCertIfGiven"])
async def test_an_empty_list_of_names_lets_nobody_in(guarded: Guarded, auth: str) -> None:
    client = guarded.authority.issue("client", client=True)
    tls = f"client_ca_file: test-CA.crt\nclient_auth_type: {auth}\nclient_allowed_sans: []"
    with capture_logs() as logs:
        async with serving(web_config=guarded.load(tls)) as front:
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await front.get(tls=guarded.client(client))
    assert failures(logs) == [
        "client certificate not among client_allowed_sans: it names 127.0.0.1, localhost"
    ]


async def test_who_has_no_certificate_has_none_of_the_names(guarded: Guarded) -> None:
    tls = (
        "client_ca_file: test-CA.crt\nclient_auth_type: VerifyClientCertIfGiven\n"
        "client_allowed_sans: [prometheus.example]"
    )
    async with serving(web_config=guarded.load(tls)) as front:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await front.get(tls=guarded.client())


async def test_without_a_client_ca_the_systems_roots_decide(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = guarded.authority.issue("client", client=True)
    tls = "client_auth_type: VerifyClientCertIfGiven"
    async with serving(web_config=guarded.load(tls)) as front:
        assert (await front.get(tls=guarded.client()))[0] == 200
        assert await refusal(front, guarded.client(client)) == "TLSV1_ALERT_UNKNOWN_CA"
    monkeypatch.setenv("SSL_CERT_FILE", str(guarded.authority.cert_file))
    async with serving(web_config=guarded.load(tls)) as front:
        assert (await front.get(tls=guarded.client(client)))[0] == 200


async def test_pem_may_stand_in_the_file_itself(guarded: Guarded) -> None:
    client = guarded.authority.issue("client", client=True)
    files = {
        "cert": guarded.server.cert_file,
        "key": guarded.server.key_file,
        "client_ca": guarded.authority.cert_file,
    }
    guarded.path.write_text(
        "tls_server_config:\n  client_auth_type: RequireAndVerifyClientCert\n"
        + "".join(
            f"  {key}: |\n{textwrap.indent(file.read_text(), '    ')}"
            for key, file in files.items()
        )
    )
    for file in files.values():
        file.rename(file.with_suffix(".away"))
    trusting = ssl.create_default_context(cafile=str(guarded.folder / "test-CA.away"))
    trusting.load_cert_chain(client.cert_file, client.key_file)
    async with serving(web_config=LoadedWebConfig(guarded.path)) as front:
        assert (await front.get(tls=trusting))[0] == 200


def with_curve(context: ssl.SSLContext, name: str) -> ssl.SSLContext:
    context.set_ecdh_curve(name)
    return context


@pytest.mark.parametrize("preferences", ["[CurveP521]", "[CurveP384, CurveP521]"])
async def test_only_the_named_curves_are_taken(guarded: Guarded, preferences: str) -> None:
    async with serving(web_config=guarded.load(f"curve_preferences: {preferences}")) as front:
        assert (await front.get(tls=with_curve(guarded.client(), "secp521r1")))[0] == 200
        told = await refusal(front, with_curve(guarded.client(), "X25519"))
        assert told.endswith("ALERT_HANDSHAKE_FAILURE")


async def test_the_curves_are_for_older_versions_too(guarded: Guarded) -> None:
    tls = "curve_preferences: [CurveP384, CurveP256]\nmax_version: TLS12"
    async with serving(web_config=guarded.load(tls)) as front:
        assert (await front.get(tls=guarded.client()))[0] == 200
        told = await refusal(front, with_curve(guarded.client(), "X25519"))
        assert told.endswith("ALERT_HANDSHAKE_FAILURE")


async def test_a_client_that_says_hello_byte_by_byte_is_understood(guarded: Guarded) -> None:
    tls = guarded.load("curve_preferences: [CurveP384, CurveP256]")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = guarded.client().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    async with serving(web_config=tls) as front:
        reader, writer = await front.connect()
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                for byte in outgoing.read():
                    writer.write(bytes([byte]))
                    await writer.drain()
                incoming.write(await reader.read(65536))
        client.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        writer.write(outgoing.read())
        answer = b""
        while b"hello" not in answer:
            incoming.write(await reader.read(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                while True:
                    answer += client.read()
    assert answer.startswith(b"HTTP/1.1 200 OK")


def test_a_certificate_without_alternative_names_has_none() -> None:
    assert parse_sans({"subject": ()}) == frozenset()
    assert parse_sans(None) == frozenset()


async def test_a_renewed_certificate_is_shown_to_the_next_client(guarded: Guarded) -> None:
    async with serving(web_config=guarded.load()) as front:
        kept = await front.connect(guarded.client())
        assert await serial_number(front, guarded.client()) == guarded.server.serial_number
        renewed = guarded.authority.issue("server")
        assert renewed.serial_number != guarded.server.serial_number
        assert await serial_number(front, guarded.client()) == renewed.serial_number
        assert (await request(*kept))[0] == 200


async def test_a_client_ca_that_is_taken_away_lets_nobody_in_any_more(guarded: Guarded) -> None:
    client = guarded.authority.issue("client", client=True)
    async with serving(web_config=guarded.load(CLIENT_CERTIFICATES)) as front:
        assert (await front.get(tls=guarded.client(client)))[0] == 200
        Authority(guarded.folder, "next CA")
        guarded.write(CLIENT_CERTIFICATES.replace("test-CA", "next-CA"))
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await front.get(tls=guarded.client(client))


async def test_a_broken_renewal_keeps_the_old_certificate(guarded: Guarded) -> None:
    async with serving(web_config=guarded.load()) as front:
        guarded.server.key_file.write_text("broken")
        assert await serial_number(front, guarded.client()) == guarded.server.serial_number


async def test_handshakes_that_do_not_end_do_not_stop_a_scrape(guarded: Guarded) -> None:
    config = guarded.load()
    async with serving(web_config=config, limits=ClientLimits(connections=20)) as front:
        halves = [await front.connect() for _ in range(60)]
        for _, writer in halves[::2]:
            writer.write(b"\x16\x03\x01\x02\x00\x01")
        status, _, _ = await front.get(tls=guarded.client())
        assert await is_closed(halves[0][0])
    assert status == 200


async def test_a_handshake_that_does_not_end_in_time_is_closed(guarded: Guarded) -> None:
    limits = ClientLimits(handshake_seconds=0.01)
    async with serving(web_config=guarded.load(), limits=limits) as front:
        reader, _ = await front.connect()
        assert await is_closed(reader)


async def test_sigterm_ends_half_done_handshakes_too(guarded: Guarded) -> None:
    async with serving(web_config=guarded.load()) as front:
        reader, _ = await front.connect()
        await front.get(tls=guarded.client())
        signal.raise_signal(signal.SIGTERM)
        await front.task
        assert await is_closed(reader)


# Behind TLS


async def test_a_large_response_arrives_whole_over_tls(guarded: Guarded) -> None:
    body = bytes(range(256)) * 40_000

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, body)

    async with serving(large, web_config=guarded.load()) as front:
        connection = await front.connect(guarded.client())
        assert (await request(*connection))[2] == body
        assert (await request(*connection))[2] == body


async def test_a_client_that_does_not_read_is_cut_off_over_tls_too(guarded: Guarded) -> None:
    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"x" * 20_000_000)

    limits = ClientLimits(write_seconds=0.0)
    async with serving(large, web_config=guarded.load(), limits=limits) as front:
        reader, writer = await front.connect(guarded.client())
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        other, _ = await front.connect()
        while connections_of(front.port) > 1:
            await asyncio.sleep(0.01)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert await is_closed(reader)
        assert not other.at_eof()


async def test_requests_in_one_piece_are_answered_in_turn_over_tls(guarded: Guarded) -> None:
    async with serving(web_config=guarded.load()) as front:
        reader, writer = await front.connect(guarded.client())
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        assert [(await read_response(reader))[0] for _ in range(10)] == [200] * 10
        assert (await request(reader, writer))[0] == 200


async def test_a_client_that_says_goodbye_hears_it_too(guarded: Guarded) -> None:
    def leave(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
            tls = guarded.client().wrap_socket(plain, server_hostname="127.0.0.1")
            tls.unwrap().close()  # it raises where the other side's is missing

    async with serving(web_config=guarded.load()) as front:
        await asyncio.to_thread(leave, front.port)
