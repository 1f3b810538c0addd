"""From memory beats of compressed weights to the weight beats of the chain: unpack, expand positions, decode."""
