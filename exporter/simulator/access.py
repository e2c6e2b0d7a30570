"""Who may ask: tokens, signatures (SDK-HMAC-SHA256), an agency's temporary keys, and locks.

Written from the description of the algorithm alone, on purpose: it must not share a mistake with
the client that signs.
"""

import hashlib
import hmac
import random
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, unquote

from exporter.simulator.agencies import SERVER, Agencies
from exporter.simulator.cloud import SimulatedProject
from exporter.simulator.faults import Form, RefusalError
from exporter.simulator.knobs import Knobs

_AUTHORIZATION = re.compile(
    r"SDK-HMAC-SHA256 Access=(?P<key>[^,\s]+), SignedHeaders=(?P<names>[^,\s]+), "
    r"Signature=(?P<signature>[0-9a-f]{64})"
)
_MOMENT = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class IncomingRequest:
    """What a signature is made over, as it came. Header names are lower-case."""

    method: str
    raw_path: str
    raw_query: str
    headers: Mapping[str, str]
    body: bytes = b""

    def describe(self) -> str:
        """Method, path and every header, secrets and all: what careless servers echo."""
        headers = " ".join(f"{name}:{value}" for name, value in self.headers.items())
        return f"{self.method} {self.raw_path} {self.raw_query} {headers}"


@dataclass(frozen=True, slots=True)
class Token:
    """A token that the login gave out, good for one project until `expires`."""

    project_id: str
    expires: float
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class TemporaryKey:
    """What the metadata service hands out."""

    access: str
    secret: str
    security_token: str
    expires: float


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a signature shows: an access key, the server's agency, or an agency by its URN."""

    name: str
    secret: str
    projects: list[SimulatedProject]
    is_temporary: bool = True


@dataclass(slots=True)
class _Failures:
    count: int = 0
    locked_until: float = 0.0


@dataclass(slots=True)
class Locks:
    """Counts refusals in a row by name; enough of them lock the name for a while."""

    until_locked: int
    seconds: float
    _failures: dict[str, _Failures] = field(default_factory=dict)

    def is_locked(self, name: str, now: float) -> bool:
        failures = self._failures.get(name)
        return failures is not None and now < failures.locked_until

    def note_failure(self, name: str, now: float) -> None:
        failures = self._failures.setdefault(name, _Failures())
        failures.count += 1
        if failures.count >= self.until_locked:
            failures.count = 0
            failures.locked_until = now + self.seconds

    def note_success(self, name: str) -> None:
        self._failures.pop(name, None)


def build_canonical_request(request: IncomingRequest, signed_names: Iterable[str]) -> str:
    """The text that a signature covers; `signed_names` as SignedHeaders has them, in order."""
    names = list(signed_names)
    segments = unquote(request.raw_path).split("/")
    path = "/".join(quote(segment, safe="~") for segment in segments)
    pairs = sorted(parse_qsl(request.raw_query, keep_blank_values=True))
    query = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in pairs)
    headers = "".join(f"{name}:{request.headers.get(name, '').strip()}\n" for name in names)
    payload = request.headers.get("x-sdk-content-sha256") if request.body else None
    return "\n".join(
        [
            request.method,
            path if path.endswith("/") else path + "/",
            query,
            headers,
            ";".join(names),
            payload or hashlib.sha256(request.body).hexdigest(),
        ]
    )


def compute_signature(canonical_request: str, moment: str, secret_key: str) -> str:
    digest = hashlib.sha256(canonical_request.encode()).hexdigest()
    text = f"SDK-HMAC-SHA256\n{moment}\n{digest}"
    return hmac.new(secret_key.encode(), text.encode(), hashlib.sha256).hexdigest()


def build_agency_key(seed: int, period: int, knobs: Knobs) -> TemporaryKey:
    """The agency's key number `period`: a new one comes `agency_key_overlap_seconds` before the
    old one ends."""
    made = hashlib.sha256(f"agency:{seed}:{period}".encode()).hexdigest()
    renewed_after = knobs.agency_key_seconds - knobs.agency_key_overlap_seconds
    return TemporaryKey(
        access=f"HST{made[:17].upper()}",
        secret=f"simulated{made[17:48]}",
        security_token=f"simulated-security-token-{made[48:]}+/==",
        expires=period * renewed_after + knobs.agency_key_seconds,
    )


class Gatekeeper:
    """Lets API requests in, or raises the refusal that the gateway would send."""

    def __init__(
        self, projects: Mapping[str, SimulatedProject], seed: int, agencies: Agencies
    ) -> None:
        self._projects = projects
        self._agencies = agencies
        self._seed = seed
        self._rng = random.Random(f"tokens:{seed}")
        self._tokens: OrderedDict[str, Token] = OrderedDict()
        self._login_locks = Locks(5, 0.0)
        self._key_locks = Locks(5, 0.0)

    def set_limits(self, knobs: Knobs) -> None:
        self._login_locks.until_locked = self._key_locks.until_locked = knobs.failures_until_locked
        self._login_locks.seconds = knobs.login_lock_seconds
        self._key_locks.seconds = knobs.key_lock_seconds

    def is_locked(self, name: str, now: float) -> bool:
        """Whether a user (`domain/user`) or an access key is locked."""
        return self._login_locks.is_locked(name, now) or self._key_locks.is_locked(name, now)

    def current_key(self, now: float, knobs: Knobs) -> TemporaryKey:
        renewed_after = knobs.agency_key_seconds - knobs.agency_key_overlap_seconds
        return build_agency_key(self._seed, int(now // renewed_after), knobs)

    def revoke_tokens(self, project_id: str | None) -> None:
        """Ends the tokens given out so far, and the static ones, of a project or of all."""
        for text, token in self._tokens.items():
            if project_id in (None, token.project_id):
                self._tokens[text] = Token(token.project_id, token.expires, revoked=True)
        for project in self._projects.values():
            if project_id in (None, project.id):
                project.tokens.clear()

    def log_in(
        self, user: tuple[str, str], password: str, project_id: str, now: float, knobs: Knobs
    ) -> tuple[str, Token]:
        """A new token; raises the refusal in IAM's form."""
        name = "/".join(user)
        if self._login_locks.is_locked(name, now):
            raise _iam(401, "The account is locked because of too many failed logins.")
        granting = [p for p in self._projects.values() if p.users.get(user) == password]
        if not granting:
            self._login_locks.note_failure(name, now)
            raise _iam(401, "The username or password is wrong.")
        self._login_locks.note_success(name)
        if project_id not in [project.id for project in granting]:
            message = f"Could not find project: {project_id}."
            raise _iam(knobs.unknown_project_status, message)
        text = f"MII{self._rng.getrandbits(1024):0256x}"
        token = Token(project_id, now + knobs.token_lifetime_seconds)
        self._tokens[text] = token
        while len(self._tokens) > 10_000:
            self._tokens.popitem(last=False)
        return text, token

    def find_projects(
        self, request: IncomingRequest, now: float, knobs: Knobs, *, form: Form
    ) -> list[SimulatedProject]:
        """The projects that the request's credentials open."""
        try:
            if "authorization" in request.headers:
                return self.check_signature(request, now, knobs).projects
            return [self._check_token(request, now)]
        except RefusalError as refusal:
            if form == "iam":
                raise _iam(refusal.status, refusal.message) from None
            raise

    def check_project(
        self, request: IncomingRequest, project_id: str, now: float, knobs: Knobs
    ) -> SimulatedProject:
        """The project of a request's path, if its credentials open it."""
        opened = self.find_projects(request, now, knobs, form="gateway")
        for project in opened:
            if project.id == project_id:
                break
        else:
            wanted = self._projects.get(project_id)
            if "authorization" in request.headers:
                raise RefusalError(403, "service", "DBS.200010", "The project does not allow it.")
            if wanted is not None and wanted.region != opened[0].region:
                raise _unauthorised("The token must be updated.", "APIGW.0307")
            raise _unauthorised("the project of the token is not that of the URL")
        named = request.headers.get("x-project-id")
        signed = "authorization" in request.headers
        if (named is not None and named != project_id) or (
            named is None and signed and knobs.require_project_header
        ):
            raise _unauthorised("X-Project-Id does not name the project of the URL")
        return project

    def _check_token(self, request: IncomingRequest, now: float) -> SimulatedProject:
        text = request.headers.get("x-auth-token")
        if text is None:
            raise _unauthorised("neither a token nor a signature was sent")
        for project in self._projects.values():
            if text in project.tokens:
                return project
        token = self._tokens.get(text)
        if token is None or token.revoked or token.project_id not in self._projects:
            raise _unauthorised("decrypt token fail")
        if now >= token.expires:
            raise _unauthorised("The token must be updated.", "APIGW.0307")
        return self._projects[token.project_id]

    def check_signature(self, request: IncomingRequest, now: float, knobs: Knobs) -> Caller:
        """Who has signed the request; raises the gateway's refusal."""
        parsed = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
        if parsed is None:
            raise _unauthorised("the Authorization header is malformed")
        access, names = parsed["key"], parsed["names"].split(";")
        moment = request.headers.get("x-sdk-date", "")
        _check_signed_names(request, names)
        _check_moment(moment, now, knobs)
        if self._key_locks.is_locked(access, now):
            raise _unauthorised("the access key is locked because of too many failures")
        caller = self._find_caller(access, request, now, knobs)
        if caller is None:
            self._key_locks.note_failure(access, now)
            raise _unauthorised("the access key or its security token is not known")
        canonical = build_canonical_request(request, names)
        right = compute_signature(canonical, moment, caller.secret)
        if not hmac.compare_digest(right, parsed["signature"]):
            self._key_locks.note_failure(access, now)
            said = "verify aksk signature fail"
            if knobs.echo_refused_signature:
                said += f", canonicalRequest:{canonical} authorization:{parsed.string}"
            raise _unauthorised(said)
        self._key_locks.note_success(access)
        return caller

    def _find_caller(
        self, access: str, request: IncomingRequest, now: float, knobs: Knobs
    ) -> Caller | None:
        projects = [p for p in self._projects.values() if access in p.access_keys]
        if projects:
            return Caller(access, projects[0].access_keys[access], projects, is_temporary=False)
        security_token = request.headers.get("x-security-token", "")
        issued = self._agencies.find_key(access, security_token, now)
        if issued is not None:
            opened = issued.agency.projects
            projects = [p for p in self._projects.values() if opened is None or p.id in opened]
            return Caller(issued.agency.urn, issued.secret, projects)
        renewed_after = knobs.agency_key_seconds - knobs.agency_key_overlap_seconds
        period = int(now // renewed_after)
        while True:
            key = build_agency_key(self._seed, period, knobs)
            if key.expires <= now:
                return None
            if key.access == access and key.security_token == security_token:
                projects = [p for p in self._projects.values() if p.agency]
                return Caller(SERVER, key.secret, projects)
            period -= 1


def _check_signed_names(request: IncomingRequest, names: list[str]) -> None:
    if names != sorted(names) or any(name != name.lower() for name in names):
        raise _unauthorised("SignedHeaders is not sorted or not in lower case")
    needed = {"host", "x-sdk-date"}
    needed |= {"x-security-token", "x-project-id"} & request.headers.keys()
    missing = sorted(needed.difference(names) | set(names).difference(request.headers))
    if missing:
        raise _unauthorised(f"not signed or not sent: {', '.join(missing)}")


def _check_moment(moment: str, now: float, knobs: Knobs) -> None:
    try:
        signed_at = datetime.strptime(moment, _MOMENT).replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise _unauthorised("X-Sdk-Date is malformed") from None
    if abs(signed_at - now) > knobs.max_clock_skew_seconds:
        raise _unauthorised("the signature expired: X-Sdk-Date is too far from our clock")


def _unauthorised(message: str, code: str = "APIGW.0301") -> RefusalError:
    text = f"Incorrect IAM authentication information: {message}"
    return RefusalError(401, "gateway", code, text if code == "APIGW.0301" else message)


def _iam(status: int, message: str) -> RefusalError:
    return RefusalError(status, "iam", "", message)
