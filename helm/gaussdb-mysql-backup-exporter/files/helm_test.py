"""What `helm test` runs inside the cluster: is the exporter ready, and does it publish metrics?"""

import base64
import os
import socket
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable

target = os.environ["TARGET"]
metrics_path = os.environ["METRICS_PATH"]
deadline = time.monotonic() + float(os.environ["TIMEOUT_SECONDS"])
headers = {}
if "USERNAME" in os.environ:
    login = f"{os.environ['USERNAME']}:{os.environ['PASSWORD']}"
    headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
# Whether it answers, not who it is: Prometheus checks the certificate.
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE


def problem_of(path: str, expected: str) -> str:
    """Why `path` does not answer as it should; empty if it does."""
    try:
        # The chart writes the URL: it is always http or https.
        request = urllib.request.Request(target + path, headers=headers)  # noqa: S310
        answer = urllib.request.urlopen(request, timeout=10, context=context)  # noqa: S310
        with answer:
            return "" if expected in answer.read().decode() else f"no {expected} in the answer"
    except urllib.error.HTTPError as exc:
        # Without a client's password (web.basicAuth.clientSecret) this is the right answer.
        return "" if exc.code == 401 and not headers else f"status {exc.code}"
    except OSError as exc:
        return str(exc)


def knock() -> str:
    """Why nobody listens; empty if somebody does."""
    address = urllib.parse.urlsplit(target)
    try:
        socket.create_connection((address.hostname, address.port), timeout=10).close()
    except OSError as exc:
        return str(exc)
    return ""


def wait(what: str, ask: Callable[[], str]) -> None:
    """Asks until all is well; ends the program where time is up."""
    while problem := ask():
        if time.monotonic() > deadline:
            sys.exit(f"{what}: {problem}")
        time.sleep(1)
    sys.stdout.write(f"{what}: ok\n")


if os.environ["CLIENT_CERTIFICATE_REQUIRED"] == "true":
    # We have none to show: that somebody listens is all there is to see.
    wait(target, knock)
else:
    wait(f"{target}/-/ready", lambda: problem_of("/-/ready", ""))
    wait(
        target + metrics_path, lambda: problem_of(metrics_path, "gaussdb_mysql_exporter_build_info")
    )
