"""Experiments: the studies of a paper repeated, one module a paper, each with a ``run``."""
