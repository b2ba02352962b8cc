"""Galleries and bundles from folders of pictures. Needs only the runtime's dependencies."""
