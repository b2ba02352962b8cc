"""Aligning a light model with a heavy one: a map from its embeddings into the other's space, folded into its graphs."""
