"""The documents in Chinese say the same commands, flags, keys and names as those in English."""

import re

import pytest
import yaml

from exporter.page.state import State
from tests.support.paths import ROOT

ENGLISH = (ROOT / "README.md").read_text()
CHINESE = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (ROOT / "README.zh-CN.md", *sorted((ROOT / "docs/zh-CN").glob("*.md")))
}
ALL_CHINESE = "\n".join(CHINESE.values())
# Comments of commands and YAML are in the reader's language.
COMMENT = re.compile(r"\s*(?:^|\s)# .*$|\s*#\s*[^\x00-\x7f].*$", re.MULTILINE)


def blocks(text: str) -> list[str]:
    """The fenced blocks without comments and without the white space at the ends of lines."""
    found = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [
        "\n".join(line.rstrip() for line in COMMENT.sub("", block).splitlines() if line.strip())
        for block in found
    ]


def code(text: str) -> set[str]:
    """What stands in backticks, outside of blocks."""
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)))


def test_every_block_of_the_english_readme_stands_in_chinese_too() -> None:
    assert set(blocks(ENGLISH)) <= set(blocks(ALL_CHINESE))


def test_chinese_documents_have_no_block_of_their_own() -> None:
    assert set(blocks(ALL_CHINESE)) <= set(blocks(ENGLISH))


def test_metrics_and_paths_are_the_same() -> None:
    def named(text: str) -> set[str]:
        return {word for word in code(text) if word.startswith(("gaussdb_mysql_", "/", "gaussdb"))}

    assert named(CHINESE["README.zh-CN.md"]) | named(CHINESE["docs/zh-CN/permissions.md"]) == named(
        ENGLISH
    )


def test_flags_of_chinese_documents_are_flags_of_the_english_ones() -> None:
    flags = re.compile(r"--[a-z][a-z.-]+")
    english = set(flags.findall(ENGLISH + (ROOT / "docs/operations.md").read_text()))
    assert set(flags.findall(ALL_CHINESE)) <= english


def test_every_alert_is_explained_in_chinese_with_its_severity() -> None:
    rules = yaml.safe_load(
        (ROOT / "helm/gaussdb-mysql-backup-exporter/files/alerts.yaml").read_text()
    )
    alerts = {
        rule["alert"]: rule["labels"]["severity"]
        for group in rules["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    table = re.findall(
        r"^\| \[(\w+)\]\(\.\./runbooks/\1\.md\) \| (\w+) \|",
        CHINESE["docs/zh-CN/alerts.md"],
        re.MULTILINE,
    )
    assert dict(table) == alerts


def test_chinese_table_says_which_runbooks_have_the_text_of_a_ticket() -> None:
    table = re.findall(
        r"^\| \[(\w+)\]\(.+\| (有|—) \|$", CHINESE["docs/zh-CN/alerts.md"], re.MULTILINE
    )
    pages = (ROOT / "docs/runbooks").glob("GaussDBMySQL*.md")
    assert dict(table) == {
        page.stem: "有"
        if "## Ticket" in page.read_text() and "```text" in page.read_text()
        else "—"
        for page in pages
    }


@pytest.mark.parametrize("state", [*State, "not reported"])
def test_every_state_is_explained_in_chinese(state: str) -> None:
    assert re.search(rf"\b{state}\uff08\w", CHINESE["docs/zh-CN/alerts.md"])


def test_every_alert_stands_in_the_readme_with_its_severity() -> None:
    rules = yaml.safe_load(
        (ROOT / "helm/gaussdb-mysql-backup-exporter/files/alerts.yaml").read_text()
    )
    shown = {
        f"GaussDBMySQLBackup{name}": severity
        for names, severity in re.findall(
            r"^\| [a-z ,]+ \| ((?:`\w+`(?:, )?)+) \| (\w+) \|", ENGLISH, re.MULTILINE
        )
        for name in re.findall(r"`(\w+)`", names)
    }
    assert shown == {
        rule["alert"]: rule["labels"]["severity"]
        for group in rules["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }


@pytest.mark.parametrize("name", CHINESE)
def test_chinese_documents_name_their_english_twin(name: str) -> None:
    assert "[English](" in CHINESE[name]


def test_what_it_was_tried_with_is_the_same() -> None:
    def versions(text: str, heading: str) -> list[list[str]]:
        section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| [^|]* \| ([^|]*) \|", section, re.MULTILINE)
        return [re.findall(r"[\d.]*\d", row) for row in rows]

    english = versions(ENGLISH, "What it was tried with")
    assert ["2.42", "3.16"] in english
    assert versions(CHINESE["README.zh-CN.md"], "验证过的环境") == english
