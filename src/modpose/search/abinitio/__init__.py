"""Maps from projections without poses: random starts, then refinement in two halves."""
