"""Where pictures come from: one module per kind of source, and `expand`, which tells them apart."""
