"""The demo: the whole system on real parts, from a hot key's onset to its merge-back and the proof."""
