"""Import, execute, compress, evaluate and lower trained models."""
