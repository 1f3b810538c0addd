"""One weight matrix, packed once: the bytes that memory, RTL and kernel read, and the integers they all mean."""

import numpy as np

from sparsefab.formats import Chain, RowMajor, Sparse, Vnni4x1, get_format, pack, parse_pattern, unpack
from sparsefab.models.compress import magnitude_mask, round_to_nearest

weights = np.random.default_rng(0).normal(size=(64, 256)).astype(np.float32)
pattern = parse_pattern("8:16")
tensor = round_to_nearest(weights, get_format("int4sym"), pattern=pattern, mask=magnitude_mask(weights, pattern))

for layout in (RowMajor(), Sparse("index"), Sparse("bitmap"), Chain(dsps=64, slots=8), Vnni4x1()):
    packed = pack(tensor, layout)
    same = np.array_equal(unpack(packed).integers(), tensor.integers())
    sections = ", ".join(f"{name} {part.nbytes}" for name, part in packed.sections.items())
    print(f"{layout.name:14} {packed.bits_per_weight:6.2f} bits a weight, equal: {same}   {sections}")
