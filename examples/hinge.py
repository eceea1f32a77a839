"""Learn the hinge of a simulated macromolecule from images in random poses, in Python.

Run it with ``python examples/hinge.py [MINUTES]``; the model is saved in the folder ``hinge``.
"""

from __future__ import annotations

import sys

from modpose import PoseModel
from modpose.evaluate.recovery import recover
from modpose.simulate.particles import HingeSettings, simulate_particles

minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 3.5
simulated = simulate_particles(HingeSettings(n=3000, box=40, snr=0.5, seed=0))

model = PoseModel.from_recipe("spatial-vae", z_dim=1)
model.fit(simulated.images, max_minutes=minutes)
encoded = model.encode(simulated.images)

print("\n".join(recover(encoded.to_dataframe(), simulated.truth).lines()))
model.save("hinge", overwrite=True)
