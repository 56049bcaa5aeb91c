"""Every reason the operator gives, once: shared by status, Events, metrics and the command line."""

from __future__ import annotations

from enum import StrEnum


class ConditionType(StrEnum):
    READY = "Ready"  # the loop turns, the stream is governed by this policy and its table is published
    HOT = "Hot"  # at least one key of the stream is routed
    NOT_YET_SUPPORTED = "NotYetSupported"  # a field of the spec is accepted but not carried out
    DEDICATED_TOPICS_READY = "DedicatedTopicsReady"  # nothing keeps a key from its own topic; where enabled


class Reason(StrEnum):
    """Why something was done, or not done."""

    # decisions
    STEADY = "Steady"  # no partition is over the trigger
    WAITING = "Waiting"  # over the trigger, but not yet for `trigger.for`
    SAMPLING = "Sampling"  # over the trigger; the evidence is not yet strong enough
    SPREAD = "Spread"  # a hot key was spread over shards
    RESPREAD = "Respread"  # a spread key was planned anew
    REPARTITIONED = "Repartitioned"  # the partition count changed; every route was planned anew
    MERGED_BACK = "MergedBack"  # a cooled key is a plain key again
    COOLING = "Cooling"  # cool, but not yet for `release.for`
    HOLDING = "Holding"  # a spread key is still hot; the plan stands
    SETTLING = "Settling"  # the effect of the last change is not yet visible
    BALANCED = "Balanced"  # over the trigger, but the load is even: nothing to gain
    PARTIAL_ADOPTION = "PartialAdoption"  # a spread key still arrives plain, from producers without the table
    FLAPPING = "Flapping"  # a key went back and forth; its next change waits longer
    # dedicated topics
    PREPARING = "Preparing"  # a topic for the key is being made, or waits for the consumer groups
    DEDICATED = "Dedicated"  # a hot key got, or has, a topic of its own
    RETURNED_TO_BASE = "ReturnedToBase"  # a key's records go to the base topic again
    UNREGISTERED_GROUP = "UnregisteredGroup"  # a group reads the base topic and the policy does not name it
    CONSUMERS_NOT_READING = "ConsumersNotReading"  # a named group does not read the dedicated topic yet
    GROUPS_NOT_KNOWN = "GroupsNotKnown"  # which groups read the topic could not be asked
    TOO_MANY_DEDICATED_TOPICS = "TooManyDedicatedTopics"  # `limits.maxDedicatedTopics` is reached
    TOPIC_QUOTA_EXCEEDED = "TopicQuotaExceeded"  # the brokers make no further topic: a quota, or their policy
    REPLICATION_FACTOR_TOO_HIGH = "ReplicationFactorTooHigh"  # fewer brokers than the base topic has replicas
    NOT_AUTHORIZED = "NotAuthorized"  # the operator may not make topics of that name
    TOPIC_NOT_MADE = "TopicNotMade"  # the brokers refused for another reason
    TOPIC_REPLACED = "TopicReplaced"  # a dedicated topic was deleted or made anew by a person
    WEAKER_THAN_BASE = "WeakerThanBase"  # a dedicated topic keeps records less safely than the base topic
    TOPIC_ALLOWED = "TopicAllowed"  # a person allowed a topic that was in no table: it is an idle one now
    UNLISTED_TOPIC = "UnlistedTopic"  # it is named like ours and in no table: read, never written
    # why nothing can be done
    NO_DOMINANT_KEY = "NoDominantKey"
    NOT_SAMPLED = "NotSampled"  # `metrics.sampling` is off and no producer reports its keys
    SLOW_CONSUMER = "SlowConsumer"  # lag that grows on every partition alike: no key is to blame
    TOPIC_COMPACTED = "TopicCompacted"
    TOO_MANY_HOT_KEYS = "TooManyHotKeys"
    KEY_TOO_LONG = "KeyTooLong"  # to stand in a table that every client reads
    ONE_PARTITION = "OnePartition"
    DIMENSIONS_NOT_VISIBLE = "DimensionsNotVisible"
    CANNOT_SPREAD = "CannotSpread"  # one value of the dimensions is the load
    ORDERING_FORBIDS = "OrderingForbids"  # `ordering: PerKey` allows no shards
    SUSPENDED = "Suspended"
    OBSERVING = "Observing"  # mode Observe: decided, not applied
    RATE_LIMITED = "RateLimited"  # `limits.changesPerMinute` is reached
    # the state of the policy
    GOVERNING = "Governing"
    TOPIC_NOT_FOUND = "TopicNotFound"
    ANOTHER_POLICY = "AnotherPolicy"  # an older policy governs the same stream
    FORMER_POLICY = "FormerPolicy"  # the object still returns a deleted policy's topic to plain keys
    INVALID_SPEC = "InvalidSpec"
    KAFKA_UNAVAILABLE = "KafkaUnavailable"
    REDIS_UNAVAILABLE = "RedisUnavailable"
    KUBERNETES_UNAVAILABLE = "KubernetesUnavailable"  # the RoutingTable object cannot be read or written
    REPUBLISHED = "Republished"  # Redis had lost the table or held an older one
    TABLE_REWRITTEN = "TableRewritten"  # the RoutingTable object held nonsense and was made anew
    TABLE_CONFLICT = "TableConflict"  # someone else wrote the RoutingTable object
    RETURNED = "Returned"  # the policy is deleted and the stream is back to plain keys
    FIELDS_NOT_CARRIED_OUT = "FieldsNotCarriedOut"
    NONE_SPREAD = "NoneSpread"


# Over the trigger, and nothing can be done about it.
UNMENDED = frozenset(
    {
        Reason.NO_DOMINANT_KEY,
        Reason.NOT_SAMPLED,
        Reason.TOPIC_COMPACTED,
        Reason.TOO_MANY_HOT_KEYS,
        Reason.KEY_TOO_LONG,
        Reason.ONE_PARTITION,
        Reason.DIMENSIONS_NOT_VISIBLE,
        Reason.CANNOT_SPREAD,
        Reason.ORDERING_FORBIDS,
        Reason.RATE_LIMITED,
    }
)
