"""The definition, in exact rationals and pure Python.  Slow; imports nothing of ours.

The residual starts as the vector.  At each stage the code names the word with the smallest
``|word|^2 / 2 - <residual, word>``, in exact arithmetic, the lowest index on a tie; then the
residual less that word is rounded, number by number, to the working float type.  Decoding adds
the named words to zero in the order of the stages, rounding after each.
"""

from fractions import Fraction

# Digits of the significand, exponent of the smallest positive number.
FLOAT_TYPES = {"float32": (24, -149), "float64": (53, -1074)}


def encode(row, codebooks, float_type="float32"):
    """Return the codes of one vector.

    Parameters
    ----------
    row : sequence of D floats
        As the working float type holds them.
    codebooks : sequence of Q sequences of K sequences of D floats
    float_type : {"float32", "float64"}
        What the residual is rounded to.

    Returns
    -------
    codes : list of Q int
    """
    residual = [Fraction(float(number)) for number in row]
    codes = []
    for words in codebooks:
        code = nearest(residual, words)
        codes.append(code)
        residual = [
            rounded(left - Fraction(float(number)), float_type)
            for left, number in zip(residual, words[code], strict=True)
        ]
    return codes


def decode(codes, codebooks, float_type="float32"):
    """Return the vector that `codes` name, a list of D floats."""
    total = [Fraction(0)] * len(codebooks[0][0])
    for code, words in zip(codes, codebooks, strict=False):
        total = [
            rounded(part + Fraction(float(number)), float_type)
            for part, number in zip(total, words[code], strict=True)
        ]
    return [float(number) for number in total]


def nearest(residual, words):
    """Return the lowest index among the words nearest to `residual`."""
    scores = [score(residual, word) for word in words]
    return scores.index(min(scores))


def score(residual, word):
    """Return half the squared distance, less what no word can change, as a fraction."""
    total = Fraction(0)
    for left, number in zip(residual, word, strict=True):
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
    """Return how far from the best each code is, for quantizers that promise less than the best.

    Each stage is judged on what the codes before it left over, so that one choice between two
    words almost equally near does not count again at every later stage.

    Parameters
    ----------
    row, codebooks, float_type
        As `encode`.
    codes : sequence of at most Q int

    Returns
    -------
    regrets : list of float
        Half the difference of the squared distances of the word chosen and the nearest, in units
        of rounding: of ``2**-24`` (float64: ``2**-53``) times the squared norms of the residual
        and both words. 0 where the distances are equal.
    """
    digits, _ = FLOAT_TYPES[float_type]
    residual = [Fraction(float(number)) for number in row]
    found = []
    for code, words in zip(codes, codebooks, strict=False):
        best = nearest(residual, words)
        worse = score(residual, words[code]) - score(residual, words[best])
        sizes = [residual, words[code], words[best]]
        unit = sum(Fraction(float(number)) ** 2 for each in sizes for number in each)
        found.append(float(worse / unit * 2**digits) if worse else 0.0)
        residual = [
            rounded(left - Fraction(float(number)), float_type)
            for left, number in zip(residual, words[code], strict=True)
        ]
    return found
