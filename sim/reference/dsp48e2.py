"""The DSP48E2's meaning, cycle by cycle, on integers: the executable specification of the Amaranth twin.

Written from the public user guide (AMD UG579, "UltraScale Architecture DSP Slice"); its corner cases (what an unused
register holds, how the multiplier's two partial sums look to the carry and XOR outputs) are settled by replaying
stimuli and outputs of the vendor's simulation model, see `sparsefab.sim.vectors`.
"""

from collections.abc import Mapping

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sparsefab.sim.reference.dsp48e2_ports import ATTRIBUTES, INPUTS, OUTPUTS

__all__ = ["attribute_codes", "simulate"]


def attribute_codes(attributes: Mapping[str, int | str]) -> NDArray[np.int64]:
    """Encode attributes as integers: numbers as they are, words by their place among the allowed values.

    Parameters
    ----------
    attributes : {name: value}     Missing attributes take the vendor's default.

    Returns
    -------
    int64[attributes]              In the order of ATTRIBUTES.
    """
    unknown = sorted(set(attributes) - set(ATTRIBUTES))
    if unknown:
        raise ValueError(f"attributes: DSP48E2 has no attribute {unknown[0]}")
    codes = []
    for name, (default, choices) in ATTRIBUTES.items():
        value = attributes.get(name, default)
        if choices is not None and value not in choices:
            raise ValueError(f"{name} must be one of {choices}, not {value!r}")
        codes.append(choices.index(value) if choices is not None and isinstance(value, str) else int(value))
    return np.array(codes, dtype=np.int64)


def simulate(attributes: Mapping[str, int | str], inputs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Run one DSP48E2 from its power-on state.

    Parameters
    ----------
    attributes : {name: value}           The vendor's attribute names.
    inputs : int64[cycles, inputs]       Unsigned port values in the order of INPUTS.

    Returns
    -------
    int64[cycles, outputs]               Unsigned, in the order of OUTPUTS, after each clock edge with the cycle's
                                         inputs still applied.
    """
    if inputs.ndim != 2 or inputs.shape[1] != len(INPUTS):
        raise ValueError(f"inputs must be int64[cycles, {len(INPUTS)}], not {inputs.shape}")
    outputs = np.zeros((inputs.shape[0], len(OUTPUTS)), dtype=np.int64)
    _run(attribute_codes(attributes), np.ascontiguousarray(inputs, dtype=np.int64), outputs)
    return outputs


@njit(cache=True)
def _signed(value, bits):  # type: ignore[no-untyped-def]
    return (value & ((1 << bits) - 1)) - ((value & (1 << (bits - 1))) << 1)


@njit(cache=True)
def _parity(value):  # type: ignore[no-untyped-def]
    odd = 0
    while value:
        odd ^= value & 1
        value >>= 1
    return odd


@njit(cache=True)
def _run(cfg, inputs, outputs):  # type: ignore[no-untyped-def]
    areg, acascreg, breg, bcascreg, creg, dreg, adreg, mreg, preg = (
        cfg[0],
        cfg[1],
        cfg[2],
        cfg[3],
        cfg[4],
        cfg[5],
        cfg[6],
        cfg[7],
        cfg[8],
    )
    opmodereg, alumodereg, inmodereg, carryinreg, carryinselreg = cfg[9], cfg[10], cfg[11], cfg[12], cfg[13]
    a_cascade, b_cascade, amult_ad, bmult_ad, preadd_b = cfg[14], cfg[15], cfg[16], cfg[17], cfg[18]
    use_mult, simd, rnd, use_patdet, pattern_const, mask_const = (cfg[19], cfg[20], cfg[21], cfg[22], cfg[23], cfg[24])
    sel_mask, sel_pattern, autoreset, autoreset_cep, wide_xor, xor12 = (
        cfg[25],
        cfg[26],
        cfg[27],
        cfg[28],
        cfg[29],
        cfg[30],
    )

    m48 = (1 << 48) - 1
    m27 = (1 << 27) - 1
    u_mask = 0x55555555555
    v_mask = 0xAAAAAAAAAAA
    r_a1 = r_a2 = r_b1 = r_b2 = r_c = r_d = r_ad = r_u = r_v = 0
    r_opmode = r_alumode = r_inmode = r_carryin = r_carryinsel = r_round = 0
    r_p = r_carryout = r_cascout = r_multsign = r_pd = r_pbd = r_pd_past = r_pbd_past = r_xor = 0

    for t in range(inputs.shape[0] * 2):
        # even t: settle with the new inputs and clock; odd t: settle and sample
        row = inputs[t // 2]
        a_in = row[4] if a_cascade else row[0]
        b_in = row[5] if b_cascade else row[1]
        pcin = row[6]
        multsignin = row[13]
        cascin = row[12]

        opmode = r_opmode if opmodereg else row[11]
        alumode = r_alumode if alumodereg else row[9]
        inmode = r_inmode if inmodereg else row[10]
        carryinsel = r_carryinsel if carryinselreg else row[8]
        carryin = r_carryin if carryinreg else row[7]

        a2 = r_a2 if areg else a_in
        b2 = r_b2 if breg else b_in
        a1 = r_a1 if areg else 0
        b1 = r_b1 if breg else 0
        c = r_c if creg else row[2]
        d = r_d if dreg else row[3]

        # pre-adder
        a12 = (a1 if inmode & 1 else a2) & m27
        b12 = b1 if inmode & 16 else b2
        if inmode & 2:
            if preadd_b:
                b12 = 0
            else:
                a12 = 0
        d_gated = d if inmode & 4 else 0
        addend = _signed(b12, 18) if preadd_b else a12
        ad_new = (d_gated - addend if inmode & 8 else d_gated + addend) & m27
        ad = r_ad if adreg else ad_new

        # multiplier: two partial sums U + V
        a_mult = ad if amult_ad else a12
        b_mult = (ad & 0x3FFFF) if bmult_ad else b12
        product = _signed(a_mult, 27) * _signed(b_mult, 18)
        negative = (product >> 44) & 1
        u_new = (product & u_mask) | (1 << 44)
        v_new = (product & v_mask) | ((1 - negative) << 44)
        round_new = 1 - (((a_mult >> 26) ^ (b_mult >> 17)) & 1)
        if use_mult == 0:
            u_new = 0
            v_new = 0
        u, v = (r_u, r_v) if mreg else (u_new, v_new)
        rounding = r_round if mreg else round_new

        # the four operands
        p_feedback = r_p
        w_sel, z_sel, y_sel, x_sel = (opmode >> 7) & 3, (opmode >> 4) & 7, (opmode >> 2) & 3, opmode & 3
        w = 0
        if w_sel == 1:
            w = p_feedback
        elif w_sel == 2:
            w = rnd
        elif w_sel == 3:
            w = c
        x = 0
        if x_sel == 1:
            x = u | ((0xF << 44) if u >> 44 else 0)
        elif x_sel == 2:
            x = p_feedback
        elif x_sel == 3:
            x = (a2 << 18) | b2
        y = 0
        if y_sel == 1:
            y = v
        elif y_sel == 2:
            y = (m48 if multsignin else 0) if z_sel == 4 else m48
        elif y_sel == 3:
            y = c
        z = 0
        if z_sel == 1:
            z = pcin
        elif z_sel == 2 or z_sel == 4:
            z = p_feedback
        elif z_sel == 3:
            z = c
        elif z_sel == 5:
            z = (_signed(pcin, 48) >> 17) & m48
        elif z_sel >= 6:
            z = (_signed(p_feedback, 48) >> 17) & m48

        # carry in
        cin = carryin
        if carryinsel == 1:
            cin = 1 - (pcin >> 47)
        elif carryinsel == 2:
            cin = cascin
        elif carryinsel == 3:
            cin = pcin >> 47
        elif carryinsel == 4:
            cin = r_cascout
        elif carryinsel == 5:
            cin = 1 - (p_feedback >> 47)
        elif carryinsel == 6:
            cin = rounding
        elif carryinsel == 7:
            cin = p_feedback >> 47
        if alumode & 12:
            cin = 0

        # ALU: X, Y, Z are compressed first, then W, then a carry-propagate adder of four 12-bit sections
        z_inv = (z ^ m48) if alumode & 1 else z
        co = (x & y) | (y & z_inv) | (x & z_inv)
        s = x ^ y ^ z_inv
        carries = 0 if alumode & 4 else co
        sums = co if alumode & 8 else s
        keep = m48
        if simd == 2:
            keep = m48 & ~((1 << 11) | (1 << 23) | (1 << 35))
        elif simd == 1:
            keep = m48 & ~(1 << 23)
        shifted = ((carries & keep) << 1) & m48
        s4 = sums ^ shifted ^ w
        c4 = (sums & shifted) | (w & shifted) | (sums & w)
        total = 0
        carryout = 0
        carry = cin
        multsign = 0
        for k in range(4):
            low = 12 * k
            below = 0
            if k > 0 and ((keep >> (low - 1)) & 1):
                below = (c4 >> (low - 1)) & 1
            part = ((((c4 >> low) & 0x7FF) << 1) | below) + ((s4 >> low) & 0xFFF) + carry
            total |= (part & 0xFFF) << low
            out = ((c4 >> (low + 11)) & 1) + (part >> 12)
            out += (carries >> (low + 11)) & 1  # the first level's carry leaves by the same pin
            carryout |= (out & 1) << k
            multsign = (out >> 1) & 1
            carry = (part >> 12) if (keep >> (low + 11)) & 1 else 0
        inverted = alumode & 2
        result = (total ^ m48) if inverted else total
        cascout = carryout >> 3
        if (alumode & 3) == 3:
            carryout ^= 0xF

        # pattern detector
        pattern = c if sel_pattern else pattern_const
        mask = mask_const
        if sel_mask == 1:
            mask = c
        elif sel_mask == 2:
            mask = ((c ^ m48) << 1) & m48
        elif sel_mask == 3:
            mask = ((c ^ m48) << 2) & m48
        differ = pattern ^ result
        pd = 1 if ((differ ^ m48) | mask) == m48 or not use_patdet else 0
        pbd = 1 if (differ | mask) == m48 or not use_patdet else 0

        # wide XOR
        xors = 0
        if wide_xor and xor12:
            for k in range(8):
                xors |= _parity((s >> (6 * k)) & 0x3F) << k
        elif wide_xor:
            xors = (
                _parity(s & 0xFFF)
                | (_parity(s & 0xFFFFFF) << 1)
                | (_parity((s >> 12) & 0xFFF) << 2)
                | (_parity(s) << 3)
                | (_parity((s >> 24) & 0xFFF) << 4)
                | (_parity(s >> 24) << 5)
                | (_parity(s >> 36) << 6)
                | (_parity(s >> 42) << 7)
            )

        if t % 2 == 0:
            rst_p = row[36]
            ce_p = row[26]
            p_reset = rst_p
            if autoreset:
                hit = r_pd if autoreset == 1 else (r_pd_past & (1 - r_pd))
                if hit and (ce_p or not autoreset_cep):
                    p_reset = 1
            if p_reset:
                r_p = r_carryout = r_cascout = r_multsign = r_pd = r_pbd = r_xor = 0
                r_pd_past = r_pbd_past = 0
            elif ce_p:
                r_pd_past = r_pd
                r_pbd_past = r_pbd
                r_p = result
                r_carryout = carryout
                r_cascout = cascout
                r_multsign = multsign
                r_pd = pd
                r_pbd = pbd
                r_xor = xors
            if row[35]:
                r_u = r_v = 0
            elif row[25]:
                r_u, r_v = u_new, v_new
            if row[28]:
                r_carryin = r_round = 0
            else:
                if row[21]:
                    r_carryin = row[7]
                if row[25]:
                    r_round = round_new
            if row[33]:
                r_d = 0
                r_ad = 0
            else:
                if row[23]:
                    r_d = row[3]
                if row[16]:
                    r_ad = ad_new
            if row[31]:
                r_c = 0
            elif row[20]:
                r_c = row[2]
            if row[27]:
                r_a1 = r_a2 = 0
            else:
                if row[15]:
                    r_a2 = r_a1 if areg == 2 else a_in
                if row[14]:
                    r_a1 = a_in
            if row[30]:
                r_b1 = r_b2 = 0
            else:
                if row[19]:
                    r_b2 = r_b1 if breg == 2 else b_in
                if row[18]:
                    r_b1 = b_in
            if row[32]:
                r_opmode = r_carryinsel = 0
            elif row[22]:
                r_opmode, r_carryinsel = row[11], row[8]
            if row[29]:
                r_alumode = 0
            elif row[17]:
                r_alumode = row[9]
            if row[34]:
                r_inmode = 0
            elif row[24]:
                r_inmode = row[10]
        else:
            out_row = outputs[t // 2]
            p_out = r_p if preg else result
            out_row[0] = p_out
            out_row[1] = p_out
            out_row[2] = r_a1 if (areg == 2 and acascreg == 1) else a2
            out_row[3] = r_b1 if (breg == 2 and bcascreg == 1) else b2
            out_row[4] = r_carryout if preg else carryout
            out_row[5] = r_cascout if preg else cascout
            out_row[6] = r_multsign if preg else multsign
            out_pd = r_pd if preg else pd
            out_pbd = r_pbd if preg else pbd
            out_row[7] = out_pd
            out_row[8] = out_pbd
            neither = (1 - out_pd) & (1 - out_pbd)
            out_row[9] = r_pd_past & neither if preg else 0
            out_row[10] = r_pbd_past & neither if preg else 0
            out_row[11] = r_xor if preg else xors
