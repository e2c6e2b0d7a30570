"""`helm test`, and the rendered pod at work."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.helm.charts import (
    FOLDER,
    NAME,
    Manifest,
    Render,
    Values,
    config_of,
    container_of,
    find,
    secret_file,
    values_of,
    with_values,
)
from tests.support.certificates import Authority
from tests.support.paths import ROOT
from tests.support.programs import QuietHandler, eventually, free_port, running, serving

# `helm test` ------------------------------------------------------------------------------------


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[dict[str, tuple[int, str]]], str]]:
    """Starts an HTTP server that answers paths with a status and a text; gives its address."""
    with ExitStack() as servers:

        def start(pages: dict[str, tuple[int, str]]) -> str:
            class Handler(QuietHandler):
                def do_GET(self) -> None:
                    status, text = pages.get(self.path, (404, ""))
                    login = self.headers.get("Authorization")
                    if status == 401 and login == "Basic cHJvbTptYWRlLXVw":
                        status = 200
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(text)))
                    self.end_headers()
                    self.wfile.write(text.encode())

            return f"http://{servers.enter_context(serving(Handler))}"

        yield start


def run_helm_test(
    manifests: list[Manifest], **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs the program of the rendered test pod, with variables of its own and these."""
    (container,) = find(manifests, "Pod")["spec"]["containers"]
    command = [*container["command"], *container["args"]]
    assert command[0] == "python3"
    plain = {item["name"]: item["value"] for item in container["env"] if "value" in item}
    return subprocess.run(
        [sys.executable, *command[1:]],
        env={**plain, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


GOOD_PAGES = {
    "/-/ready": (200, "ready"),
    "/metrics": (200, "gaussdb_mysql_exporter_build_info 1\n"),
}


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({}, 0, "/metrics: ok"),
        ({"/-/ready": (503, "")}, 1, "/-/ready: status 503"),
        ({"/metrics": (200, "nothing\n")}, 1, "no gaussdb_mysql_exporter_build_info in the answer"),
        ({"/metrics": (401, "")}, 0, "/metrics: ok"),
    ],
)
def test_helm_test_tells_whether_the_exporter_answers(
    render: Render,
    serve: Callable[[dict[str, tuple[int, str]]], str],
    changed: dict[str, tuple[int, str]],
    code: int,
    words: str,
) -> None:
    target = serve({**GOOD_PAGES, **changed})
    ran = run_helm_test(render(values_of("minimal")), TARGET=target, TIMEOUT_SECONDS="0")

    assert ran.returncode == code, ran.stderr
    assert words in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr


def test_helm_test_logs_in_with_the_password_of_the_client(
    render: Render, serve: Callable[[dict[str, tuple[int, str]]], str]
) -> None:
    manifests = render(with_values("own_secrets", {"test": {"timeoutSeconds": 1}}))
    locked = {path: (401, text) for path, (_, text) in GOOD_PAGES.items()}
    target = serve(locked)

    good = run_helm_test(
        manifests, TARGET=target, TIMEOUT_SECONDS="0", USERNAME="prom", PASSWORD="made-up"
    )
    bad = run_helm_test(
        manifests, TARGET=target, TIMEOUT_SECONDS="0", USERNAME="prom", PASSWORD="wrong"
    )

    assert (good.returncode, bad.returncode) == (0, 1)
    assert "status 401" in bad.stderr
    (container,) = find(manifests, "Pod")["spec"]["containers"]
    references = [
        item["valueFrom"]["secretKeyRef"] for item in container["env"] if "valueFrom" in item
    ]
    assert references == [
        {"name": "exporter-client", "key": "user"},
        {"name": "exporter-client", "key": "pass"},
    ]


def test_helm_test_only_knocks_where_it_would_need_a_certificate(
    render: Render, serve: Callable[[dict[str, tuple[int, str]]], str]
) -> None:
    manifests = render(values_of("everything"))

    there = run_helm_test(manifests, TARGET=serve({}), TIMEOUT_SECONDS="0")
    nobody = run_helm_test(manifests, TARGET="https://127.0.0.1:1", TIMEOUT_SECONDS="0")

    assert (there.returncode, nobody.returncode) == (0, 1)
    assert "refused" in nobody.stderr


def lay_out(folder: Path, files: dict[str, str]) -> None:
    """Files as the kubelet lays out a ConfigMap or a Secret: links through `..data`."""
    (folder / "..2024").mkdir(parents=True)
    (folder / "..data").symlink_to("..2024")
    for name, text in files.items():
        (folder / "..2024" / name).write_text(text, encoding="utf-8")
        (folder / name).symlink_to(Path("..data") / name)


@contextmanager
def running_pod(
    manifests: list[Manifest], tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The exporter as the rendered pod starts it, with its files; gives it and its log."""
    authority = Authority(tmp_path)
    issued = authority.issue("exporter.internal")
    etc = tmp_path / "etc"

    def here(text: str) -> str:
        return text.replace(FOLDER, str(etc))

    lay_out(etc / "config", {"config.yaml": here(config_of(manifests))})
    lay_out(etc / "secrets", {"token": secret_file(manifests, f"{NAME}-credentials", "token")})
    web_config = secret_file(manifests, f"{NAME}-web-config", "web-config.yaml")
    lay_out(etc / "web", {"web-config.yaml": here(web_config)})
    tls = {
        "tls.crt": issued.cert_file,
        "tls.key": issued.key_file,
        "ca.crt": authority.cert_file,
    }
    lay_out(etc / "tls", {name: file.read_text() for name, file in tls.items()})
    arguments = [here(argument) for argument in container_of(manifests)["args"]]
    log = tmp_path / "exporter.log"
    with running(sys.executable, "-m", "exporter", *arguments, log=log) as process:
        yield process, log


def pod_values(port: int, web: Values) -> Values:
    project = {
        "id": "p",
        # Nobody listens there: the metrics are published all the same.
        "endpoint": "http://127.0.0.1:1",
        "auth": {"type": "token", "token_file": f"{FOLDER}/secrets/token"},
        "instances": ["i"],
    }
    return {
        "config": {"api": {"retries": 0}, "projects": [project]},
        "credentials": {"data": {"token": "made-up-token"}},
        "containerPort": port,
        "web": web,
    }


BASIC_AUTH = {
    "enabled": True,
    "users": values_of("everything")["web"]["basicAuth"]["users"],
    "clientSecret": {"name": "exporter-client"},
}


def test_rendered_pod_runs_behind_tls_and_basic_auth_and_passes_helm_test(
    render: Render, tmp_path: Path
) -> None:
    port = free_port()
    web = {"tls": {"enabled": True, "secretName": "tls"}, "basicAuth": BASIC_AUTH}
    manifests = render(pod_values(port, web))
    target = f"https://127.0.0.1:{port}"
    login = {"USERNAME": "prometheus", "PASSWORD": "made-up"}

    with running_pod(manifests, tmp_path) as (process, log):
        ran = run_helm_test(manifests, TARGET=target, TIMEOUT_SECONDS="30", **login)
        wrong = run_helm_test(
            manifests, TARGET=target, TIMEOUT_SECONDS="0", **{**login, "PASSWORD": "wrong"}
        )

    assert ran.returncode == 0, ran.stderr + log.read_text(encoding="utf-8")
    assert ran.stdout == f"{target}/-/ready: ok\n{target}/metrics: ok\n"
    assert wrong.returncode == 1
    assert "status 401" in wrong.stderr
    assert process.returncode == 0
    assert "made-up" not in log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "web",
    [
        {"basicAuth": BASIC_AUTH},
        {"tls": {"enabled": True, "secretName": "tls", "clientCAKey": "ca.crt"}},
    ],
    ids=["basic-auth", "client-certificates"],
)
def test_probe_behind_a_login_proves_that_the_program_answers(
    render: Render, tmp_path: Path, web: Values
) -> None:
    port = free_port()
    manifests = render(pod_values(port, web))
    _, file = container_of(manifests)["livenessProbe"]["exec"]["command"]
    program = ROOT / "docker" / Path(file).name

    def probe(command_line: Path) -> int:
        # The first process of a container is the exporter.
        code = program.read_text(encoding="utf-8").replace("/proc/1/cmdline", str(command_line))
        ran = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=False, timeout=60
        )
        return ran.returncode

    with running_pod(manifests, tmp_path) as (process, log):
        eventually(lambda: "msg=listening" in log.read_text() or None, what="it listens")
        live = Path(f"/proc/{process.pid}/cmdline")
        assert probe(live) == 0
        command_line = tmp_path / "cmdline"
        command_line.write_bytes(live.read_bytes())

    assert probe(command_line) == 1


def test_helm_test_is_a_hook_that_asks_the_service(render: Render) -> None:
    pod = find(render(values_of("everything")), "Pod")
    (container,) = pod["spec"]["containers"]
    environment = {item["name"]: item.get("value") for item in container["env"]}

    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert container["image"] == "registry.internal/monitoring/gaussdb-mysql-backup-exporter:1.10"
    assert environment["TARGET"] == f"https://{NAME}.databases.svc:8443"
    assert environment["METRICS_PATH"] == "/metrics/backups"
    assert environment["CLIENT_CERTIFICATE_REQUIRED"] == "true"
    # Kubernetes would put a variable in the place of $(...).
    assert "$(" not in "".join(container["args"])
