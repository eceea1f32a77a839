"""Simulated data with known truth: particles, projections, subtomograms, digits, shapes."""
