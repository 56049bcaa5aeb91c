"""What the operator knows and decides. Pure: no client library, no clock, no logging, no randomness."""
