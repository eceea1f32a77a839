"""Everyday jobs on maps, stacks and tables; no model is fitted."""
