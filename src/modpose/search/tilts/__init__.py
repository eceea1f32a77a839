"""Maps and poses of particles that are each seen in many tilted images."""
