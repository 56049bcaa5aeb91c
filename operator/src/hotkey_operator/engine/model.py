"""The values that pass between gather, decide and apply. Frozen, pure, and all that the three share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hotkey_operator.engine.reasons import ConditionType, Reason
from hotkey_sdk.routing.report import ClientReport
from hotkey_sdk.routing.table import Stream, Table


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What the cluster says of the base topic.

    `topic_id`: another one once it was made anew; empty: unknown.
    """

    stream: Stream
    partitions: int
    compacted: bool
    topic_id: str = ""


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """How safely a topic keeps records. `retention_bytes` is of one partition; -1: without a bound."""

    replication: int
    min_insync: int
    retention_ms: int
    retention_bytes: int
    timestamp_type: str
    unclean_election: bool
    max_message_bytes: int


@dataclass(frozen=True, slots=True)
class TopicSeen:
    """A topic as the brokers describe it."""

    topic_id: str
    partitions: int
    config: TopicConfig


@dataclass(frozen=True, slots=True)
class SampledRecord:
    """One record of a sample; `key` as it stands in Kafka, `dimensions` those that could be read from it."""

    key: bytes | None
    size_bytes: int
    dimensions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartitionSample:
    """A bounded sample of one partition's tail: records in runs, each run from one random offset.

    Records within a run are neighbours of one compressed batch and so not independent: error bounds come
    from the spread over runs. `spans`: the offsets [first, end) that each run was read through, in the order
    of `runs`, so that one may hold no record; empty where they are not known. `bytes_read`: what reading it
    cost, at most. `failure`: why there are no runs, in words for people.
    """

    partition: int
    runs: tuple[tuple[SampledRecord, ...], ...]
    spans: tuple[tuple[int, int], ...] = ()
    bytes_read: int = 0
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class EndOffsets:
    """The end offset of every partition, in partition order, read at `at` (unix seconds).

    `unread`: partitions that were not asked for this time; they have their offset of an earlier reading.
    """

    at: float
    offsets: tuple[int, ...]
    unread: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class CountedKey:
    """A key as producers counted it on one partition, per second.

    `missed`: the most records/s beyond `records_per_second` that it may carry (a bounded sketch counts some
    records under no key).
    """

    records_per_second: float
    bytes_per_second: float
    missed: float


@dataclass(frozen=True, slots=True)
class KeyTally:
    """What producers told of one partition: all that they sent to it, and its heavy keys.

    `since`: unix seconds of the operator's clock at which the oldest count in it began. `samples`: records
    that were looked at. `unlisted`: the most records/s that any key carries which is not in `keys`.
    """

    partition: int
    since: float
    records_per_second: float
    bytes_per_second: float
    samples: int
    unlisted: float
    keys: Mapping[bytes, CountedKey]


@dataclass(frozen=True, slots=True)
class StoredTable:
    """The truth: the table in the RoutingTable object, and the version to compare and set against.

    `tombstone`: it was left by a policy that was deleted.
    """

    table: Table
    resource_version: str
    tombstone: bool = False


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A RoutingTable object that holds no valid table: `problem` says why, in words for people."""

    problem: str
    resource_version: str
    tombstone: bool = False


@dataclass(frozen=True, slots=True)
class Published:
    """What Redis holds for the stream, as far as it could be verified.

    `reachable` False: Redis did not answer. `table` None and `garbage` None: nothing is published.
    `garbage`: a digest of something that stands there and is no valid table of this stream. `former_key`: the
    table is signed by a key that is trusted and signs no more.
    """

    reachable: bool
    table: Table | None = None
    garbage: str | None = None
    former_key: bool = False


@dataclass(frozen=True, slots=True)
class Committed:
    """What a consumer group has committed: partition to the offset of the next record that it wants.

    A partition without a commit is left out. `failure`: why the group could not be asked.
    """

    group: str
    offsets: Mapping[int, int]
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the registered groups are. `starts`: the first offset that the log still holds, where asked."""

    groups: tuple[Committed, ...]
    starts: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DedicatedSeen:
    """What was learned of the stream's dedicated topics; what could not be learned is not there.

    `base`: the base topic's configuration. `topics`: those that the table lists and some that are only named
    like them, by name; None: there is no topic of that name. `totals`: the sum of a topic's end offsets;
    `ends`: the same of one in preparation; `unmeasured`: of which it took too long. `groups`: of a topic
    in preparation, and every few seconds of one that is written, what the registered groups have committed
    on it. `on_base`: every other group of the cluster that has committed on the base topic, None where they
    were not asked. `listed_on_base`: the registered ones, None where what is
    written was not asked for.
    `alike`: all topics of the cluster that are named like dedicated ones of the stream, None where they were
    not listed. `failure`: why something is missing.
    """

    base: TopicConfig | None = None
    topics: Mapping[str, TopicSeen | None] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    ends: Mapping[str, int] = field(default_factory=dict)
    unmeasured: tuple[str, ...] = ()
    groups: Mapping[str, tuple[Committed, ...]] = field(default_factory=dict)
    on_base: tuple[Committed, ...] | None = None
    listed_on_base: tuple[Committed, ...] | None = None
    alike: tuple[str, ...] | None = None
    failure: str | None = None


class Read(StrEnum):
    """What a turn reads beside the topic and its end offsets, and goes on without."""

    SAMPLES = "samples"
    LOG_SIZES = "log sizes"
    KEY_REPORTS = "producers' key reports"


@dataclass(frozen=True, slots=True)
class Observation:
    """All that one turn knows. `topic` None: it does not exist; `rival` names the older policy, if any.

    At most one of `stored` and `unreadable` is there: the object with its table, or the object without one.
    """

    at: float
    topic: TopicFacts | None
    ends: EndOffsets | None = None
    samples: tuple[PartitionSample, ...] = ()
    stored: StoredTable | None = None
    published: Published = Published(reachable=False)
    reports: tuple[ClientReport, ...] = ()
    rival: str | None = None
    failure: str | None = None  # why the topic or its end offsets could not be read, in words for people
    amiss: Mapping[Read, str] = field(default_factory=dict)  # the same of what is read beside them
    unreadable: Unreadable | None = None
    log_sizes: EndOffsets | None = None  # bytes of each partition's log instead of offsets
    tallies: tuple[KeyTally, ...] = ()  # of partitions whose producers told their keys
    progress: Progress | None = None  # None: the consumer groups were not asked this turn
    dedicated: DedicatedSeen | None = None  # None: the policy and the table know no dedicated topics
    policy_uid: str = ""  # names of dedicated topics are made with it

    @property
    def resource_version(self) -> str | None:
        """The version of the object, whatever it holds; None where there is none."""
        found = self.stored or self.unreadable
        return found.resource_version if found is not None else None


@dataclass(frozen=True, slots=True)
class WriteTable:
    """Write `table` to the RoutingTable object if its version is still this one (None: create it).

    `anew`: delete the object first, as the API server lets no epoch of a stream be followed by a lower one.
    """

    table: Table
    resource_version: str | None
    anew: bool = False


@dataclass(frozen=True, slots=True)
class PublishTable:
    """Publish `table` to Redis; `over`: the digest of garbage that may be replaced whatever its epoch."""

    table: Table
    over: str | None = None


@dataclass(frozen=True, slots=True)
class CreateTopic:
    """Make a topic that the RoutingTable object lists already; `config` says what it must not be below."""

    name: str
    partitions: int
    config: TopicConfig


@dataclass(frozen=True, slots=True)
class TopicAttempt:
    """What became of one attempt to make a topic, at `at` (unix seconds).

    `topic_id`: it was made by this attempt. `reason` and `problem`: why it was not, in words for people.
    """

    name: str
    topic_id: str = ""
    reason: Reason | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class EmitEvent:
    """A Kubernetes Event on the policy, once per thing that happened."""

    reason: Reason
    message: str
    warning: bool = False


Action = WriteTable | PublishTable | CreateTopic | EmitEvent


@dataclass(frozen=True, slots=True)
class Basis:
    """What a verdict rests on: the key's hottest partition and the sample of it.

    `partition_share`: the key's part of the partition's records (or bytes) in 0..1, and half the width of its
    95 % interval. `batches`: the runs that the bound comes from. `age_seconds`: of the sample.
    """

    partition: int
    partition_records_per_second: float
    partition_share: float
    partition_share_error: float
    records: int
    batches: int
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What the decision takes: pairs of (key, partition), and the part of the key's slots that moved (0..1).

    `order`: what is given up, in words for people.
    """

    order: str
    partitions: int
    slots_moved: float


@dataclass(frozen=True, slots=True)
class Rejected:
    """What was not done instead, such as a coarser rung or `leave it plain`, and why."""

    option: str
    reason: Reason
    why: str


@dataclass(frozen=True, slots=True)
class KeyVerdict:
    """What was decided for one key, and from what: rates in records/s, shares of the topic in 0..1."""

    key: bytes
    reason: Reason
    message: str
    records_per_second: float
    share: float
    share_error: float
    shards: int = 0
    by: tuple[str, ...] = ()
    basis: Basis | None = None
    cost: Cost | None = None
    rejected: tuple[Rejected, ...] = ()
    stray: float = 0.0  # the part of a routed key that does not follow its route, 0..1


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition for status; the writer adds `observedGeneration` and `lastTransitionTime`."""

    type: ConditionType
    status: bool
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class ConsumerLag:
    """How far a group is behind on the partition where it is furthest behind, in seconds and in records.

    All None: it has committed nothing on this topic, or could not be asked lately. `failure`: why it could
    not be asked the last time.
    """

    group: str
    seconds: float | None = None
    partition: int | None = None
    records: int | None = None
    failure: str | None = None


class Sizes(StrEnum):
    """Where the sizes come from that bytes per second are made of."""

    NONE = "none"
    SAMPLED = "sampled"
    LOG_SIZE = "logSize"


@dataclass(frozen=True, slots=True)
class Sampling:
    """What reading samples takes: bytes/s over the last minute, at most, and the partitions looked at then.

    `real`: the part of the offsets that are records, where the others are markers of transactions.
    """

    bytes_per_second: float = 0.0
    partitions: int = 0
    real: float = 1.0


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of status: imbalance is max/mean of the records appended per partition over 60 s."""

    epoch: int = 0
    partitions: int = 0
    records_per_second: float | None = 0.0  # None: not measured yet
    imbalance: float | None = None
    hottest_partition: int | None = None
    producers: int = 0
    producers_applied: int = 0
    consumers: int = 0
    consumers_applied: int = 0
    sizes: Sizes = Sizes.NONE
    sampling: Sampling = Sampling()
    consumer_lag: tuple[ConsumerLag, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """One turn's outcome: what to do in order, what to tell, and what the next turn must remember."""

    actions: tuple[Action, ...]
    reason: Reason
    message: str
    verdicts: tuple[KeyVerdict, ...] = ()
    conditions: tuple[Condition, ...] = ()
    summary: Summary = Summary()
