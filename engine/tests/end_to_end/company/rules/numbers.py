"""Exact numbers: amounts are whole minor units of a currency, everything before rounding is a fraction."""

from decimal import Decimal
from fractions import Fraction

DIGITS = {"USD": 2, "EUR": 2, "JPY": 0}


def rounded(amount, unit=1):
    """To whole units, half away from zero."""
    scaled = amount * unit
    size = (2 * abs(scaled.numerator) + scaled.denominator) // (2 * scaled.denominator)
    return size if scaled >= 0 else -size


def spread(amount, weights):
    """Whole units in proportion to weights; what is left over goes to the largest remainders, of equal ones to the first."""
    whole = sum(weights)
    if whole == 0:
        return [0] * len(weights)
    sign, size = (-1, -amount) if amount < 0 else (1, amount)
    parts = [divmod(size * weight, whole) for weight in weights]
    given = [part for part, _ in parts]
    by_remainder = sorted(range(len(parts)), key=lambda place: -parts[place][1])
    for place in by_remainder[: size - sum(given)]:
        given[place] += 1
    return [sign * part for part in given]


def plain(number):
    """A decimal number without zeros at its end."""
    number = Fraction(number)
    scaled, digits = number, 0
    while scaled.denominator != 1:
        scaled, digits = scaled * 10, digits + 1
    return f"{Decimal(scaled.numerator).scaleb(-digits):f}"
