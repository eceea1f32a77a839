"""Heterogeneous reconstruction at known poses as the field measures it, beside installed peers."""
