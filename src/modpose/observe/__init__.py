"""The instrument: CTF, missing wedge, aberrations, noise."""
