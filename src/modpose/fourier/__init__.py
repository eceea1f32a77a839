"""Fourier coefficients: reading, shells, correlation, insertion."""
