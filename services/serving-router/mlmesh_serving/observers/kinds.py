"""Kinds of frames between the router and the process that looks at predictions."""

SETUP = 1
WATCH = 2
UNWATCH = 3
OBSERVATION = 4
DRAIN = 5
REPORT = 6
DRAINED = 7
