"""Instants are whole microseconds since 1970."""

from calendar import monthrange
from datetime import datetime, timedelta, timezone

UTC = timezone.utc
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FOREVER = 10**18


def us(at):
    return (at - EPOCH) // timedelta(microseconds=1)


def instant(cell, zone):
    """A cell with an offset, or a day, which is its first instant in the zone."""
    if len(cell) == 10:
        return clock_to_us(datetime.fromisoformat(cell), zone)
    return us(datetime.fromisoformat(cell.replace("Z", "+00:00")))


def clock_to_us(local, zone):
    """A time by the clock of a zone: where the clock shows it twice the first one, where it skips it the time after."""
    return us(local.replace(tzinfo=zone, fold=0).astimezone(UTC))


def clock(at, zone):
    return (EPOCH + timedelta(microseconds=at)).astimezone(zone).replace(tzinfo=None)


def days_ended(starts, ends, zone):
    """A day that is cut belongs to the time in which it ends."""
    return (clock(ends, zone).date() - clock(starts, zone).date()).days


def after(anchor, step, count):
    """So many steps after an anchor: on its day of the month, or the last one of a shorter month."""
    unit, size = step
    if unit == "days":
        return anchor + timedelta(days=size * count)
    month = anchor.year * 12 + anchor.month - 1 + size * count
    year, month = month // 12, month % 12 + 1
    return anchor.replace(year=year, month=month, day=min(anchor.day, monthrange(year, month)[1]))
