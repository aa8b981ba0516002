"""What loading a large rules file costs: python -m bench.rules_load [rounds] (default 5).

300 rules over 20,000 tags and patterns, checked and compiled, in CPU seconds of the quickest round; and what it costs
to meet a tag for the first time, after which it is known.
"""

from __future__ import annotations

import sys
from time import process_time

from bench.p3_rules import large_rules
from modbot.rules import Facts, RuleSet, load_rules

RULES, PATTERNS = 300, 20_000
BAR_SECONDS = 1.0
TAGS = {f"tag_{number % 100}_{number}_new": 0.5 for number in range(500)}


def kinds() -> dict[str, str]:
    """The generated file, in which every fifth member ends in `*`, and what other shares of patterns make of it."""
    text = large_rules(rules=RULES, patterns=PATTERNS)
    prefixes = text.replace('*"', '"').replace('"\n', '*"\n')
    return {
        "every fifth a pattern": text,
        "tags only": text.replace("*", "x"),
        "patterns only, x*": prefixes,
        "patterns only, *x*": prefixes.replace('- "tag', '- "*tag'),
    }


def main() -> int:
    """Prints each kind of file; 1 where one is above the bar."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    slowest = 0.0
    for kind, text in kinds().items():
        source = text.encode()
        seconds, ruleset = min((_load(source) for _ in range(rounds)), key=lambda loaded: loaded[0])
        slowest = max(slowest, seconds)
        met = _meet(ruleset) / len(TAGS) * 1_000
        print(f"{kind}: {len(source) / 1024:.0f} KiB loaded in {seconds:.2f} s; a new tag takes {met:.2f} ms")
    print(f"slowest {slowest:.2f} s (bar {BAR_SECONDS:.0f} s)")
    return 0 if slowest < BAR_SECONDS else 1


def _load(source: bytes) -> tuple[float, RuleSet]:
    started = process_time()
    loaded = load_rules(source, file="rules.yaml")
    seconds = process_time() - started
    if loaded.ruleset is None:
        raise SystemExit(f"the generated file does not load: {loaded.issues[0].message}")
    return seconds, loaded.ruleset


def _meet(ruleset: RuleSet) -> float:
    ruleset.judge(Facts(tags={"first": 0.5}))
    started = process_time()
    ruleset.judge(Facts(tags=TAGS))
    return process_time() - started


if __name__ == "__main__":
    sys.exit(main())
