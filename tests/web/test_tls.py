"""TLS as clients meet it."""

import asyncio
import ipaddress
import os
import signal
import ssl
import warnings
from pathlib import Path

import pytest
from cryptography import x509

from exporter.web.connection import ClientLimits, parse_sans
from exporter.web.tls import LoadedWebConfig
from tests.support.certificates import Authority, Issued
from tests.support.front import (
    Front,
    is_closed,
    request,
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


async def test_a_client_without_a_certificate_is_refused(guarded: Guarded) -> None:
    async with serving(web_config=guarded.load(CLIENT_CERTIFICATES)) as front:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await front.get(tls=guarded.client())


async def test_a_client_with_a_certificate_of_another_ca_is_refused(
    guarded: Guarded, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "another CA").issue("stranger", client=True)
    async with serving(web_config=guarded.load(CLIENT_CERTIFICATES)) as front:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await front.get(tls=guarded.client(stranger))


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


async def test_plain_http_to_a_tls_port_is_closed(guarded: Guarded) -> None:
    async with serving(web_config=guarded.load()) as front:
        reader, writer = await front.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await is_closed(reader)
        assert (await front.get(tls=guarded.client()))[0] == 200


async def test_sigterm_ends_half_done_handshakes_too(guarded: Guarded) -> None:
    async with serving(web_config=guarded.load()) as front:
        reader, _ = await front.connect()
        await front.get(tls=guarded.client())
        signal.raise_signal(signal.SIGTERM)
        await front.task
        assert await is_closed(reader)
