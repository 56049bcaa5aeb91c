"""Gathers what one turn needs to know, through the ports, into one frozen Observation."""
