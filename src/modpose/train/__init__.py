"""Climbing the ELBO: the loop, its schedules, its checkpoints."""
