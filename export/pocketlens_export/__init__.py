"""Offline: open_clip checkpoints to ONNX model folders, pictures to galleries. pocketlens imports nothing from here."""
