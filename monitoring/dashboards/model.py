"""*Model*: what it is asked, what it answers, and whether that is still right."""

from __future__ import annotations

from typing import Any

from monitoring.dashboards.layout import assemble, feature_variable
from monitoring.dashboards.panels import ORANGE, RED, Column, Panel, Query, graph, heat_map, stat_panel
from monitoring.dashboards.panels import table_panel as table
from monitoring.dashboards.promql import (
    PODS,
    RECORDED,
    VERSION,
    increase,
    mean,
    quantile,
    rate,
    series,
    share,
    stable_top,
    total,
)

ROWS = "muelle_batch_rows_sum"
CLASSES = "muelle_predictions_total"
CONFIDENCE = "muelle_prediction_confidence"
OUTCOMES = "muelle_feedback_outcomes_total"
CORRECT = "muelle_feedback_correct_total"
MATCHED = 'result="matched"'
ACCURACY = 'score="accuracy"'
BY_VERSION = "{{model}} {{version}}"
#: Columns of the answer, as rules/drift.yml tells them from features.
ANSWERS = r'feature=~"predict(\\[[0-9]+\\])?|confidence"'
FEATURES = r'feature!~"predict(\\[[0-9]+\\])?|confidence"'
CHOSEN = 'feature=~"$feature"'
FEATURE = ("namespace", "model", "version", "feature")
BIN = (*FEATURE, "bin")
#: The limit of the alerts in rules/drift.yml.
LIMIT = 0.2


def recorded(rule: str, *more: str) -> str:
    """Return a selector of a recording rule."""
    return series(rule, *more, of=RECORDED)


def drifting(*more: str) -> str:
    """Return the PSI excess of what fulfils the alerts' conditions, whose window is an hour."""
    return (
        f"{recorded('muelle:feature_psi_excess:ratio1h', *more)} > {LIMIT} and "
        f"{recorded('muelle:feature_psi:ratio1h')} > {recorded('muelle:feature_psi_critical:ratio1h')} and "
        f"{recorded('muelle:feature_observations:increase1h')} > 200"
    )


def build() -> Any:
    """Return the dashboard."""
    return assemble(
        "model",
        "Muelle / Model",
        "What models are asked and answer, drift against the data that they were made from, and quality from labels.",
        {
            "Now": _now(),
            "Predictions": _predictions(),
            "Drift of the data": _drift(),
            "Quality, from feedback": _quality(),
            "What is not counted or logged": _losses(),
        },
        shows="now-6h",
        more_variables=[feature_variable()],
    )


def _now() -> list[Panel]:
    return [
        stat_panel("Predictions", "Rows predicted per second.", "rowsps", total(rate(ROWS))),
        stat_panel(
            "Columns that drift",
            "Features, predictions and confidence that fulfil the conditions of the drift alerts now: PSI exceeds "
            "its noise by more than 0.2 and its critical value, with more than 200 rows in an hour.",
            "none",
            f"count({drifting()}) or vector(0)",
            thresholds=((1, ORANGE), (5, RED)),
        ),
        stat_panel(
            "Largest drift",
            "The largest PSI above its noise, of all features, over the last hour.",
            "none",
            f"max({recorded('muelle:feature_psi_excess:ratio1h', FEATURES)})",
            thresholds=((LIMIT, ORANGE), (2 * LIMIT, RED)),
        ),
        stat_panel(
            "Confidence",
            "Mean of a row's largest probability. Of a calibrated classifier it is also what accuracy to expect, "
            "before there are labels.",
            "percentunit",
            mean(CONFIDENCE),
        ),
        stat_panel(
            "Accuracy",
            "Of the labels that came in what is shown, the share that was predicted. See coverage before believing it.",
            "percentunit",
            share(increase(CORRECT), increase(OUTCOMES)),
            instant=True,
            empty="no labels",
        ),
        stat_panel(
            "Coverage",
            "Labels that found their prediction, in what is shown, for each row predicted in it. Late labels can "
            "bring it above 100 %.",
            "percentunit",
            share(increase("muelle_feedback_total", MATCHED), increase(ROWS)),
            instant=True,
            empty="no labels",
        ),
    ]


def _predictions() -> list[Panel]:
    by_class = ("model", "class")
    shares = f"{total(rate(CLASSES), *VERSION, 'class')} / on ({', '.join(VERSION)}) group_left () "
    shares += f"({total(rate(CLASSES), *VERSION)} > 0)"
    return [
        graph(
            "Predictions by class",
            "Rows per second by predicted class; the 20 first classes and other.",
            "rowsps",
            Query(total(rate(CLASSES), *by_class), "{{model}} {{class}}"),
            width=12,
            stack="normal",
        ),
        graph(
            "Share of each class by version",
            "Of a version's rows. A candidate whose shares differ from the stable version's decides differently.",
            "percentunit",
            Query(shares, "{{model}} {{version}} {{class}}"),
            width=12,
            maximum=1,
        ),
        heat_map(
            "Confidence, all rows",
            "How many rows got which largest probability. Counted where probabilities were asked for.",
            "percentunit",
            total(f"increase({series(f'{CONFIDENCE}_bucket')}[$__rate_interval])", "le"),
            width=12,
        ),
        graph(
            "Confidence by version",
            "Mean of a row's largest probability.",
            "percentunit",
            Query(mean(CONFIDENCE, *VERSION), BY_VERSION),
            width=12,
            maximum=1,
        ),
    ]


def _drift() -> list[Panel]:
    excess = "muelle:feature_psi_excess:ratio1h"
    by_feature = "{{model}} {{version}} {{feature}}"
    missing = recorded("muelle:feature_bin:ratio1h", 'bin=~"missing|other"', CHOSEN)
    return [
        graph(
            "Drift by feature",
            "PSI over the last hour above what noise makes of it on average: the ten that were largest. Alerts from "
            "0.2 on.",
            "none",
            Query(stable_top(10, recorded(excess, FEATURES, CHOSEN), *FEATURE), by_feature),
            width=12,
            thresholds=((LIMIT, RED),),
        ),
        graph(
            "Drift of the answers",
            "The same of predictions and of confidence.",
            "none",
            Query(recorded(excess, ANSWERS), by_feature),
            width=12,
            thresholds=((LIMIT, RED),),
        ),
        _features(),
        _bins(),
        graph(
            "Missing and unseen values",
            "Share of missing values, and of categories outside the reference's frequent ones (other), in the last "
            "hour's rows: the ten that were largest.",
            "percentunit",
            Query(stable_top(10, missing, *BIN), "{{model}} {{version}} {{feature}} {{bin}}"),
            width=12,
        ),
        graph(
            "Rows in the window",
            "Rows of the last hour in the feature that was counted least. No alert below 200: too few to tell drift "
            "from noise.",
            "none",
            Query(
                f"min by (model, version) ({recorded('muelle:feature_observations:increase1h', FEATURES)})", BY_VERSION
            ),
            width=12,
            thresholds=((200, RED),),
        ),
    ]


def _features() -> Panel:
    keys = {"model": "Model", "version": "Version", "feature": "Column"}

    def column(rule: str) -> Column:
        return Column(f"max by ({', '.join(keys)}) ({recorded(rule, CHOSEN)})", "none")

    return table(
        "Columns",
        "Each column over the last hour: PSI, what of it is above noise, what noise reaches in one of a thousand "
        "windows (critical), and the rows that were counted. It has drifted when the excess is above 0.2 and PSI "
        "above critical.",
        keys,
        {
            "PSI": column("muelle:feature_psi:ratio1h"),
            "Excess": column("muelle:feature_psi_excess:ratio1h"),
            "Critical": column("muelle:feature_psi_critical:ratio1h"),
            "Rows": column("muelle:feature_observations:increase1h"),
        },
        sort_by="Excess",
    )


def _bins() -> Panel:
    keys = {"model": "Model", "version": "Version", "feature": "Column", "bin": "Bin"}
    observed = f"max by ({', '.join(keys)}) ({recorded('muelle:feature_bin:ratio1h', CHOSEN)})"
    reference = f"max by ({', '.join(keys)}) ({recorded('muelle:feature_reference:ratio', CHOSEN)})"
    changed = f"topk(20, abs({observed} - {reference}))"
    return table(
        "Most changed bins",
        "The 20 bins whose share of the last hour's rows differs most from the reference. Bins of numbers are 00, "
        "01, … from low to high; their edges are in the bundle's profile.json.",
        keys,
        {
            "Observed": Column(f"{observed} and {changed}", "percentunit"),
            "Reference": Column(f"{reference} and {changed}", "percentunit"),
            "Difference": Column(changed, "percentunit"),
        },
        sort_by="Difference",
    )


def _quality() -> list[Panel]:
    feedback = "muelle_feedback_total"
    matched = rate(feedback, MATCHED)
    labels = f"({total(matched, *VERSION)} > 0)"
    # Every model has labels; only regressors have errors.
    squared = total(rate("muelle_feedback_squared_error_total"), *VERSION)
    absolute = total(rate("muelle_feedback_absolute_error_total"), *VERSION, "direction")
    lag = rate("muelle_feedback_lag_seconds_bucket")
    return [
        graph(
            "Accuracy by version",
            "Share of the labels that came in an interval that the version had predicted, and the same of the "
            "held-out rows when it was made. Classifiers only.",
            "percentunit",
            Query(share(rate(CORRECT), rate(OUTCOMES), *VERSION), BY_VERSION),
            Query(f"max by (model, version) ({series('muelle_model_score', ACCURACY)})", f"{BY_VERSION} when made"),
            maximum=1,
        ),
        graph(
            "Error by version",
            "Regressors: root of the mean squared error, and the mean error, of predictions that were too high "
            "(over) and too low (under) apart; together those are the mean absolute error. In the unit of what is "
            "predicted.",
            "none",
            Query(f"sqrt({squared} / {labels})", f"{BY_VERSION} root mean square"),
            Query(
                f"{absolute} / on ({', '.join(VERSION)}) group_left () {labels}",
                f"{BY_VERSION} {{{{direction}}}}",
            ),
        ),
        graph(
            "Coverage by version",
            "Labels that found their prediction, for each row predicted in the same interval.",
            "percentunit",
            Query(share(matched, rate(ROWS), *VERSION), BY_VERSION),
        ),
        _confusion(),
        graph(
            "Labels by what became of them",
            "matched: found its prediction. duplicate: had been told before. unmatched: no pod remembers the "
            "prediction.",
            "suffix: labels/s",
            Query(total(rate(feedback, of=PODS), "result"), "{{result}}"),
            stack="normal",
        ),
        graph(
            "How late labels are",
            "From the answer to when the label was observed; half of them, and nine of ten, are faster.",
            "s",
            *[Query(quantile(q, lag, "model"), f"{{{{model}}}} p{round(q * 100)}") for q in (0.5, 0.9)],
        ),
    ]


def _confusion() -> Panel:
    keys = {"model": "Model", "version": "Version", "actual": "Actual", "predicted": "Predicted"}
    return table(
        "Confusion",
        "Labels in what is shown, by what was true and what had been predicted.",
        keys,
        {"Labels": Column(f"{total(increase(OUTCOMES), *keys)} > 0", "none")},
        width=8,
        sort_by="Labels",
    )


def _losses() -> list[Panel]:
    return [
        graph(
            "Not counted",
            "Rows per second that were answered and not counted for drift or logged, because the worker was too busy "
            "(full) or counting failed (error).",
            "rowsps",
            Query(total(rate("muelle_observations_dropped_total"), "model", "reason"), "{{model}} {{reason}}"),
        ),
        graph(
            "Prediction log",
            "Rows per second that were written to the prediction log.",
            "rowsps",
            Query(total(rate("muelle_prediction_log_rows_total"), *VERSION), BY_VERSION),
        ),
        graph(
            "Lost for the prediction log",
            "Rows per second that the prediction log had to leave out: its bounded spool was full, or writing failed.",
            "rowsps",
            Query(total(rate("muelle_prediction_log_dropped_total"), "model", "reason"), "{{model}} {{reason}}"),
        ),
    ]
