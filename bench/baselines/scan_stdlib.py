"""p3 as it is written without further thought: what `modbot scan` is measured against.

One process, the standard library's json and csv, each expression parsed once and its tree walked for every record, over
the dicts that json gives. It writes the same findings, report and metrics for well-formed p2 records and for rules
that need no forgiveness: no tolerance of odd records, no filters, no known images, no warnings.

python -m bench.baselines.scan_stdlib RULES P2_JSONL FINDINGS REPORT METRICS
"""

from __future__ import annotations

import ast
import csv
import fnmatch
import heapq
import json
import math
import operator
import re
import sys
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import yaml

SEVERITIES = ("red", "orange", "yellow", "green")
RATINGS = ("general", "sensitive", "questionable", "explicit")
XSIGNALS = (
    *("exposure_score", "placement_risk_pre", "nsfw_margin", "nsfw_ratio", "nsfw_general_sum"),
    *("nudity_area_ratio", "nudity_box_count"),
)
GROUP_SIGNALS = {
    "violence_sum": ("sum", "violence"),
    "violence_max": ("max", "violence"),
    "minors_sum": ("sum", "minors"),
    "minors_peak": ("max", "minors"),
    "gore_sum": ("sum", "gore"),
    "gore_peak": ("max", "gore"),
    "drug_score": ("max", "drugs"),
    "animals_sum": ("sum", "animal_subjects"),
    "animals_peak": ("max", "animal_subjects"),
    "animal_context_peak": ("max", "animal_contexts"),
    "sexual_explicit_sum": ("sum", "sexual_explicit"),
    "sexual_modifier_sum": ("sum", "sexual_modifiers"),
    "dismember_peak": ("max", "dismember"),
}
ALIASES = {
    "exposure_area": "nudity_area_ratio",
    "exposure_count": "nudity_box_count",
    "violence_peak": "violence_max",
    "minors_max": "minors_peak",
    "gore_max": "gore_peak",
    "animals_max": "animals_peak",
    "placement_risk": "placement_risk_pre",
}
COMPARISONS: dict[type[ast.cmpop], Any] = {
    ast.GtE: operator.ge,
    ast.Gt: operator.gt,
    ast.LtE: operator.le,
    ast.Lt: operator.lt,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
OPERATORS: dict[type[ast.AST], Any] = {
    ast.Not: operator.not_,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
COLUMNS = (
    *("severity", "rule_id", "rule_title", "message_link", "author_id", "is_nsfw_channel"),
    *(f"wd14_rating_{name}" for name in RATINGS),
    *("top_tags", "nudity_tops", "exposure_score", "placement_risk_pre", "nsfw_margin", "nsfw_ratio"),
    *("nsfw_general_sum", "violence_tags", "animals_sum", "reasons"),
    *("message_count", "other_message_links", "other_author_ids", "sha256"),
)


@cache
def normalise(tag: str) -> str:
    """The one spelling of a tag."""
    return re.sub(r"[\s-]+", "_", unicodedata.normalize("NFKC", tag).strip().lower())


class Group:
    """Tags by name and by pattern."""

    def __init__(self, items: list[str]) -> None:
        tags = [normalise(str(item)) for item in items]
        self.patterns = [tag for tag in tags if set(tag) & set("*?[")]
        self.names = set(tags) - set(self.patterns)

    def holds(self, tag: str) -> bool:
        """Whether the tag belongs to it."""
        return tag in self.names or any(fnmatch.fnmatchcase(tag, pattern) for pattern in self.patterns)


def parse(text: str) -> ast.expr:
    """The expression's tree, by way of Python's grammar."""
    text = re.sub(r"!(?!=)", " not ", text.replace("&&", " and ").replace("||", " or "))
    return ast.parse(" ".join(text.split()), mode="eval").body


class Rules:
    """A rules file, its expressions parsed."""

    def __init__(self, source: bytes) -> None:
        raw = yaml.safe_load(source)
        self.titles = raw.get("rule_titles", {})
        self.groups = {normalise(name): Group(items) for name, items in raw["groups"].items()}
        self.groups_of = cache(lambda tag: [name for name, group in self.groups.items() if group.holds(tag)])
        self.constants = {f"const_{name}": value for name, value in raw.get("thresholds", {}).items()}
        self.features = {name: parse(str(text)) for name, text in raw.get("features", {}).items()}
        self.rules = [
            {**rule, "when": parse(rule["when"]), "reasons": [split_reason(text) for text in rule.get("reasons", [])]}
            for rule in raw["rules"]
        ]

    def judge(self, record: dict[str, Any], tags: dict[str, float]) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """The winning rule, and the values by name."""
        names = self.names(record, tags)
        for name, tree in self.features.items():
            names[name] = float(self.value(tree, names))
        best: dict[str, Any] | None = None
        for rule in self.rules:
            if self.value(rule["when"], names):
                if best is None or order(rule) < order(best):
                    best = rule
                if rule.get("stop"):
                    break
        return best, names

    def names(self, record: dict[str, Any], tags: dict[str, float]) -> dict[str, Any]:
        """What the record's expressions can name."""
        groups: dict[str, list[float]] = {name: [] for name in self.groups}
        for tag, score in tags.items():
            for name in self.groups_of(tag):
                groups[name].append(score)
        signals = {name: record["xsignals"][name] for name in XSIGNALS}
        for name, (function, group) in GROUP_SIGNALS.items():
            scores = groups.get(group, [])
            signals[name] = math.fsum(scores) if function == "sum" else max(scores, default=0.0)
        detections = record["nudity_detections"]
        signals["exposure_peak"] = max((d["score"] for d in detections if d["class"].endswith("_EXPOSED")), default=0.0)
        for name, other in ALIASES.items():
            signals[name] = signals[other]
        return {
            **signals,
            **self.constants,
            "groups": groups,
            "tags": tags,
            "classes": {found["class"] for found in detections},
            "signals": signals,
            "rating": record["wd14"]["rating"],
            "channel": {"is_nsfw": record["is_nsfw_channel"]},
            "attachment_count": sum(len(message["attachments"]) for message in record["messages"]),
            "metrics": signals,
        }

    def value(self, node: ast.expr, names: dict[str, Any]) -> Any:  # noqa: ANN401, C901, PLR0911 - a tree is walked by one function
        """The value of an expression's tree."""
        match node:
            case ast.Compare():
                left = self.value(node.left, names)
                for compared, operand in zip(node.ops, node.comparators, strict=True):
                    right = self.value(operand, names)
                    if not COMPARISONS[type(compared)](left, right):
                        return False
                    left = right
                return True
            case ast.Name():
                return names[node.id]
            case ast.Constant():
                return node.value
            case ast.Attribute(value=ast.Name(id=owner), attr=key):
                return names[owner][key]
            case ast.BoolOp():
                value = None
                for operand in node.values:
                    value = self.value(operand, names)
                    if bool(value) is isinstance(node.op, ast.Or):
                        return value
                return value
            case ast.UnaryOp() | ast.BinOp():
                operands = [node.operand] if isinstance(node, ast.UnaryOp) else [node.left, node.right]
                return OPERATORS[type(node.op)](*(self.value(operand, names) for operand in operands))
            case ast.Call():
                return self.call(node, names)
        raise ValueError(ast.unparse(node))

    def call(self, node: ast.Call, names: dict[str, Any]) -> Any:  # noqa: ANN401, PLR0911 - as `value`
        """The value of a call."""
        function = dotted(node.func)
        first = node.args[0]
        if function == "score":
            return names["tags"].get(normalise(ast.literal_eval(first)), 0.0)
        if function == "nude.has":
            return ast.literal_eval(first).upper() in names["classes"]
        group = names["groups"].get(first.id) if isinstance(first, ast.Name) else None
        if group is None:
            values = [self.value(argument, names) for argument in node.args]
            functions: dict[str, Any] = {"sum": sum, "max": max, "min": min}
            return functions[function](values)
        given = [self.value(argument, names) for argument in (*node.args[1:], *(word.value for word in node.keywords))]
        if function == "sum":
            return math.fsum(group)
        if function == "max":
            return max(group, default=0.0)
        if function == "count":
            return sum(score >= (given or [0.35])[0] for score in group)
        if function == "any":
            return any(score >= (given or [0.35])[0] for score in group)
        if function == "topk_sum":
            return math.fsum(heapq.nlargest(int(given[0]), [score for score in group if score >= (*given, 0.0)[1]]))
        raise ValueError(function)

    def reason(self, pieces: list[Any], names: dict[str, Any]) -> str:
        """A reason's text."""
        return "".join(
            piece if isinstance(piece, str) else format(self.value(piece[0], names), piece[1]) for piece in pieces
        )


def dotted(node: ast.expr) -> str:
    """`name` or `owner.name`."""
    return node.id if isinstance(node, ast.Name) else f"{dotted(node.value)}.{node.attr}"  # type: ignore[attr-defined]


def order(rule: dict[str, Any]) -> tuple[int, int]:
    """Less is better."""
    return SEVERITIES.index(rule["severity"]), -rule.get("priority", 0)


def split_reason(text: str) -> list[Any]:
    """A reason's pieces: texts, and (tree, format) of each placeholder."""
    pieces: list[Any] = []
    for place, part in enumerate(re.split(r"\{([^}]*)\}", text)):
        if place % 2:
            expression, _, form = part.partition(":")
            pieces.append((parse(expression), form))
        elif part:
            pieces.append(part)
    return pieces


def tags_of(record: dict[str, Any]) -> dict[str, float]:
    """Normalised tag -> its largest score."""
    wd14 = record["wd14"] or {}
    pairs = wd14.get("general_raw") or wd14.get("general") or []
    tags = {normalise(name): score for name, score in pairs}
    if len(tags) < len(pairs):
        for name, score in pairs:
            tags[normalise(name)] = max(score, tags[normalise(name)])
    return tags


def unjudged(record: dict[str, Any], *, green: bool) -> str | None:
    """Why the record is not judged, if so."""
    if record["error"]:
        return f"not judged: {record['error']['kind']} ({record['error']['detail']})"
    if green and record["image"]["truncated"]:
        return "not judged: truncated (the image was read in part)"
    if green and record["meta"]["nudenet_error"]:
        return f"not judged: detector_failed ({record['meta']['nudenet_error']})"
    return None


def add_verdict(rules: Rules, record: dict[str, Any], tags: dict[str, float]) -> None:
    """Adds p3's keys to the record."""
    started = perf_counter()
    best, names = (None, {"signals": {}}) if record["error"] else rules.judge(record, tags)
    metrics = dict(names["signals"])
    metrics["violence_tags"] = [
        [tag, score]
        for tag, score in tags.items()
        if names["signals"] and score >= 0.35 and "violence" in rules.groups_of(tag)  # noqa: PLR2004 - the contract's
    ]
    metrics["dsl"] = {name: names[name] for name in rules.features if name in names}
    why = unjudged(record, green=best is None)
    origin = "unjudged" if why else "default" if best is None else "dsl"
    severity = "yellow" if why else "green" if best is None else best["severity"]
    record["severity"] = severity
    record["rule_id"] = best["id"] if best else None
    record["rule_title"] = rules.titles.get(best["id"]) if best else None
    record["reasons"] = [why] if why else [rules.reason(text, names) for text in best["reasons"]] if best else []
    if best and not record["reasons"]:
        record["reasons"] = [best["id"]]
    priority = best.get("priority", 0) if best else None
    metrics["winning"] = {"origin": origin, "severity": severity, "rule_id": record["rule_id"], "priority": priority}
    metrics["eval_ms"] = round((perf_counter() - started) * 1000, 3)
    record["metrics"] = metrics


def row(record: dict[str, Any], tags: dict[str, float]) -> list[str]:
    """The report's cells."""
    rating = (record["wd14"] or {}).get("rating", {})
    metrics, messages = record["metrics"], record["messages"]
    detections = [(found["class"], found["score"]) for found in record["nudity_detections"]]
    link, author = record["message_link"], record["author_id"]
    return [
        record["severity"],
        cell(record["rule_id"]),
        cell(record["rule_title"]),
        cell(link),
        cell(author),
        "true" if record["is_nsfw_channel"] else "false",
        *(number(rating.get(name)) for name in RATINGS),
        scored(sorted(tags.items(), key=lambda pair: -pair[1])[:10]),
        scored(sorted(detections, key=lambda pair: -pair[1])[:10]),
        *(number(metrics.get(name)) for name in XSIGNALS[:5]),
        scored(metrics["violence_tags"]),
        number(metrics.get("animals_sum")),
        cell(" | ".join(record["reasons"])),
        str(len(messages)),
        cell(" | ".join(dict.fromkeys(m["message_link"] for m in messages if m["message_link"] != link))),
        cell(" | ".join(dict.fromkeys(m["author_id"] for m in messages if m["author_id"] != author))),
        cell(record["sha256"]),
    ]


def cell(text: str | None) -> str:
    """The text, an apostrophe before a formula."""
    return f"'{text}" if text and text[0] in "=+-@" else text or ""


def number(value: float | None) -> str:
    """Four decimals."""
    return "" if value is None else f"{value:z.4f}"


def scored(pairs: list[Any]) -> str:
    """`name:0.93 | …`."""
    return cell(" | ".join(f"{name}:{score:.2f}" for name, score in pairs))


def main(rules_file: str, records: str, findings: str, report: str, metrics: str) -> None:
    """Scans a day."""
    started = perf_counter()
    rules = Rules(Path(rules_file).read_bytes())
    counts = {name: Counter[str]() for name in ("severity", "winning", "rules", "models")}
    latencies = []
    with (
        Path(records).open(encoding="utf-8") as lines,
        Path(findings).open("w", encoding="utf-8") as out,
        Path(report).open("w", encoding="utf-8", newline="") as table,
    ):
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(COLUMNS)
        for line in lines:
            record = json.loads(line)
            tags = tags_of(record)
            add_verdict(rules, record, tags)
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
            writer.writerow(row(record, tags))
            counts["severity"][record["severity"]] += 1
            counts["winning"][record["metrics"]["winning"]["origin"]] += 1
            if record["rule_id"]:
                counts["rules"][record["rule_id"]] += 1
            if record["wd14"]:
                counts["models"][record["wd14"]["model"]] += 1
            latencies.append(record["metrics"]["eval_ms"])
    seconds = perf_counter() - started
    document = {
        "total": len(latencies),
        **counts,
        "latency_ms_avg": sum(latencies) / len(latencies),
        "latency_ms_p95": sorted(latencies)[int(len(latencies) * 0.95)],
        "wall_time_s": seconds,
        "throughput_rps": len(latencies) / seconds,
    }
    Path(metrics).write_text(json.dumps(document, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
