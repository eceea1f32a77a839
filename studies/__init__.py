"""Studies: the tables and figures of a paper repeated, one package a paper.

They are run from the repository and are not installed with modpose::

    python -m studies.target_vae --budget scaled -o DIR
"""
