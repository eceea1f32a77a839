"""Small jobs of every day on maps, stacks and tables: no model is fitted."""
