"""From the web configuration's words to OpenSSL's settings."""

import ipaddress
import os
import ssl
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from exporter.config.document import Problem
from exporter.config.files import check_file, why_unreadable
from exporter.web.web_config import CIPHER_SUITES, TLS_VERSIONS, Curve, TlsServerConfig

# OpenSSL's names of the curves, and their numbers on the wire (RFC 8446, 4.2.7).
_CURVES: Mapping[Curve, tuple[str, int]] = {
    "CurveP256": ("prime256v1", 23),
    "CurveP384": ("secp384r1", 24),
    "CurveP521": ("secp521r1", 25),
    "X25519": ("X25519", 29),
}


@dataclass(frozen=True, slots=True, eq=False)
class TlsContexts:
    """What a server speaks TLS with.

    Python can name one curve for a context, so there is one context for each that is allowed, in
    the order of preference, by the number on the wire. Without preferences OpenSSL chooses.
    """

    by_group: Mapping[int, ssl.SSLContext]
    client_allowed_sans: frozenset[str] | None = None

    @property
    def needs_groups(self) -> bool:
        """Whether the choice depends on what the client offers."""
        return len(self.by_group) > 1

    def choose(self, offered: Sequence[int] = ()) -> ssl.SSLContext:
        """The first whose curve the client has; if it has none, OpenSSL says so."""
        contexts = list(self.by_group.items())
        return next((c for group, c in contexts if group in offered), contexts[0][1])

    def refuse(self, certificate: Mapping[str, Any] | None) -> str | None:
        """Why a client with this certificate is not let in though its CA vouches for it."""
        if self.client_allowed_sans is None:
            return None
        sans = parse_sans(certificate)
        if not sans.isdisjoint(self.client_allowed_sans):
            return None
        named = ", ".join(sorted(sans)) or "nobody"
        return f"client certificate not among client_allowed_sans: it names {named[:200]}"


class TlsError(Exception):
    """Certificates or keys that cannot be used, each with the path of its key."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = problems


def _wrong(key: str, message: str) -> TlsError:
    return TlsError(Problem(("tls_server_config", key), message))


def load_tls_contexts(tls: TlsServerConfig) -> TlsContexts:
    """Made of the PEM that `tls` holds or names; raises TlsError."""
    _check_readable(tls)
    curves: Sequence[tuple[str | None, int]] = [_CURVES[name] for name in tls.curve_preferences]
    sans = tls.client_allowed_sans
    return TlsContexts(
        {group: _load_context(tls, curve) for curve, group in curves or [(None, 0)]},
        None if sans is None else frozenset(sans),
    )


def _check_readable(tls: TlsServerConfig) -> None:
    """OpenSSL does not say which file it could not read."""
    problems = []
    for key in ("cert_file", "key_file", "client_ca_file"):
        path = getattr(tls, key)
        try:
            if path is not None:
                check_file(path)
        except OSError as exc:
            problems.append(Problem(("tls_server_config", key), why_unreadable(path, exc)))
    if problems:
        raise TlsError(*problems)


def _load_context(tls: TlsServerConfig, curve: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION
    if not tls.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    _set_versions(context, tls)
    if curve is not None:
        context.set_ecdh_curve(curve)
    _load_certificate(context, tls)
    if tls.verifies_clients:
        _load_client_ca(context, tls)
        required = tls.client_auth_type == "RequireAndVerifyClientCert"
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    return context


def _set_versions(context: ssl.SSLContext, tls: TlsServerConfig) -> None:
    suites = [CIPHER_SUITES[name] for name in tls.cipher_suites if name in CIPHER_SUITES]
    if tls.min_version in ("TLS10", "TLS11"):
        # OpenSSL 3 speaks these at security level 0 only. Who asks for them gets them.
        suites = [*(suites or ["DEFAULT"]), "@SECLEVEL=0"]
    if suites:
        context.set_ciphers(":".join(suites))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        # Without a suite for older versions there is only this one.
        minimum = "TLS13" if tls.has_tls13_suites_only else tls.min_version
        context.minimum_version = TLS_VERSIONS[minimum]
        context.maximum_version = TLS_VERSIONS[tls.max_version]


def _load_certificate(context: ssl.SSLContext, tls: TlsServerConfig) -> None:
    cert_key, cert = ("cert_file", tls.cert_file) if tls.cert_file else ("cert", None)
    key_key, key = ("key_file", tls.key_file) if tls.key_file else ("key", None)
    # What a message calls them: inline PEM has no name, and is not shown.
    cert_name, key_name = (
        f"{name} {path}" if path else name for name, path in ((cert_key, cert), (key_key, key))
    )

    def refuse_encrypted_key() -> str:
        raise _wrong(key_key, f"{key or 'the key'} asks for a passphrase")

    with _as_file(cert, tls.cert) as cert_path, _as_file(key, _reveal(tls)) as key_path:
        try:
            context.load_cert_chain(cert_path, key_path, refuse_encrypted_key)
        except ssl.SSLError as exc:
            if exc.reason == "KEY_VALUES_MISMATCH":
                problem = f"{key or 'the key'} does not belong to {cert_name}"
                raise _wrong(key_key, problem) from None
            reason = exc.reason or "unreadable"
            problem = (
                f"no PEM certificate in {cert or 'it'}, or no PEM key in {key_name} ({reason})"
            )
            raise _wrong(cert_key, problem) from None


def _reveal(tls: TlsServerConfig) -> str | None:
    return tls.key.get_secret_value() if tls.key is not None else None


def _load_client_ca(context: ssl.SSLContext, tls: TlsServerConfig) -> None:
    if tls.client_ca_file is None and tls.client_ca is None:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)  # as Go: the system's roots
        return
    try:
        if tls.client_ca_file is not None:
            context.load_verify_locations(cafile=tls.client_ca_file)
        else:
            context.load_verify_locations(cadata=tls.client_ca)
    except (ssl.SSLError, ValueError):
        key = "client_ca" if tls.client_ca_file is None else "client_ca_file"
        raise _wrong(key, f"no PEM certificate in {tls.client_ca_file or 'it'}") from None


@contextmanager
def _as_file(path: Path | None, text: str | None) -> Iterator[Path]:
    """A file with the text, for OpenSSL reads certificates and keys from files only.

    In memory where the system can do that: a key is not written to a disk.
    """
    if path is not None:
        yield path
        return
    content = (text or "").encode()
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        with os.fdopen(os.memfd_create("pem"), "wb") as file:
            file.write(content)
            file.flush()
            yield Path(f"/proc/self/fd/{file.fileno()}")
        return
    with TemporaryDirectory() as folder:  # of this user alone
        written = Path(folder) / "pem"
        written.write_bytes(content)
        yield written


def parse_sans(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """The alternative names of `SSLSocket.getpeercert()`, addresses in their usual form."""
    names = (certificate or {}).get("subjectAltName", ())
    return frozenset(
        # OpenSSL writes ::1 as 0:0:0:0:0:0:0:1
        str(ipaddress.ip_address(value.strip())) if kind == "IP Address" else value
        for kind, value in names
        if kind in ("DNS", "email", "URI", "IP Address")
    )
