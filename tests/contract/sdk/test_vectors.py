"""The golden vectors are current, and they say what other implementations of the same functions say."""

from __future__ import annotations

import base64
import json
from typing import Any

import confluent_kafka
import pytest
import xxhash
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.contract.sdk.make_vectors import COMMAND, FOLDER, vectors


def cases(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())["cases"]


def test_the_files_are_those_that_the_command_makes() -> None:
    found = {path.name: path.read_text() for path in FOLDER.glob("*.json")}

    assert found == vectors(), f"run: {COMMAND}"


@pytest.mark.parametrize("case", cases("partitioner.json"), ids=lambda case: case["keyBase64"][:20])
def test_librdkafka_places_the_keys_as_the_vectors_say(case: dict[str, Any]) -> None:
    key = base64.b64decode(case["keyBase64"])

    found = {count: confluent_kafka.murmur2(key, int(count)) for count in case["partition"]}

    assert found == case["partition"]


def test_the_slot_hashes_are_xxh64_of_the_length_prefixed_values() -> None:
    for case in cases("slots.json"):
        texts = [value.encode() for value in case["values"]]
        packed = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
        assert str(xxhash.xxh64(packed, seed=case["seed"]).intdigest()) == case["hash"], case


def test_the_signature_is_ed25519_over_the_canonical_bytes() -> None:
    case = cases("table.json")
    sealed = json.loads(case["envelope"])
    key_id, _, public = case["publicLine"].partition(":")

    Ed25519PublicKey.from_public_bytes(base64.b64decode(public)).verify(
        base64.b64decode(sealed["signature"]), base64.b64decode(case["canonicalBase64"])
    )
    assert sealed["payload"] == case["canonicalBase64"]
    assert (sealed["alg"], sealed["keyId"]) == ("Ed25519", key_id)


def test_the_canonical_bytes_are_sorted_json_without_blanks() -> None:
    case = cases("table.json")

    plain = json.dumps(case["document"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    assert base64.b64decode(case["canonicalBase64"]) == plain.encode()


def test_the_routing_cases_meet_every_kind_of_route() -> None:
    destinations = [case["destination"] for case in cases("routing.json")]

    assert None in destinations
    assert {to["topic"] for to in destinations if to} == {"clicks", "clicks.hot.0a1b2c3d.g7"}
    assert len({to["partition"] for to in destinations if to}) > 3
