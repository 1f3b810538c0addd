"""Graphs of known architectures, built from a configuration and named tensors."""
