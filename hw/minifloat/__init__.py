"""Data paths for any pair of number formats: decoder, multiplier, exact accumulator, converter, MAC."""
