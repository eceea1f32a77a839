"""Inference with a trained model: encode, search, refine, copies."""
