"""The posterior over content and pose: its sampling, its KL, its density."""
