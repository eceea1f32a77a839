"""Data with known truth: hinged molecules seen by a microscope, turned and shifted digits."""
