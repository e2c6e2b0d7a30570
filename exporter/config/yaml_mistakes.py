"""What a person did where the YAML parser gives up: it often stumbles a line later, elsewhere.

No message quotes what was written, but for the names of keys that are known: the rest may be a
secret.
"""

import re
from collections.abc import Collection, Iterator

import yaml

from exporter.config.document import Place

MAX_DEPTH = 100  # of collections in each other

# Characters that look like a space or like nothing: copied from web pages, chats and documents.
ODD_SPACES = {
    "\u00a0": "a no-break space (U+00A0)",
    "\u2007": "a figure space (U+2007)",
    "\u202f": "a narrow no-break space (U+202F)",
    "\u3000": "an ideographic space (U+3000)",
    "\u200b": "a zero-width space (U+200B)",
    "\u2060": "a word joiner (U+2060)",
    "\ufeff": "a byte order mark (U+FEFF)",
    **{chr(code): f"an odd space (U+{code:04X})" for code in (0x1680, *range(0x2000, 0x2007))},
    **{chr(code): f"an odd space (U+{code:04X})" for code in (0x2008, 0x2009, 0x200A, 0x205F)},
}
_ODD_SPACE = re.compile(f"[{''.join(ODD_SPACES)}]")
_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_LUMP = re.compile(r"([ \t]*(?:- +)*)([A-Za-z_][A-Za-z0-9_]*):(?![\s/]|$)")
_BARE_VARIABLE = re.compile(r"""(?<!["'\w$])\$\{([A-Za-z_][A-Za-z0-9_]*)\}""")

# The rest, in plainer words than the parser's.
_WORDS = (
    (
        "cannot start any token",
        "no value begins with this character; put a value that begins with @, ` or % in quotes",
    ),
    ("a tab character", "there is a tab: YAML is indented with spaces"),
    ("invalid Unicode character escape", "no such character; write it itself, not its \\u escape"),
    ("another document", "a second document begins here: remove the line '---'"),
    ("unexpected end of stream", "the quote that is opened here is never closed"),
    # Newer libyaml's own bound, far above ours: it looks ahead and may meet it first.
    ("maximum nesting depth", f"nested over {MAX_DEPTH} levels deep"),
    ("expected ',' or ']'", "the list that is opened with '[' goes on without ',' or ']'"),
    ("expected ',' or '}'", "the mapping that is opened with '{' goes on without ',' or '}'"),
)


def explain(text: str, error: yaml.MarkedYAMLError, keys: Collection[str]) -> tuple[Place, str]:
    """Where the mistake is and what it is; `keys` are the names that may be shown."""
    mark = error.problem_mark or error.context_mark
    assert mark is not None
    lines = _LINE_BREAK.split(text)
    found = next(_likely(lines, mark.line, error, keys), None)
    if found is not None:
        return found
    place = mark.line + 1, mark.column + 1
    problem = error.problem or "not YAML"
    if "mapping values are not allowed" in problem:
        return place, _misplaced_colon(lines, mark.line, mark.column)
    if problem.endswith(("expected key", "expected '-' indicator")):
        return place, _misplaced_line(lines, mark.line)
    for part, words in _WORDS:
        if part in problem:
            begins = error.context_mark if part == "unexpected end of stream" else mark
            assert begins is not None
            return (begins.line + 1, begins.column + 1), words
    # PyYAML quotes names of the text (tags, anchors): a password may look like one.
    shown = re.sub(r"'[^'<]{2,}'", "'...'", problem)
    context = f"{error.context}: " if error.context else ""
    return place, f"{context}{shown}"


def odd_space_in(text: str) -> str | None:
    """The name of a character at an end of `text` that only looks like a space."""
    return next((ODD_SPACES[end] for end in (text[:1], text[-1:]) if end in ODD_SPACES), None)


def lumped_key(text: str, keys: Collection[str]) -> str | None:
    """The known key of a `key:value` whose space is missing."""
    match = _LUMP.match(text)
    return match[2] if match and match[2] in keys else None


def _likely(
    lines: list[str], at: int, error: yaml.MarkedYAMLError, keys: Collection[str]
) -> Iterator[tuple[Place, str]]:
    """Mistakes on the line where the parser stumbles or on the one before, likeliest first."""
    numbers = [n for n in (at, at - 1, at - 2) if 0 <= n < len(lines)]
    for n in numbers[:2]:
        indentation = re.match(r"[ \t]*(?:-[ \t]+)*", lines[n])
        assert indentation is not None
        if "\t" in indentation[0]:
            column = indentation[0].index("\t") + 1
            yield (n + 1, column), "there is a tab: YAML is indented with spaces"
    for n in numbers:
        if (odd := _ODD_SPACE.search(lines[n])) is not None:
            what = ODD_SPACES[odd[0]]
            yield (n + 1, odd.start() + 1), f"there is {what}: type a plain space in its place"
    for n in numbers:
        if (dash := re.match(r" *-(?=[A-Za-z_]+:( |$))", lines[n])) is not None:
            yield (n + 1, dash.end()), "a space is missing after '-'"
    for n in numbers:
        match = _LUMP.match(lines[n])
        if match is not None and "flow" not in (error.context or ""):
            key = f"'{match[2]}:'" if match[2] in keys else "the colon"
            yield (n + 1, match.end()), f"a space is missing after {key}"
    if "flow" in (error.context or ""):
        for n in numbers[:2]:
            if (bare := _BARE_VARIABLE.search(lines[n])) is not None:
                shown = f"${{{bare[1]}}}" if bare[1].isupper() else "a ${...}"
                yield (
                    (n + 1, bare.start() + 1),
                    f'put {shown} in quotes inside {{ }} and [ ]: "${{...}}"',
                )


def _misplaced_colon(lines: list[str], line: int, column: int) -> str:
    before = lines[line][:column] if line < len(lines) else ""
    if ": " in before:
        return "a second colon in one line: put a value that holds ': ' in quotes"
    return f"a key in the middle of the value above it: {_indentation(lines, line)}"


def _misplaced_line(lines: list[str], line: int) -> str:
    return f"no line above begins in this column: {_indentation(lines, line)}"


def _indentation(lines: list[str], line: int) -> str:
    here = lines[line] if line < len(lines) else ""
    above = next(
        (text for text in reversed(lines[:line]) if text.strip() and text.strip()[0] != "#"), ""
    )
    return (
        f"check the indentation (it begins in column {_first_column(here)}, the line above in"
        f" column {_first_column(above)})"
    )


def _first_column(line: str) -> int:
    match = re.match(r" *(?:- +)*", line)
    assert match is not None
    return match.end() + 1
