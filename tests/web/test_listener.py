"""The listening sockets: addresses, ports, and the limit of open files."""

import contextlib
import errno
import resource
import socket
from collections.abc import Iterator

import pytest

from exporter.errors import ConfigError
from exporter.web.listener import (
    bind,
    bind_all,
    parse_listen_address,
    parse_listen_addresses,
    raise_open_files_limit,
)
from tests.support.front import connects

# The address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":10042", ("", 10042)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("localhost:65535", ("localhost", 65535)),
        ("[::1]:9000", ("::1", 9000)),
        ("[fe80::1%lo]:9000", ("fe80::1%lo", 9000)),
    ],
)
def test_a_listen_address_is_host_and_port(text: str, address: tuple[str, int]) -> None:
    assert parse_listen_address(text) == address


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("10042", "has no port; write host:port, [v6]:port or :port"),
        ("localhost:", "has no port; write host:port, [v6]:port or :port"),
        ("", "has no port; write host:port, [v6]:port or :port"),
        (":65536", "has no port between 0 and 65535 after its last colon"),
        (":" + "9" * 5000, "has no port between 0 and 65535 after its last colon"),
        (":-1", "has no port between 0 and 65535 after its last colon"),
        (":http", "has no port between 0 and 65535 after its last colon"),
        (":٣", "has no port between 0 and 65535 after its last colon"),
        ("::1:9000", "has an IPv6 address without brackets; write [v6]:port"),
        ("[localhost]:9000", "has no IPv6 address between its brackets"),
        ("[::1:9000", "has an IPv6 address without brackets; write [v6]:port"),
        ("http://localhost:80", "has an IPv6 address without brackets; write [v6]:port"),
        ("a b:80", "is not a host and a port; write host:port without http://"),
        ("//localhost:80", "is not a host and a port; write host:port without http://"),
    ],
)
def test_a_listen_address_that_is_none_says_what_to_write(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_listen_address(text)
    assert raised.value.problems == (f"--web.listen-address: {text!r} {problem}",)


def test_each_of_several_addresses_that_is_none_is_told() -> None:
    assert parse_listen_addresses([":1", "[::1]:2"]) == [("", 1), ("::1", 2)]
    with pytest.raises(ConfigError) as raised:
        parse_listen_addresses(["nowhere", ":1", ":x"])
    assert [problem.split("'")[1] for problem in raised.value.problems] == ["nowhere", ":x"]


def test_several_addresses_are_listened_on_or_none() -> None:
    sockets = bind_all([("127.0.0.1", 0), ("127.0.0.2", 0)])
    try:
        names = [listening.getsockname() for listening in sockets]
        assert [host for host, _ in names] == ["127.0.0.1", "127.0.0.2"]
        assert all(connects(*name) for name in names)
    finally:
        for listening in sockets:
            listening.close()
    with bound("127.0.0.2", names[1][1]), pytest.raises(ConfigError, match="the port is taken"):
        bind_all([names[0], names[1]])
    assert not connects(*names[0])


@contextlib.contextmanager
def bound(host: str, port: int = 0) -> Iterator[list[socket.socket]]:
    sockets = bind((host, port))
    try:
        yield sockets
    finally:
        for listening in sockets:
            listening.close()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@needs_ipv6
def test_all_interfaces_are_both_families() -> None:
    with bound("") as (listening,):
        port = listening.getsockname()[1]
        assert connects("127.0.0.1", port)
        assert connects("::1", port)


def test_all_interfaces_are_ipv4_where_there_is_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnlyV4(socket.socket):
        def __init__(self, family: int, kind: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, kind)

    monkeypatch.setattr(socket, "socket", OnlyV4)
    with bound("") as (listening,):
        assert listening.getsockname()[0] == "0.0.0.0"


@needs_ipv6
def test_an_ipv6_address_is_that_address_only() -> None:
    with bound("::1") as (listening,):
        port = listening.getsockname()[1]
        assert connects("::1", port)
        assert not connects("127.0.0.1", port)


def test_all_addresses_of_a_host_name_get_one_port() -> None:
    with bound("localhost") as sockets:
        assert len({listening.getsockname()[1] for listening in sockets}) == 1
        assert connects("127.0.0.1", sockets[0].getsockname()[1])


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_a_name_with_two_addresses_listens_on_both(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2")
    with bound("two.example") as sockets:
        first, second = (listening.getsockname() for listening in sockets)
    assert (first[0], second[0]) == ("127.0.0.1", "127.0.0.2")
    assert first[1] == second[1]


def test_an_address_of_a_name_that_this_machine_does_not_have_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve_to(monkeypatch, "192.0.2.1", "127.0.0.1")
    with bound("half.example") as (listening,):
        assert listening.getsockname()[0] == "127.0.0.1"


def test_a_name_whose_second_address_is_taken_listens_on_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with bound("127.0.0.2") as (taken,):
        port = taken.getsockname()[1]
        with monkeypatch.context() as patch:
            resolve_to(patch, "127.0.0.1", "127.0.0.2")
            with pytest.raises(ConfigError, match="the port is taken"):
                bind(("two.example", port))
        assert not connects("127.0.0.1", port)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ""])
def test_a_port_that_is_taken_is_said_so(host: str) -> None:
    with bound(host) as sockets:
        port = sockets[0].getsockname()[1]
        with pytest.raises(ConfigError) as raised:
            bind((host, port))
    assert raised.value.problems == (
        f"--web.listen-address: cannot listen on {host}:{port}:"
        " the port is taken by another program; stop it or choose another port",
    )


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("192.0.2.1", "192.0.2.1:0: this machine does not have that address"),
        ("nowhere.invalid", "nowhere.invalid:0: no such host"),
        ("a" * 64 + ".invalid", "a.invalid:0: no such host"),
    ],
)
def test_an_address_that_is_not_ours_is_said_so(host: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        bind((host, 0))
    assert problem in raised.value.problems[0]


def test_the_limit_of_open_files_is_raised_as_far_as_allowed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        assert raise_open_files_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_limit_of_open_files_that_is_not_granted_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int, limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda number: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_open_files_limit() == 256
