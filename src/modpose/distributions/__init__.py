"""Normal, circular and rotational distributions: densities, KL divergences, samples."""
