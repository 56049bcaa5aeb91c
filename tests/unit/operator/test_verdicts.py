"""A verdict as status holds it: the same value read back, and small whatever stands in it."""

from __future__ import annotations

import json
from dataclasses import replace

from hotkey_operator.engine.model import Basis, Cost, KeyVerdict, Rejected
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.verdicts import document, key_text, verdict

BASIS = Basis(3, 2006.0, 0.96, 0.011, 412, 20, 2.0)
COST = Cost("order is kept per user_id", 10, 0.92)
REJECTED = (Rejected("leave it plain", Reason.HOLDING, "partition 3 would take 4,012 records/s"),)
NIKE = KeyVerdict(
    b"nike", Reason.SPREAD, "key nike is spread", 4012.0, 0.8, 0.01, 10, ("user_id",), BASIS, COST, REJECTED
)
OBJECT_BYTES = 1_500_000  # what etcd takes


def test_what_status_holds_is_the_value_that_was_decided() -> None:
    assert verdict(document(NIKE)) == NIKE
    plain = replace(NIKE, basis=None, cost=None, rejected=())
    assert verdict(json.loads(json.dumps(document(plain)))) == plain


def test_fifty_keys_at_their_longest_fit_into_one_object() -> None:
    long = "\U0001f525" * 10_000
    worst = replace(
        NIKE,
        key=long.encode(),
        message=long,
        cost=replace(COST, order=long),
        rejected=(Rejected(long, Reason.CANNOT_SPREAD, long),) * 100,
    )
    keys_and_plan = [document(worst)] * 100
    assert len(json.dumps(keys_and_plan, ensure_ascii=False).encode()) < OBJECT_BYTES
    usual = [document(replace(NIKE, rejected=REJECTED * 4))] * 50
    assert len(json.dumps(usual).encode()) < OBJECT_BYTES / 20


def test_keys_are_text_for_people_whatever_their_bytes() -> None:
    assert key_text(b"nike") == "nike"
    assert key_text(b"\xffx") == "\\xffx"
    assert key_text(b"") == ""
    assert len(key_text(b"k" * 10_000)) == 256


def test_an_entry_of_another_version_is_read_as_far_as_it_goes() -> None:
    read = verdict({"key": "nike", "reason": "FromTheFuture", "shards": None, "by": None, "new": 1})
    assert (read.key, str(read.reason), read.shards, read.by) == (b"nike", "FromTheFuture", 0, ())
