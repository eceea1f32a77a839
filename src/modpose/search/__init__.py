"""Subtomogram averaging: search of poses on SO(3), wedge-weighted averages, classes."""
