"""The definition, in exact rational arithmetic and pure Python; it imports nothing of rvq_np.

The residual starts as the vector.  At each stage the code is the index of the codeword ``c`` with
the smallest ``|c|^2 / 2 - <residual, c>``, in exact arithmetic; on a tie it is the lowest index.
The residual minus that codeword is then rounded, element by element, to the working float type.
Decoding adds the codewords to zero in the order of the stages, rounding after each addition.  A
code of -1 is dropped and adds nothing.  The oracle is slow.
"""

from fractions import Fraction

# Bits of the significand, exponent of the smallest positive number.
FLOAT_TYPES = {"float32": (24, -149), "float64": (53, -1074)}


def encode(row, codebooks, float_type="float32"):
    """Return the codes of one vector.

    Parameters
    ----------
    row : sequence of D floats
        Values of the working float type.
    codebooks : sequence of Q sequences of K sequences of D floats
    float_type : {"float32", "float64"}
        The type that the residual is rounded to.

    Returns
    -------
    codes : list of Q int
    """
    residual = [Fraction(float(number)) for number in row]
    codes = []
    for codebook in codebooks:
        code = nearest(residual, codebook)
        codes.append(code)
        residual = [
            rounded(left - Fraction(float(number)), float_type)
            for left, number in zip(residual, codebook[code], strict=True)
        ]
    return codes


def decode(codes, codebooks, float_type="float32"):
    """Return the decoded vector of `codes`, a list of D floats."""
    total = [Fraction(0)] * len(codebooks[0][0])
    for code, codebook in zip(codes, codebooks, strict=False):
        if code == -1:
            continue
        total = [
            rounded(part + Fraction(float(number)), float_type)
            for part, number in zip(total, codebook[code], strict=True)
        ]
    return [float(number) for number in total]


def nearest(residual, codewords):
    """Return the lowest index among the codewords `codewords` nearest to `residual`."""
    scores = [score(residual, codeword) for codeword in codewords]
    return scores.index(min(scores))


def score(residual, codeword):
    """Return half the squared distance minus half the squared norm of the residual, exactly."""
    total = Fraction(0)
    for left, number in zip(residual, codeword, strict=True):
        number = Fraction(float(number))
        total += number * number / 2 - Fraction(left) * number
    return total


def rounded(number, float_type):
    """Return the fraction `number` rounded as IEEE 754 does: to nearest, ties to even."""
    digits, lowest = FLOAT_TYPES[float_type]
    if number == 0:
        return number
    size = abs(number)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if size < Fraction(2) ** exponent:
        exponent -= 1  # now 2**exponent <= size < 2**(exponent + 1)
    step = Fraction(2) ** max(exponent - digits + 1, lowest)
    return round(number / step) * step  # round() of a fraction is to even


def regrets(row, codes, codebooks, float_type="float32"):
    """Return the regret of each code, for quantizers that are exact only up to rounding.

    The regret of a stage is computed from the residual of the codes before it. So a choice between
    two codewords at almost equal distances does not count again at later stages.

    Parameters
    ----------
    row, codebooks, float_type
        As `encode`.
    codes : sequence of at most Q int

    Returns
    -------
    regrets : list of float
        Half the difference of the squared distances to the chosen and the nearest codeword, in
        units of rounding: of ``2**-24`` (float64: ``2**-53``) times the sum of the squared norms of
        the residual and both codewords. 0 where the distances are equal.
    """
    digits, _ = FLOAT_TYPES[float_type]
    residual = [Fraction(float(number)) for number in row]
    found = []
    for code, codebook in zip(codes, codebooks, strict=False):
        best = nearest(residual, codebook)
        worse = score(residual, codebook[code]) - score(residual, codebook[best])
        sizes = [residual, codebook[code], codebook[best]]
        unit = sum(Fraction(float(number)) ** 2 for each in sizes for number in each)
        found.append(float(worse / unit * 2**digits) if worse else 0.0)
        residual = [
            rounded(left - Fraction(float(number)), float_type)
            for left, number in zip(residual, codebook[code], strict=True)
        ]
    return found
