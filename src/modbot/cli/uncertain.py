"""`modbot uncertain`."""

from __future__ import annotations

import math
from pathlib import Path

import click

from modbot.cli.judging import inputs_of
from modbot.cli.options import COUNT, PATH, partition, partition_options
from modbot.files.outputs import refuse_clashes
from modbot.settings import load
from modbot.words import counted


class Score(click.ParamType[float]):
    """A number from 0 to 1."""

    name = "score"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        # NaN lies in no range, but is not kept out by click's.
        if not 0 <= number <= 1:
            self.fail(f"{value!r} is no number from 0 to 1", param, ctx)
        return number


SCORE = Score()


@click.command(epilog="Example: modbot uncertain --date 2025-10-01 --q-thr 0.35 --e-thr 0.20 --eps 0.02 --topn 200")
@partition_options
@click.option("--out", type=PATH, help="CSV.  [default: OUT_DIR/profiles/NAME/review/uncertain_top200.csv]")
@click.option("--q-thr", type=SCORE, default=0.35, show_default=True, help="Threshold of rating.questionable.")
@click.option("--e-thr", type=SCORE, default=0.20, show_default=True, help="Threshold of rating.explicit.")
@click.option("--exposure-thr", type=SCORE, default=0.30, show_default=True, help="Threshold of exposure_score.")
@click.option("--eps", type=SCORE, default=0.02, show_default=True, help="How near to a threshold is uncertain.")
@click.option("--topn", type=COUNT, default=200, show_default=True, help="How many records, the nearest first.")
@click.option("--analysis", type=PATH, help="p2 records.  [default: OUT_DIR/profiles/NAME/p2/p2_DAY.jsonl]")
def uncertain(
    *,
    profile: str | None,
    date: str,
    out: Path | None,
    q_thr: float,
    e_thr: float,
    exposure_thr: float,
    eps: float,
    topn: int,
    analysis: Path | None,
) -> None:
    """Sample the records nearest to the thresholds for review."""
    from modbot.records.tags import Group
    from modbot.stages.configs import read_signal_config
    from modbot.stages.rulebook import signals_of
    from modbot.stages.uncertain import Thresholds, sample_uncertain

    part = partition(load(), profile, date)
    refuse_clashes(inputs_of([(part, analysis or part.merged("p2"))]), [("--out", out or part.uncertain)])
    # Of the signals only the exposure counts here, and it needs no vocabulary.
    signals = signals_of(Group(()), read_signal_config())
    thresholds = Thresholds(questionable=q_thr, explicit=e_thr, exposure=exposure_thr, eps=eps)
    sampled = sample_uncertain(part, thresholds, topn, signals, analysis=analysis, out=out)
    unscored = f"; {counted(sampled.unscored, 'record')} without scores" if sampled.unscored else ""
    click.echo(f"{sampled.written} of {counted(sampled.near, 'uncertain record')}{unscored}: {sampled.path}")
