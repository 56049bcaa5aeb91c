"""The signing key is replaced while clients run: first both keys are trusted, then the new one signs."""

from __future__ import annotations

import base64
from pathlib import Path

import hotkey_sdk
from hotkey_sdk.routing.envelope import SigningKey
from tests.stack.operator.process import SECRET
from tests.stack.operator.scene import Scene
from tests.stack.operator.waiting import eventually


def client(scene: Scene, topic: str, keys: str) -> hotkey_sdk.Producer:
    return hotkey_sdk.Producer(
        {
            "bootstrap.servers": scene.stack.kafka.bootstrap,
            "log_level": 0,
            "hotkey.redis.url": scene.stack.redis.url_for("hotkey-producer"),
            "hotkey.public.keys": keys,
            "hotkey.topics": [topic],
        }
    )


def follows(producer: hotkey_sdk.Producer, epoch: int, state: str = "Current") -> None:
    def look() -> bool:
        tables = producer.hotkey.stats().source.tables
        assert [(each.epoch, each.state) for each in tables] == [(epoch, state)]
        return True

    eventually(f"the client is at epoch {epoch}, {state}", look)


def change_secret(scene: Scene, public_keys: str, signs: SigningKey | None = None) -> None:
    patch = f'{{"stringData": {{"public.keys": "{public_keys}"'
    if signs is not None:
        patch += f', "private.key": "{base64.b64encode(signs.private_bytes).decode()}"'
    scene.kubectl("patch", "secret", SECRET, "--type=merge", "-p", patch + "}}")


def test_clients_follow_a_change_of_the_signing_key_without_a_restart(
    scene: Scene, topic: str, tmp_path: Path
) -> None:
    # given clients that trust the old key: one from a file, one for good
    operator = scene.operator()
    scene.apply("clicks", {"topic": topic})
    scene.wait_for_condition("clicks", "Governing")
    first = scene.wait_for_published("clicks", topic)
    old, file = scene.public_keys.strip(), tmp_path / "public.keys"
    file.write_text(old)
    new = SigningKey.generate()
    both = f"{old}\\n{new.public_line}"
    with client(scene, topic, f"file:{file}") as following, client(scene, topic, old) as left_behind:
        for each in (following, left_behind):
            follows(each, first.epoch)

        # when both keys are trusted everywhere, and then the new one signs
        change_secret(scene, both)
        file.write_text(both.replace("\\n", "\n"))
        change_secret(scene, both, signs=new)
        operator.stop()
        operator.start()

        # then every table is signed anew, and who trusts the new key follows
        def signed_anew() -> int:
            table = scene.wait_for_published("clicks", topic)
            assert table.epoch > first.epoch
            return table.epoch

        second = eventually("the table is signed anew", signed_anew)
        follows(following, second)
        follows(left_behind, first.epoch, "BadSignature")

        # and when the old key is trusted no more, only who has the new one goes on
        change_secret(scene, new.public_line, signs=new)
        file.write_text(new.public_line)
        operator.stop()
        operator.start()
        scene.grow(topic, 15)

        def planned_anew() -> int:
            table = scene.wait_for_published("clicks", topic)
            assert table.partitions == 15
            return table.epoch

        third = eventually("the table knows the added partitions", planned_anew)
        follows(following, third)
        follows(left_behind, first.epoch, "BadSignature")
