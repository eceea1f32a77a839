"""What leaves for other programs: tables, stacks, volumes."""
