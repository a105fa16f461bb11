"""Training: optimizer, step, loop, checkpoints and metrics."""
