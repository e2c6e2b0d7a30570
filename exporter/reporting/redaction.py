"""Takes secrets out of text that others wrote, before it is logged or shown.

An API's error message can echo the request that it refuses, with its headers: the token, the
signature, the access key. Known secrets are found by value, in every escaped form that is usual;
unknown ones by what they look like. Time is linear in the text, whose length is bounded.
"""

import base64
import html
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

import structlog
from structlog.typing import EventDict, WrappedLogger

MASK = "[redacted]"
MIN_SECRET_CHARS = 6
"""Shorter values are not looked for: they would tear holes into ordinary words."""
INPUT_LIMIT_CHARS = 8_192
_TRACEBACK_LIMIT_CHARS = 65_536
_MAX_DEPTH = 8


# --- By shape -------------------------------------------------------------------------------

# Between a name and its value, in a header, a canonical request, JSON, a dict's or list's repr.
_IS = r"""(?:\\?["']? ?[:=] ?|["'], ?(?=b?["']))"""
_QUOTED = r"""(?:"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?)"""
_BARE = r"""[^\s"'|]"""
_CONFIDENTIAL = (
    r"(?=[abpst])(?:password|passwd|passphrase|pwd|secret(?:[_-]?access)?(?:[_-]?key)?|token"
    r"|(?:api|private)[_-]?key|basic[_-]?auth|(?<![a-z])sk)"
)
_CONFIDENTIAL_HEADER = r"x-(?:auth|subject|security|metadata|storage|service|domain)-token"
_ACCESS_KEY = r"(?<![a-z])(?:access(?:[_-]?key(?:[_-]?id)?)?|ak)"
_BASE64 = r"A-Za-z0-9+/_=\\-"
# A long path of this API is made of the same characters as a token, and worth reading.
_API_PATH = rf"[\w-]*+/v3/[\w-]{{1,64}}/instances(?:/[\w-]{{1,64}}){{0,2}}/?(?![{_BASE64}])"


class _Shape(NamedTuple):
    """What a secret looks like; tried only on texts with one of `hints`, which costs far less."""

    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    replacement: str


def _shape(hints: tuple[str, ...], pattern: str, replacement: str = MASK) -> _Shape:
    return _Shape(hints, re.compile(pattern), replacement)


_SHAPES = (
    _shape(
        ("private key",),
        r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]*(?:-----END [A-Z ]{0,40}-----)?",
    ),
    # To the end of the line, since schemes differ. Gateways write `|` for the end of a line.
    _shape(
        ("authorization", "cookie"),
        rf"(?i)((?:authorization|cookie){_IS})(?:b?\\?{_QUOTED}|[^\n|]*)",
        rf"\g<1>{MASK}",
    ),
    _shape(
        ("-token",),
        rf"(?i)({_CONFIDENTIAL_HEADER}{_IS})(?:b?\\?{_QUOTED}|[^\s\"'|\\]+)",
        rf"\g<1>{MASK}",
    ),
    # Quoted after any sign; bare after `=`; bare after a colon only if it ends the line, for else
    # it is a sentence about a password.
    _shape(
        ("pass", "pwd", "secret", "token", "key", "auth", "sk"),
        rf"(?im)({_CONFIDENTIAL}(?:{_IS}b?\\?(?=[\"'])|=|: ?(?={_BARE}{{1,256}}+ ?(?:$|[|#]))))"
        rf"(?:{_QUOTED}|(?<==)[^\s\"'|&]+|{_BARE}+)",
        rf"\g<1>{MASK}",
    ),
    _shape(
        ("access", "ak"),
        rf"(?i)({_ACCESS_KEY}{_IS}b?\\?[\"']?)([a-z0-9]{{4}})[a-z0-9_-]{{8,}}",
        rf"\g<1>\g<2>{MASK}",
    ),
    _shape(
        ("signature",),
        rf"(?i)(signature{_IS}\\?[\"']?)[a-z0-9+/_=-]{{16,}}",
        rf"\g<1>{MASK}",
    ),
    _shape(("://",), r"(://)[^\s/?#]*@", rf"\g<1>{MASK}@"),
    _shape(
        ("basic ", "bearer "),
        r"\b((?:[Bb]asic|[Bb]earer) )(?=\S+[A-Z0-9=])[\w+/=.~-]{8,}",
        rf"\g<1>{MASK}",
    ),
    _shape(("$2",), r"\$2[abxy]?\$\d\d\$[./A-Za-z0-9]{20,}"),  # bcrypt
    _shape(("eyj",), r"(?<![\w-])eyJ[\w-]{8,}+\.[\w.-]{10,}"),  # JSON web token
    _shape(("mii",), rf"(?<![A-Za-z0-9+/])MII[{_BASE64}]{{30,}}"),  # IAM token
    _shape(("",), rf"(?<![{_BASE64}])(?!{_API_PATH})[{_BASE64}]{{100,}}"),
)
_CONFIDENTIAL_KEY = re.compile(
    rf"(?i)(?:{_CONFIDENTIAL}|(?:authorization|cookie)|{_CONFIDENTIAL_HEADER}|signature)$"
)
_ACCESS_KEY_KEY = re.compile(rf"(?i){_ACCESS_KEY}$")


# --- By value -------------------------------------------------------------------------------

_LINE_BREAKS = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]")
# Controls, odd spaces, marks that reorder or hide text, and halves of surrogate pairs.
_UNPRINTABLE = re.compile(
    r"[\x00-\x09\x0e-\x1f\x7f-\xa0\xad\u1680\u2000-\u200f\u202a-\u202f\u205f-\u206f\u3000"
    r"\ud800-\udfff\ufeff\ufff9-\uffff]"
)
_RUN_OF_SPACES = re.compile(r"[ \n]{2,}")


def _clean(text: str) -> str:
    """Printable, in lines, each run of white space one character."""
    text = _UNPRINTABLE.sub(" ", _LINE_BREAKS.sub("\n", text))
    return _RUN_OF_SPACES.sub(lambda run: "\n" if "\n" in run[0] else " ", text)


def _one_line(text: str) -> str:
    return text.replace("\n", " ")


def _forms(secret: str) -> set[str]:
    """The secret as it may stand in a text: raw, and escaped as programs do; none if too short."""
    if len(secret) < MIN_SECRET_CHARS:
        return set()
    raw = secret.encode("utf-8", "surrogatepass")
    forms = {secret, repr(secret)[1:-1], html.escape(secret), quote_plus(raw)}
    for ensure_ascii in (True, False):
        escaped = json.dumps(secret, ensure_ascii=ensure_ascii)[1:-1]
        forms |= {escaped, escaped.replace("/", "\\/")}
    for safe in ("", "/", "!$&'()*+,;=:@/?"):
        escaped = quote(raw, safe=safe)
        forms |= {escaped, re.sub("%..", lambda code: code[0].lower(), escaped)}
    for shift in range(3):  # in base64 of something longer it may begin at any of three places
        encoded = base64.b64encode(bytes(shift) + raw).decode()
        core = encoded[(0, 2, 3)[shift] : (shift + len(raw)) * 8 // 6]
        forms |= {core, core.replace("+", "-").replace("/", "_")}
    readable = {_one_line(_clean(form)) for form in forms}
    return {form for form in readable if len(form) >= MIN_SECRET_CHARS}


class _KnownForms:
    """All forms of all known secrets, found in one pass however many there are."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.longest = 0
        self._starts: re.Pattern[str] | None = None  # any of them; None until it is asked for
        self._holders: Counter[str] = Counter()
        self._by_start: dict[str, tuple[str, ...]] = {}
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str) -> None:
        for form in _forms(secret):
            self._holders[form] += 1
            if self._holders[form] == 1:
                start = form[:MIN_SECRET_CHARS]
                self._by_start[start] = (*self._by_start.get(start, ()), form)
                self.longest = max(self.longest, len(form))
                self._starts = None

    def remove(self, secret: str) -> None:
        for form in _forms(secret):
            self._holders[form] -= 1
            if self._holders[form] == 0:
                del self._holders[form]
                start = form[:MIN_SECRET_CHARS]
                others = tuple(other for other in self._by_start[start] if other != form)
                self._by_start[start] = others
                if not others:
                    del self._by_start[start]
                    self._starts = None

    def find(self, text: str, stop: int | None = None) -> list[tuple[int, int]]:
        """Where they stand in `text`, overlapping ones as one, up to those that start at `stop`."""
        found: list[tuple[int, int]] = []
        if not self._by_start:
            return found
        if self._starts is None:
            self._starts = re.compile("|".join(map(re.escape, self._by_start)))
        if stop is None:
            stop = len(text)
        position = 0
        while (candidate := self._starts.search(text, position)) is not None:
            start = candidate.start()
            if start >= stop:
                break
            position = start + 1
            for form in self._by_start[candidate[0]]:
                if text.startswith(form, start):
                    end = start + len(form)
                    if found and start <= found[-1][1]:
                        found[-1] = (found[-1][0], max(end, found[-1][1]))
                    else:
                        found.append((start, end))
        return found


def _redact(text: str, known: _KnownForms, *, limit: int, max_chars: int, lines: bool) -> str:
    # A secret that begins before the limit is seen whole, though nothing after it is shown.
    window = _clean(text[: limit + known.longest])
    goes_on = len(text) > limit + known.longest
    shown = min(limit, max(0, len(window) - known.longest) if goes_on else len(window))
    is_cut = goes_on or shown < len(window)

    pieces = []
    position = 0
    for start, end in known.find(_one_line(window), stop=shown):
        pieces += [window[position:start], MASK]
        position = end
    result = "".join([*pieces, window[position:shown]])
    if is_cut:  # the last word may be the first half of something unknown
        result = result[: max(result.rfind(" "), result.rfind("\n"), 0)]
    lowered = result.lower()
    for hints, pattern, replacement in _SHAPES:
        if any(hint in lowered for hint in hints):
            result = pattern.sub(replacement, result)

    result = (result if lines else _one_line(result)).strip()
    if is_cut or len(result) > max_chars:
        result = result[: max_chars - 1].rstrip() + "…"
    # What is left must never spell a secret, by whatever joining of pieces.
    return "***" if known.find(_one_line(result)) else result


def redact(text: str, secrets: Iterable[str] = (), *, max_chars: int = 300) -> str:
    """`text` without secrets, on one line, printable, of at most `max_chars` characters.

    Not escaped for HTML: that is the page's part. A caller with lasting secrets keeps them in a
    `SecretRegistry` and asks that.
    """
    known = _KnownForms(secrets)
    return _redact(text, known, limit=_input_limit(max_chars), max_chars=max_chars, lines=False)


def _input_limit(max_chars: int) -> int:
    """How much is looked at, where so much is shown: masks are shorter than what they hide."""
    return min(INPUT_LIMIT_CHARS, 2 * max_chars)


class SecretRegistry:
    """The secrets that are in use now, by owner: passwords, secret keys, tokens."""

    def __init__(self) -> None:
        self._known = _KnownForms()
        self._held: dict[str, tuple[frozenset[str], frozenset[str]]] = {}

    def __repr__(self) -> str:
        return f"SecretRegistry({len(self._held)} owners)"

    def update(self, owner: str, secrets: Iterable[str]) -> None:
        """`owner` (a credential's name) uses these secrets now, instead of its earlier ones.

        The generation before stays known: a late answer may still echo the token just replaced.
        """
        current, previous = self._held.get(owner, (frozenset(), frozenset()))
        new = frozenset(secrets)
        if new == current:
            return
        self._held[owner] = (new, current)
        for secret in new:
            self._known.add(secret)
        for secret in previous:
            self._known.remove(secret)

    def redact(self, text: str, *, max_chars: int = 300) -> str:
        """Like the function `redact`, with all secrets held here."""
        limit = _input_limit(max_chars)
        return _redact(text, self._known, limit=limit, max_chars=max_chars, lines=False)

    def redact_traceback(self, text: str) -> str:
        """Like `redact`, but lines and length stay."""
        limit = _TRACEBACK_LIMIT_CHARS
        return _redact(text, self._known, limit=limit, max_chars=limit, lines=True)


class RedactSecrets:
    """A structlog processor: no value of a log event leaves with a secret in it.

    Place it last before the renderer. It formats `exc_info` itself if nobody did before.
    """

    def __init__(self, registry: SecretRegistry, *, max_chars: int = 1_000) -> None:
        self._registry = registry
        self._max_chars = max_chars

    def __call__(self, logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
        event_dict = structlog.processors.format_exc_info(logger, method_name, event_dict)
        for key, value in event_dict.items():
            if key in ("_record", "_from_structlog"):  # structlog's own, never rendered
                continue
            if key in ("exception", "stack") and isinstance(value, str):
                event_dict[key] = self._registry.redact_traceback(value)
            else:
                event_dict[key] = self._redact_value(value, key=key)
        return event_dict

    def _redact_value(self, value: object, *, key: object = "", depth: int = 0) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(key, str) and not isinstance(value, Mapping):
            if _CONFIDENTIAL_KEY.search(key):
                return MASK
            if _ACCESS_KEY_KEY.search(key):
                return self._redact_text(str(value)[:4] + MASK)
        if isinstance(value, int | float):
            return value
        if depth < _MAX_DEPTH:
            if isinstance(value, Mapping):
                return {
                    self._redact_text(k) if isinstance(k, str) else k: self._redact_value(
                        v, key=k, depth=depth + 1
                    )
                    for k, v in value.items()
                }
            if isinstance(value, list | set | frozenset):
                return [self._redact_value(item, depth=depth + 1) for item in value]
            if isinstance(value, tuple):
                return tuple(self._redact_value(item, depth=depth + 1) for item in value)
        if isinstance(value, BaseException):
            return self._redact_text(f"{type(value).__name__}: {value}")
        if isinstance(value, bytes | bytearray):
            return self._redact_text(value.decode("utf-8", "replace"))
        return self._redact_text(str(value))

    def _redact_text(self, text: str) -> str:
        return self._registry.redact(text, max_chars=self._max_chars)
