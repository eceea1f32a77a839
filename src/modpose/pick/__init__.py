"""Objects in one large image: found by a blob or by a model's pictures, listed, and cut out."""
