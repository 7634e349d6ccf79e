"""Checkpoints: their manifests and the files behind them."""
