"""From a user's file to a batch: stacks, particle tables, preprocessing."""
