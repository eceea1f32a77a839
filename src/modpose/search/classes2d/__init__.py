"""2-D classes of particle images."""
