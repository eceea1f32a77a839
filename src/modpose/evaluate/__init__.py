"""How good a fit is: metrics against the truth, clusters, experiments."""
