"""A rules file as large as any is likely to be: the same text for the same counts."""

from __future__ import annotations

GROUPS = 100


def large_rules(*, rules: int, patterns: int) -> str:
    """So many rules over groups of so many tags and patterns in all; every fifth of these has a `*`."""
    each = patterns // GROUPS
    lines = ["version: 2", "dsl_mode: strict", "rule_titles:"]
    lines += [f"  rule_{number}: Rule number {number} / 規則 {number}" for number in range(rules)]
    lines.append("groups:")
    for group in range(GROUPS):
        lines.append(f"  group_{group}:")
        lines += [f'    - "{_tag(group, place)}"' for place in range(each)]
    lines.append("features:")
    lines += [f"  feature_{number}: max(rating.explicit, max(group_{number}))" for number in range(20)]
    lines.append("rules:")
    for number in range(rules):
        one, other = number % GROUPS, (number * 7 + 1) % GROUPS
        lines += [
            f"  - id: rule_{number}",
            f"    severity: {('red', 'orange', 'yellow')[number % 3]}",
            f"    priority: {number}",
            "    when: >-",
            f"      (max(group_{one}) >= 0.35 || count(group_{other}, gt=0.5) >= 2) && feature_{number % 20} >= 0.2",
            "      && !channel.is_nsfw && (rating.questionable + rating.explicit >= 0.5 || exposure_score > 0.6)",
            "    reasons:",
            f'      - "group {one} {{max(group_{one}):.2f}}, explicit {{rating.explicit:.2f}}"',
        ]
    return "\n".join(lines) + "\n"


def _tag(group: int, place: int) -> str:
    return f"tag_{group}_{place}_*" if place % 5 == 0 else f"tag_{group}_{place}"
