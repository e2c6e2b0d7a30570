"""The file of `--web.config.file`: TLS, passwords and headers, in the format of exporter-toolkit.

The format is described at
https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md. All
of it that Python's TLS can do is accepted; the rest is refused with what to do instead. Where
we differ: docs/configuration.md.
"""

import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from exporter.config.document import Document, KeyPath, Problem
from exporter.config.files import read_text
from exporter.config.names import nearest
from exporter.config.yaml_text import load_yaml

# Above this a single password check takes longer than a scrape may.
MAX_BCRYPT_COST = 18
# The last letter of the salt holds two bits only: the bcrypt library refuses the others.
_BCRYPT_HASH = re.compile(
    r"\$2[aby]\$(?P<cost>\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}", re.ASCII
)

# Go's names of the suites that it takes for secure (crypto/tls.CipherSuites), and OpenSSL's.
CIPHER_SUITES = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
# As in Go, those of TLS 1.3 are always on: naming them changes nothing.
_TLS13_SUITES = (
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
)

_UNVERIFIED_CLIENT_AUTH = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")

Curve = Literal["CurveP256", "CurveP384", "CurveP521", "X25519"]
ClientAuthType = Literal["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"]
TlsVersion = Literal["TLS10", "TLS11", "TLS12", "TLS13"]
TLS_VERSIONS: Mapping[TlsVersion, ssl.TLSVersion] = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


def _parse_path(value: object) -> object:
    # Templates leave empty strings behind, and the toolkit takes them for "not set".
    return Path(value) if isinstance(value, str) and value else value or None


def _parse_client_auth(value: object) -> object:
    if value in _UNVERIFIED_CLIENT_AUTH:
        raise ValueError(
            f"{value} asks for a certificate without verifying it, which Python's TLS cannot do;"
            " use RequireAndVerifyClientCert with a client_ca_file"
        )
    return value or None


def _parse_text_or_none(value: object) -> object:
    return value or None  # "": not set, as above


def _parse_cipher_suite(name: str) -> str:
    if name not in CIPHER_SUITES and name not in _TLS13_SUITES:
        raise ValueError(
            f"not a secure suite by its Go name; those are {', '.join(sorted(CIPHER_SUITES))}"
        )
    return name


def _parse_header(value: object) -> object:
    # As the toolkit: `X-XSS-Protection: 1` is text, and lines become one.
    if isinstance(value, bool):
        value = str(value).lower()
    text = str(value) if isinstance(value, int | float) else value
    return " ".join(text.split("\n")).strip() if isinstance(text, str) else text


def _check_header(value: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise ValueError("must be printable ASCII")
    return value


def _parse_interval(value: object) -> object:
    """Zero, as Go's durations write it; with anything else requests would be refused."""
    if value in (0, None, "") or (isinstance(value, str) and _NO_TIME.fullmatch(value)):
        return 0
    raise ValueError(
        "a limit of requests is not supported: set it to 0, or remove rate_limit; connections,"
        " answers and password checks are bounded anyway"
    )


def _parse_user_name(name: str) -> str:
    if ":" in name:
        raise ValueError("a user name cannot hold a colon: basic auth ends the name there")
    return name


def _parse_password_hash(password_hash: SecretStr) -> SecretStr:
    match = _BCRYPT_HASH.fullmatch(password_hash.get_secret_value())
    if match is None:
        raise ValueError(
            "not a bcrypt hash ($2a$, $2b$ or $2y$); make one with: htpasswd -nBC 10 USER"
        )
    cost = int(match["cost"])
    if not 4 <= cost <= MAX_BCRYPT_COST:
        raise ValueError(f"bcrypt cost {cost} is not between 4 and {MAX_BCRYPT_COST}; 10 is usual")
    return password_hash


# A duration of Go without a digit other than 0: 0, 0s, 0m0s, 0.0ms.
_NO_TIME = re.compile(r"[+-]?0+(\.0*)?|([+-]?)(0+(\.0*)?(h|m|s|ms|us|µs|ns))+", re.ASCII)

OptionalPath = Annotated[Path | None, BeforeValidator(_parse_path)]
OptionalText = Annotated[str | None, BeforeValidator(_parse_text_or_none)]
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(_parse_text_or_none)]
Header = Annotated[str, BeforeValidator(_parse_header), AfterValidator(_check_header)]
CipherSuite = Annotated[str, AfterValidator(_parse_cipher_suite)]
UserName = Annotated[str, AfterValidator(_parse_user_name)]
PasswordHash = Annotated[SecretStr, AfterValidator(_parse_password_hash)]


class TlsServerConfig(_Section):
    """How to speak TLS; paths as written until `load_web_config` has resolved them.

    `cert`, `key` and `client_ca` are PEM; a file that is named goes before.
    """

    cert: OptionalText = None
    key: OptionalSecret = None
    client_ca: OptionalText = None
    cert_file: OptionalPath = None
    key_file: OptionalPath = None
    client_ca_file: OptionalPath = None
    client_auth_type: Annotated[ClientAuthType | None, BeforeValidator(_parse_client_auth)] = None
    # None: whoever the CA vouches for. Empty: nobody.
    client_allowed_sans: Annotated[tuple[str, ...] | None, Field(strict=False)] = None
    min_version: TlsVersion = "TLS12"
    max_version: TlsVersion = "TLS13"
    cipher_suites: Annotated[tuple[CipherSuite, ...], Field(strict=False)] = ()
    curve_preferences: Annotated[tuple[Curve, ...], Field(strict=False)] = ()
    prefer_server_cipher_suites: bool = True

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if problems := list(self._find_problems()):
            raise ValueError("\n".join(problems))
        return self

    def _find_problems(self) -> Iterator[str]:
        if self.is_enabled and self.cert_file is None and self.cert is None:
            yield "cert_file: missing; TLS needs one of cert_file and cert"
        if self.is_enabled and self.key_file is None and self.key is None:
            yield "key_file: missing; TLS needs one of key_file and key"
        if not self.verifies_clients:
            if self.client_ca_file is not None or self.client_ca is not None:
                yield (
                    "client_auth_type: must be RequireAndVerifyClientCert or"
                    " VerifyClientCertIfGiven with a client CA, which would verify nobody otherwise"
                )
            if self.client_allowed_sans is not None:
                yield (
                    "client_allowed_sans: needs client_auth_type RequireAndVerifyClientCert;"
                    " everybody would be let in otherwise"
                )
        if TLS_VERSIONS[self.min_version] > TLS_VERSIONS[self.max_version]:
            yield f"min_version: {self.min_version} is above {self.max_version}"
        if self.has_tls13_suites_only and self.max_version != "TLS13":
            yield f"cipher_suites: none for {self.max_version}, the max_version; add one"

    @property
    def is_enabled(self) -> bool:
        """Whether it asks for TLS; the toolkit speaks plain HTTP where no such key is set."""
        keys = ("cert", "key", "client_ca", "cert_file", "key_file", "client_ca_file")
        return any(getattr(self, key) is not None for key in (*keys, "client_auth_type"))

    @property
    def verifies_clients(self) -> bool:
        return self.client_auth_type not in (None, "NoClientCert")

    @property
    def has_tls13_suites_only(self) -> bool:
        return bool(self.cipher_suites) and set(self.cipher_suites) <= set(_TLS13_SUITES)

    @property
    def files(self) -> Sequence[Path]:
        return [p for p in (self.cert_file, self.key_file, self.client_ca_file) if p is not None]


class Headers(_Section):
    """The response headers that the toolkit allows; empty is not sent."""

    content_security_policy: Header = Field("", alias="Content-Security-Policy")
    strict_transport_security: Header = Field("", alias="Strict-Transport-Security")
    x_content_type_options: Literal["nosniff", ""] = Field("", alias="X-Content-Type-Options")
    x_frame_options: Literal["deny", "sameorigin", ""] = Field("", alias="X-Frame-Options")
    x_xss_protection: Header = Field("", alias="X-XSS-Protection")


class HttpServerConfig(_Section):
    """`http2` is taken and has no effect: a client that offers HTTP/2 gets HTTP/1.1."""

    http2: bool = True
    headers: Headers = Headers()

    @field_validator("headers", mode="before")
    @classmethod
    def _fill_section(cls, value: object) -> object:
        return {} if value is None else value


class RateLimit(_Section):
    """Taken while it is off."""

    interval: Annotated[int, BeforeValidator(_parse_interval)] = 0
    burst: int = 0


class WebConfig(_Section):
    """The whole file."""

    tls_server_config: TlsServerConfig = TlsServerConfig()
    http_server_config: HttpServerConfig = HttpServerConfig()
    basic_auth_users: dict[UserName, PasswordHash] = Field(default_factory=dict)
    rate_limit: RateLimit = RateLimit()

    @field_validator("*", mode="before")
    @classmethod
    def _fill_section(cls, value: object) -> object:
        return {} if value is None else value

    @property
    def tls(self) -> TlsServerConfig | None:
        """None where plain HTTP is spoken."""
        return self.tls_server_config if self.tls_server_config.is_enabled else None

    @property
    def users(self) -> Mapping[str, str]:
        """User names and their bcrypt hashes; empty where no password is asked for."""
        return {
            name: password_hash.get_secret_value()
            for name, password_hash in self.basic_auth_users.items()
        }

    @property
    def response_headers(self) -> Sequence[tuple[bytes, bytes]]:
        headers = self.http_server_config.headers.model_dump(by_alias=True)
        return [(name.lower().encode(), value.encode()) for name, value in headers.items() if value]


@dataclass(frozen=True, slots=True)
class LoadedText:
    """A configuration with the text that it was read from: a problem is told with its place."""

    config: WebConfig
    document: Document


def parse_web_config(text: str, *, name: str = "web.yml") -> WebConfig:
    """The configuration in `text`, the file `name`'s.

    Raises ConfigError with every problem, each with its place and path.
    """
    return _parse(text, name).config


def _parse(text: str, name: str) -> LoadedText:
    document = load_yaml(text, name, keys=_ALL_KEYS)
    value = document.value if document.value is not None else {}
    if not isinstance(value, dict):
        known = ", ".join(_keys_of(WebConfig))
        raise document.error([Problem((), f"must be a mapping; its keys are {known}")])
    try:
        return LoadedText(WebConfig.model_validate(value), document)
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
        raise document.error([line for error in errors for line in _describe(error)]) from None


def read_web_config(path: Path) -> LoadedText:
    """The configuration in the file, its own paths resolved against the file's folder.

    Raises ConfigError, each problem with the file's name. The files that it names are not read.
    """
    loaded = _parse(read_text(path), str(path))
    tls = loaded.config.tls_server_config
    resolved = {
        key: path.parent / value
        for key in ("cert_file", "key_file", "client_ca_file")
        if (value := getattr(tls, key)) is not None
    }
    tls = tls.model_copy(update=resolved)
    return replace(loaded, config=loaded.config.model_copy(update={"tls_server_config": tls}))


def _describe(error: ErrorDetails) -> Iterator[Problem]:
    path: KeyPath = tuple(part for part in error["loc"] if part != "[key]")
    if path[0] == "basic_auth_users":
        path = tuple(map(str, path))  # a user's name is no place in a list
    match error["type"]:
        case "extra_forbidden":
            yield _describe_unknown(path)
        case "value_error" if path == ("tls_server_config",):
            for line in str(error["ctx"]["error"]).splitlines():
                key, _, problem = line.partition(": ")
                yield Problem((*path, key), problem)
        case "value_error":
            yield Problem(path, str(error["ctx"]["error"]))
        case known if known in _MESSAGES:
            yield Problem(path, _MESSAGES[known])
        case _:
            yield Problem(path, error["msg"].replace("Input should be", "must be"))


_MESSAGES = {
    "string_type": "must be text; put it in quotes",
    "is_instance_of": "must be the path of a file",
    "tuple_type": "must be a list",
    "model_type": "must be a mapping",
    "dict_type": "must be a mapping",
}


def _describe_unknown(path: KeyPath) -> Problem:
    keys = _keys_of(_SECTIONS[path[:-1]])
    near = nearest(str(path[-1]), keys)
    meant = f"; did you mean {near}?" if near is not None else ""
    return Problem(path, f"unknown key; allowed here: {', '.join(keys)}{meant}")


def _keys_of(section: type[BaseModel]) -> tuple[str, ...]:
    return tuple(field.alias or name for name, field in section.model_fields.items())


_SECTIONS: Mapping[KeyPath, type[BaseModel]] = {
    (): WebConfig,
    ("tls_server_config",): TlsServerConfig,
    ("http_server_config",): HttpServerConfig,
    ("rate_limit",): RateLimit,
    ("http_server_config", "headers"): Headers,
}
_ALL_KEYS = frozenset(key for section in _SECTIONS.values() for key in _keys_of(section))
