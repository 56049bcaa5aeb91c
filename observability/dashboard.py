"""The Grafana dashboard of hotkey, made by code: `make generate` writes it into the chart.

It knows the names of metrics and how to draw them, and nothing of how they come about. Every query is of one
policy, which the reader chooses; `max without (instance, pod)` is left to the `by` of each query, so that an
operator that moved to another pod is still the same one.
"""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.builders import common as style
from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import StackingMode
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DynamicConfigValue,
    VariableRefresh,
    VariableSort,
)

from observability.drawing import SOURCE, Drawn, figure, heat, lines, rows, states

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "charts/hotkey-operator/files/dashboard.json"
COMMAND = "make generate"

POLICY = 'namespace="$namespace",policy="$policy"'
GOVERNED = f"on (topic) hotkey_operator_policy_info{{{POLICY}}}"
CHANGES = "Spread|Respread|Repartitioned|MergedBack|Dedicated|ReturnedToBase"
WIDTH = 24


def of(metric: str, *more: str) -> str:
    """The metric of the chosen policy, with more matchers."""
    return f"hotkey_operator_{metric}{{{','.join((POLICY, *more))}}}"


def rate(metric: str) -> str:
    """Per second, over what a pixel can show."""
    return f"rate({metric}[$__rate_interval])"


def quantile(part: float, metric: str, window: str) -> str:
    """A quantile of a histogram over a window."""
    return f"histogram_quantile({part}, sum by (le) (rate({metric}[{window}])))"


def now() -> list[Drawn]:
    applied, clients = of("clients_applied", 'role="producer"'), of("clients", 'role="producer"')
    skew = ((1.2, "orange"), (2.0, "red"))
    return [
        figure(
            "Ready",
            "Whether the policy's condition Ready is True.",
            f"min({of('ready')})",
            steps=((1.0, "green"),),
            least="red",
            words={0: "no", 1: "yes"},
        ),
        figure(
            "Imbalance",
            "Max over mean of the records per partition over 60 s.",
            f"max({of('imbalance')})",
            steps=skew,
        ),
        figure(
            "With every key plain",
            "What the imbalance would be without hotkey.",
            f"max({of('imbalance_unspread')})",
            steps=skew,
        ),
        figure("Keys spread", "Routed keys.", f"max({of('hot_keys')})"),
        figure(
            "Topic",
            "Records per second of the whole topic.",
            f"max({of('records_per_second')})",
            unit="recps",
        ),
        figure(
            "Producers on the table",
            "Of those that report.",
            f"sum({applied}) / sum({clients})",
            unit="percentunit",
            steps=((1.0, "green"),),
            least="orange",
        ),
        figure(
            "Last turn",
            "How long ago the operator's last turn for this policy ended.",
            f"time() - max({of('last_turn_timestamp_seconds')})",
            unit="s",
            steps=((30, "orange"), (60, "red")),
        ),
        figure(
            "Trigger to table",
            "Half of the keys that were spread in the chosen time had their table published within.",
            quantile(0.5, of("trigger_to_publish_seconds_bucket"), "$__range"),
            unit="s",
        ),
    ]


def load() -> list[Drawn]:
    return [
        heat(
            "Partitions",
            "Records per second of each partition over 10 s; one row a partition.",
            "records/s",
            f"max by (partition) ({of('partition_records_per_second')})",
            "{{partition}}",
        ),
        lines(
            "Imbalance, measured and with every key plain",
            "Max over mean of the partitions over 60 s; 1 is even. The distance is what hotkey takes off.",
            "short",
            (f"max({of('imbalance')})", "measured"),
            (f"max({of('imbalance_unspread')})", "with every key plain"),
        ).height(12),
    ]


def keys() -> list[Drawn]:
    share = f"max by (key) ({of('key_share_ratio')})"
    shares = lines(
        "Share of each routed key",
        "Part of the topic's records, from samples.",
        "percentunit",
        (share, "{{key}}"),
    )
    return [
        rows(
            "Hot keys",
            "The keys that are spread now. Empty where the operator leaves keys out of metrics.",
            "key",
            {
                "share": ("percentunit", share),
                "records/s": ("recps", f"max by (key) ({of('key_records_per_second')})"),
                "shards": ("short", f"max by (key) ({of('key_shards')})"),
            },
        ),
        shares.stacking(style.StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(30),
    ]


def decisions() -> list[Drawn]:
    told = of("events_total", f'reason=~"{CHANGES}"')
    changes = f"sum by (reason) (increase({told}[$__rate_interval]))"
    moved = f"sum({rate(of('slots_moved_ratio_sum'))}) / sum({rate(of('slots_moved_ratio_count'))})"
    return [
        states(
            "Decision",
            "The reason of each turn's decision.",
            f"max by (reason) ({of('decision')})",
            "{{reason}}",
        ),
        states(
            "Skew that is not mended",
            "A partition is over the trigger and left so: why.",
            f"max by (reason) ({of('unmended')})",
            "{{reason}}",
        ),
        lines("Changes of routes", "Tables with other routes, by reason.", "short", (changes, "{{reason}}")),
        lines(
            "Dedicated topics",
            "Topics of their own that keys have or had, by phase; all of them are read.",
            "short",
            (f"max by (phase) ({of('dedicated_topics')})", "{{phase}}"),
        ),
        states(
            "Topics held up",
            "A key waits for a topic of its own, or one needs a person: why.",
            f"max by (reason) ({of('dedicated_held_up')})",
            "{{reason}}",
        ),
        lines(
            "Slots that a change moved",
            "The mean part of a changed key's slots; 0 is no disturbance.",
            "percentunit",
            (moved, "moved"),
        ),
    ]


def adoption() -> list[Drawn]:
    behind = f"max(hotkey_operator_epoch{{{POLICY}}})"
    oldest = f"min by (topic) (hotkey_sdk_table_epoch and {GOVERNED})"
    outcomes = f"sum by (outcome) (rate(hotkey_sdk_tables_total[$__rate_interval]) and {GOVERNED})"
    return [
        lines(
            "Clients",
            "Those that report, and those that apply the current table.",
            "short",
            (f"max by (role) ({of('clients')})", "{{role}}s"),
            (f"max by (role) ({of('clients_applied')})", "{{role}}s on the current table"),
        ),
        lines(
            "Epochs behind",
            "By how much the oldest table of any SDK client is behind the operator's.",
            "short",
            (f"scalar({behind}) - {oldest}", "{{topic}}"),
        ),
        lines(
            "Tables that clients looked at",
            "By what became of them, from the SDK.",
            "ops",
            (outcomes, "{{outcome}}"),
        ),
        lines(
            "Of each routed key, what does not follow",
            "The part that still arrives as before: from producers without the table.",
            "percentunit",
            (f"max by (key) ({of('key_stray_ratio')})", "{{key}}"),
        ),
        lines(
            "Consumer lag",
            "Of each group, on the partition where it is furthest behind.",
            "s",
            (f"max by (group) ({of('consumer_group_lag_seconds')})", "{{group}}"),
        ),
    ]


def cost() -> list[Drawn]:
    turn = of("turn_seconds_bucket")
    operator = "and on (instance, job) hotkey_operator_build_info"
    return [
        lines(
            "Bytes read as samples",
            "What the brokers sent for samples of this topic.",
            "Bps",
            (f"sum({rate(of('sampled_bytes_total'))})", "bytes/s"),
        ),
        lines(
            "Records read as samples",
            "Of this topic.",
            "recps",
            (f"sum({rate(of('sampled_records_total'))})", "records/s"),
        ),
        lines(
            "Duration of a turn",
            "Sensing, deciding and applying.",
            "s",
            (quantile(0.5, turn, "$__rate_interval"), "median"),
            (quantile(0.99, turn, "$__rate_interval"), "99 %"),
        ),
        lines(
            "The operator's process",
            "For all of its policies.",
            "short",
            (f"rate(process_cpu_seconds_total[$__rate_interval]) {operator}", "cores {{instance}}"),
            (f"process_resident_memory_bytes {operator}", "bytes {{instance}}"),
        ).override_by_regexp(
            "bytes.*",
            [
                DynamicConfigValue(id_val="unit", value="bytes"),
                DynamicConfigValue(id_val="custom.axisPlacement", value="right"),
            ],
        ),
    ]


def publishing() -> list[Drawn]:
    return [
        lines(
            "Table published",
            "1 while Redis holds the table that was last decided.",
            "short",
            (f"min({of('table_published')})", "published"),
        ),
        lines(
            "Failures to publish",
            "Turns that could not write the RoutingTable or publish it, by reason.",
            "ops",
            (f"sum by (reason) ({rate(of('publish_failures_total'))})", "{{reason}}"),
        ),
        lines(
            "From the trigger to the table",
            "From the first turn that saw the heat until it was published.",
            "s",
            (quantile(0.5, of("trigger_to_publish_seconds_bucket"), "1h"), "median of an hour"),
            (quantile(0.95, of("trigger_to_publish_seconds_bucket"), "1h"), "95 % of an hour"),
        ),
        lines(
            "Reads that Redis did not answer",
            "By SDK clients, of any topic.",
            "ops",
            ("sum(rate(hotkey_sdk_store_failures_total[$__rate_interval]))", "failures"),
        ),
    ]


def counting() -> list[Drawn]:
    return [
        lines(
            "Clicks",
            "By aggregators, of any topic: what became of each.",
            "ops",
            (counted("clicks_counted"), "counted"),
            (counted("clicks_duplicate"), "seen before"),
            (counted("payload_conflicts"), "seen before with another payload"),
        ),
        lines(
            "Freshness",
            "How old the watermark is when a flush is committed: what a query lacks.",
            "s",
            (quantile(0.5, "hotkey_aggregator_freshness_seconds_bucket", "$__rate_interval"), "median"),
            (quantile(0.99, "hotkey_aggregator_freshness_seconds_bucket", "$__rate_interval"), "99 %"),
        ),
        lines(
            "Age of the watermark",
            "Of each aggregator that reads partitions; it grows while a log cannot be read.",
            "s",
            (
                "time() - (hotkey_aggregator_watermark_timestamp_seconds > 0"
                " and hotkey_aggregator_assigned_partitions > 0)",
                "{{instance}}",
            ),
        ),
        lines(
            "Records not read yet",
            "Of the partitions of each aggregator.",
            "short",
            ("hotkey_aggregator_lag_records", "{{instance}}"),
        ),
        lines(
            "Store",
            "1 while it answers, and 1 while nothing is read because it is behind; flushes tried again.",
            "short",
            ("min(hotkey_aggregator_store_available)", "answers"),
            ("max(hotkey_aggregator_paused)", "paused"),
            (counted("store_retries"), "retries/s"),
        ),
        lines(
            "Duration of a flush",
            "What the store takes for it.",
            "s",
            (quantile(0.5, "hotkey_aggregator_flush_seconds_bucket", "$__rate_interval"), "median"),
            (quantile(0.99, "hotkey_aggregator_flush_seconds_bucket", "$__rate_interval"), "99 %"),
        ),
        lines(
            "Dead letters",
            "Records that are not counted, by reason, and how they come into their topic.",
            "ops",
            (counted("records_rejected", "reason"), "{{reason}}"),
            (counted("dead_letters_delivered"), "delivered"),
            (counted("dead_letter_failures"), "attempts that failed"),
        ),
        lines(
            "Logs that are not what they were",
            "How often, in the time that a point stands for.",
            "short",
            (happened("records_expired"), "records expired unread"),
            (happened("logs_truncated"), "logs truncated"),
            (happened("topics_recreated"), "partitions made anew"),
            (happened("offset_jumps"), "offset jumps"),
        ),
    ]


def counted(metric: str, *by: str) -> str:
    """What all aggregators count per second."""
    grouped = f"sum by ({', '.join(by)})" if by else "sum"
    return f"{grouped}({rate(f'hotkey_aggregator_{metric}_total')})"


def happened(metric: str) -> str:
    """How often something came to all aggregators."""
    return f"sum(increase(hotkey_aggregator_{metric}_total[$__rate_interval]))"


ROWS = (
    ("Now", now, WIDTH // 8),
    ("Load", load, WIDTH // 2),
    ("Keys", keys, WIDTH // 2),
    ("Decisions", decisions, WIDTH // 2),
    ("Adoption", adoption, WIDTH // 2),
    ("The cost of sensing", cost, WIDTH // 2),
    ("Publishing", publishing, WIDTH // 2),
    ("Aggregator", counting, WIDTH // 2),
)


def made() -> str:
    """The dashboard as JSON, as it stands in the chart."""
    board = dashboard.Dashboard("hotkey").uid("hotkey").tags(["hotkey", "kafka"]).editable()
    board = board.description(
        f"A HotKeyPolicy and its topic. Made by observability/dashboard.py, `{COMMAND}`."
    )
    board = board.tooltip(DashboardCursorSync.CROSSHAIR).refresh("30s").time("now-1h", "now")
    for variable in _variables():
        board = board.with_variable(variable)
    for title, panels, span in ROWS:
        board = board.with_row(dashboard.Row(title))
        for panel in panels():
            board = board.with_panel(panel.span(span))
    return json.dumps(_numbered(board.build()), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _numbered(board: Dashboard) -> Dashboard:
    """With an id for each panel, so that a link to one stays good."""
    for number, panel in enumerate(board.panels or (), 1):
        panel.id_val = number
    return board


def _variables() -> list[dashboard.DatasourceVariable | dashboard.QueryVariable]:
    known = "hotkey_operator_policy_info"
    return [
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        _values("namespace", "Namespace", f"label_values({known}, namespace)"),
        _values("policy", "Policy", f'label_values({known}{{namespace="$namespace"}}, policy)'),
    ]


def _values(name: str, label: str, values: str) -> dashboard.QueryVariable:
    variable = dashboard.QueryVariable(name).label(label).query(values).datasource(SOURCE)
    return variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)


def main() -> None:
    FILE.write_text(made())
    print(f"wrote {FILE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
