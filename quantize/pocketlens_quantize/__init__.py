"""Offline: smaller ONNX graphs. Imports pocketlens, never the reverse."""
