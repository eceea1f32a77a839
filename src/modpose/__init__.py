"""modpose: images modulo pose."""
