"""Vendor primitives as wrapper modules: one set of ports, a behavioural body or the vendor's, chosen by an argument."""
