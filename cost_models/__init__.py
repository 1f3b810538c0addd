"""Estimates of latency, energy, memory, resources and price, with their error bounds and sources."""
