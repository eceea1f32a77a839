"""Output for other programs: tables, stacks, volumes."""
