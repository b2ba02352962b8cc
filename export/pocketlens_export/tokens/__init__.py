"""Token learners: a light picture tower's feature map to pseudo-tokens of a heavy text tower."""
