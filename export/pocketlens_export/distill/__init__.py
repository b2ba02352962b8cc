"""Training a light image tower to answer in a heavy one's space."""
