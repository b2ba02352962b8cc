"""Offline: open_clip checkpoints to ONNX model folders, and pictures to galleries. Imports pocketlens, never the reverse."""
