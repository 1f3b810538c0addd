"""Numba kernels for compressed layers on CPUs: block-sparse int8 products, chosen by what the machine can run."""
