"""Benches that run inside a simulator, one a block."""
