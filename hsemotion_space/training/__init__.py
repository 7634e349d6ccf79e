"""Training and evaluation of checkpoints. Never imported by the page."""
