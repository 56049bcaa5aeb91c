"""What shows hotkey at work: a click load and the demo. Not installed with the distributions."""
