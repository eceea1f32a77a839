"""Content of a set of images: clusters, embeddings, density, and paths along it.

Plain functions of arrays; they know neither models nor runs.
"""
