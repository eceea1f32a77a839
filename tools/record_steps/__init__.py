"""Record the losses of the authors' programs, step by step, for tests that replay them with ours.

The programs are not part of this repository: they are run where they are installed or unpacked.
Weights, images, batches and noise are given to the program, 200 steps are taken, and weights,
images, batches and losses are written.  See ``python -m tools.record_steps --help``.
"""
