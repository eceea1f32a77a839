"""Training: the loop, its schedules, its checkpoints."""
