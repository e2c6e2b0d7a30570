"""The image's health check: does the exporter beside us answer? Exit 0 if so, else 1.

It asks the addresses that process 1 was told to listen on, so it stays right when the flag
changes; one that answers will do. An answer that asks for a password, or for a client's
certificate, is an answer.
"""

import http.client
import ssl
import sys
from pathlib import Path

DEFAULT_ADDRESS = ":10042"
ANY_HOST = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
TIMEOUT_SECONDS = 2.0


def flag(arguments: list[str], name: str, default: str) -> list[str]:
    """The values of a flag on a command line."""
    values = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if argument == name:
            values.append(following)
        elif argument.startswith(f"{name}="):
            values.append(argument.removeprefix(f"{name}="))
    return values or [default]


def expects_tls(web_config: Path) -> bool:
    """Which way to ask first; a wrong guess costs the server a line in its log."""
    try:
        return "tls_server_config" in web_config.read_text(encoding="utf-8")
    except OSError:
        return False


def to_host_and_port(address: str) -> tuple[str, int]:
    """Where to connect to reach a listener on `address`; ValueError without a port."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    return ANY_HOST.get(host, host), int(port)


def answers(host: str, port: int, *, tls: bool) -> bool:
    """Whether an HTTP server answers there, with anything but a server's error."""
    if tls:
        # The certificate names the service, not the loopback address we ask.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=TIMEOUT_SECONDS, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    connected = False
    try:
        connection.connect()
        connected = True
        connection.request("GET", "/-/healthy")
        return connection.getresponse().status < 500
    except ssl.SSLError as exc:
        # A server that wants to see our certificate is alive. TLS 1.2 says so with an alert,
        # TLS 1.3 after the handshake, and it may hang up before we read the alert.
        return connected or "ALERT" in (exc.reason or "")
    except ConnectionError:
        return connected and tls
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main(command_line: Path = Path("/proc/1/cmdline")) -> int:
    arguments = command_line.read_bytes().decode(errors="replace").split("\0")
    tls = expects_tls(Path(flag(arguments, "--web.config.file", "/dev/null")[-1]))
    tried = []
    for address in flag(arguments, "--web.listen-address", DEFAULT_ADDRESS):
        try:
            host, port = to_host_and_port(address)
        except ValueError:
            tried.append(f"no port in {address!r}")
            continue
        if answers(host, port, tls=tls) or answers(host, port, tls=not tls):
            return 0
        tried.append(f"no answer from {host}:{port}")
    sys.stderr.write("\n".join(tried) + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
