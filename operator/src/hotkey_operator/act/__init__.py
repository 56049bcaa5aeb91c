"""Carries out what was decided, one action at a time, through the ports."""
