"""Coordinates, rotations and poses."""
