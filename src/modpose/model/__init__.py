"""The model: latent variables, posterior, encoders, fields, terms and their composition."""
