"""One turn's decision: pure, from what was seen and remembered to what to do and what to tell."""

from __future__ import annotations

from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import Decision, Observation
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.spec import PolicySpec


def decide(spec: PolicySpec, observation: Observation, memory: Memory) -> tuple[Decision, Memory]:
    """What to do now, and what the next turn must remember."""
    return Decision((), Reason.STEADY, "no partition is over the trigger"), memory


def retire(observation: Observation) -> Decision:
    """Return the stream of a deleted policy to plain keys: a higher epoch, no routes, the same read set."""
    return Decision((), Reason.RETURNED, "nothing was routed")
