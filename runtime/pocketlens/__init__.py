"""pocketlens: on-device picture retrieval."""
