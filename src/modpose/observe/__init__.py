"""The physics between the signal and the recorded pixel."""
