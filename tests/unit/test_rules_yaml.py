"""YAML that means harm, or only looks as if it meant something: a diagnostic, in bounded time and memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from modbot.rules import MAX_BYTES, Facts, load_rules, load_vocabulary
from modbot.rules.document import MAX_NESTING, MAX_NODES
from tests.rules_support import codes

RULE = b"{id: a, severity: red, when: 1 > 0}"
HEAD = b"version: 2\nrule_titles: {a: t}\n"


def aliases_of_aliases(inner: bytes, levels: int) -> bytes:
    lines = [b"x0: &x0 " + inner]
    lines += [b"x%d: &x%d [%s]" % (i, i, b", ".join([b"*x%d" % (i - 1)] * 9)) for i in range(1, levels)]
    return HEAD + b"\n".join(lines) + b"\nrules: [" + RULE + b"]\n"


def wide(*, members: int, groups: int) -> bytes:
    aliases = b", ".join(b"g%d: *g" % number for number in range(groups))
    return HEAD + b"groups: {g: &g [" + b"x, " * members + b"], " + aliases + b"}\nrules: [" + RULE + b"]\n"


def long_expressions(*, length: int, rules: int) -> bytes:
    text = b" or ".join([b"a"] * (length // 5))
    return HEAD + b"x: &x " + text + b"\nrules:\n" + b"- {id: a, severity: red, when: *x}\n" * rules


def chain_of_merges(length: int) -> bytes:
    lines = [b"x%d: &x%d {<<: *x%d}" % (i, i, i - 1) for i in range(1, length)]
    return HEAD + b"x0: &x0 {a: b}\n" + b"\n".join(lines) + b"\nrules: [" + RULE + b"]\n"


HOSTILE = {
    "aliases of aliases": aliases_of_aliases(b"[lol, lol, lol]", 30),
    "aliases of one large group": wide(members=50_000, groups=900),
    "aliases of one long expression": long_expressions(length=15_000, rules=1_000),
    "a chain of merges": chain_of_merges(20_000),
    "merges that double": HEAD
    + b"x0: &x0 {a: b}\n"
    + b"".join(b"x%d: &x%d {<<: [*x%d, *x%d]}\n" % (i, i, i - 1, i - 1) for i in range(1, 40))
    + b"<<: *x39\nrules: []\n",
    "an alias in itself": HEAD + b"groups: &g {a: [x], b: *g}\nrules: []\n",
    "a rule in itself": HEAD + b"rules: &r [*r, *r]\n",
    "a key in itself": HEAD + b"? &k [*k]\n: 1\nrules: []\n",
    "lists in lists": b"[" * (MAX_BYTES - 1),
    "maps in maps": b"{a: " * (MAX_BYTES // 4 - 1),
    "dashes": b"- " * (MAX_BYTES // 2),
    "question marks": b"? " * (MAX_BYTES // 2),
    "anchors": b"[" + b"&a x, " * (MAX_BYTES // 7),
    "commas": HEAD + b"x: [" + b"a," * ((MAX_BYTES - 60) // 2) + b"]\n",
    "documents": b"---\n" * (MAX_BYTES // 4),
    "an endless quote": b"a: '" + b"x" * (MAX_BYTES - 10),
    "an endless key": b"x" * MAX_BYTES,
    "groups": HEAD + b"groups:\n" + b"".join(b" g%d: ['*%d*']\n" % (i, i) for i in range(30_000)) + b"rules: []\n",
    "patterns": HEAD + b"groups: {g: [" + b"".join(b"'*%d*a*', " % i for i in range(120_000)) + b"]}\nrules: []\n",
    "keys that stand twice": HEAD + b"a: 1\n" * 100_000,
    "rules that are no maps": HEAD + b"rules:\n" + b"- x\n" * 100_000,
}


MEASURED = """
import resource, sys, time
from modbot.rules import load_rules
source = sys.stdin.buffer.read()
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
room = 400 * 1024 * 1024
resource.setrlimit(resource.RLIMIT_AS, (held + room, held + room))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
loaded = load_rules(source, file="r")
print(loaded.status, bool(loaded.issues), loaded.ruleset)
"""


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_cost_much_is_refused(name: str) -> None:
    """A process that may take 400 MiB beyond what Python and the imports hold, and a minute, does it."""
    assert len(HOSTILE[name]) <= MAX_BYTES
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED], input=HOSTILE[name], capture_output=True, check=False, timeout=120
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"error True None\n", b"")


def test_the_largest_file_that_is_taken_loads() -> None:
    rules = b"".join(
        b"- {id: r%d, severity: red, when: max(g) > 0.5 || rating.explicit > 0.5}\n" % i for i in range(3_000)
    )
    groups = b"groups: {g: [" + b", ".join(b"tag_%d_of_many" % i for i in range(60_000)) + b"]}\n"
    loaded = load_rules(b"version: 2\n" + groups + b"rules:\n" + rules, file="r")
    assert loaded.status == "ok"
    assert loaded.ruleset is not None
    assert loaded.ruleset.judge(Facts(tags={"tag_59999_of_many": 0.6})).rule_id == "r0"


def test_aliases_within_reason_are_written_out() -> None:
    shared = b"groups: {a: &a [x, y], b: *a, c: *a}\n"
    loaded = load_rules(HEAD + shared + b"rules: [{id: a, severity: red, when: max(c) > 0.5}]", file="r", mode="strict")
    assert loaded.status == "ok"
    groups = load_vocabulary(shared, file="r").groups
    assert [group.items for group in groups.values()] == [("x", "y")] * 3


def test_nesting_and_nodes_have_room() -> None:
    deep = b"x: " + b"[" * (MAX_NESTING - 3) + b"]" * (MAX_NESTING - 3) + b"\n"
    many = b"y: [" + b"a," * (MAX_NODES - 200) + b"]\n"
    assert load_rules(HEAD + deep + many + b"rules: [" + RULE + b"]", file="r").status == "ok"


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        (b'"no"', "no"),
        (b"'2025-01-01'", "2025-01-01"),
        (b'"010"', "010"),
        (b"1e3", "1e3"),
        (b"!!str 5", "5"),
        (b"a b", "a b"),
        ("規則".encode(), "規則"),
        (b"no", None),
        (b"Yes", None),
        (b"on", None),
        (b"2025-01-01", None),
        (b"2025-01-01 10:00:00", None),
        (b"010", None),
        (b"0x1F", None),
        (b"1_000", None),
        (b"1:30", None),
        (b".nan", None),
        (b"~", None),
        (b"!x y", None),
        (b"!!binary aGk=", None),
        (b"!!python/name:os.system", None),
        (b"!!python/object/apply:os.system [id]", None),
        (b"=", None),
        (b"<<", None),
    ],
)
def test_what_yaml_reads_as_something_else_is_no_id(ids: bytes, kept: str | None) -> None:
    source = b"version: 2\nrules:\n- {id: %s, severity: red, when: 1 > 0}\n- {id: z, severity: red, when: 1 > 0}" % ids
    loaded = load_rules(source, file="r")
    assert loaded.ruleset is not None
    assert [rule.id for rule in loaded.ruleset.rules] == [*([kept] if kept else []), "z"]
    assert (("R2-V001", "error") in codes(loaded)) is (kept is None)


@pytest.mark.parametrize(
    "key", [b"5", b"no", b"1.5", b"2025-01-01", b"~", b"[a]", b"{a: b}", b"!x y", b"!!binary aGk="]
)
@pytest.mark.parametrize(
    "place", [b"%s: 1\n", b"groups: {%s: [x]}\n", b"features: {%s: 1 + 1}\n", b"thresholds: {%s: 1}\n"]
)
def test_keys_that_are_no_text(key: bytes, place: bytes) -> None:
    for mode in ("warn", "strict"):
        loaded = load_rules(HEAD + place % key + b"rules: [" + RULE + b"]", file="r", mode=mode)
        assert loaded.status in {"ok", "invalid", "error"}
        assert loaded.ruleset is not None or mode == "strict"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp932", "euc-jp", "latin-1"])
def test_another_encoding_is_told_with_the_way_out(encoding: str) -> None:
    text = "version: 2\nrules: [{id: %s, severity: red, when: 1 > 0}]" % ("é" if encoding == "latin-1" else "あ")
    loaded = load_rules(text.encode(encoding), file="r")
    assert codes(loaded) == [("R2-YAML", "error")]
    assert (loaded.issues[0].hint or "").startswith("save it as UTF-8")


def test_the_place_of_a_character_that_is_not_allowed() -> None:
    loaded = load_rules("version: 2\n# あ\nrules: [a\x07b]".encode(), file="r")
    assert [(issue.line, issue.column, issue.message) for issue in loaded.issues] == [
        (3, 10, "the character U+0007 is not allowed in YAML")
    ]


@pytest.mark.parametrize("where", [b"rules: []\nrules: []\n", b"groups: {a: [x], a: [y]}\nrules: []\n"])
def test_a_key_that_stands_twice_is_an_error_with_both_places(where: bytes) -> None:
    loaded = load_rules(HEAD + where, file="r", mode="strict")
    assert (loaded.status, loaded.ruleset) == ("error", None)
    issue = next(issue for issue in loaded.issues if issue.code == "R2-YAML")
    (first,) = issue.related
    assert (first.line, first.column) < (issue.line, issue.column)
