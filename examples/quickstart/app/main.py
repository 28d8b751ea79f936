"""Greets, with the vendored package next door."""

from greeting import greet

print(greet("runtime image"))
