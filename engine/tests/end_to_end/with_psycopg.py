"""Asks with psycopg, in text and in binary, and prints what it was told. The port is the first argument."""

import datetime
import decimal
import json
import sys
import threading
import uuid

import psycopg

D = decimal.Decimal
UTC = datetime.timezone.utc
address = f"host=127.0.0.1 port={sys.argv[1]} user=ada dbname=tollgate"
connection = psycopg.connect(address, autocommit=True)


def state(sql, *values):
    try:
        connection.execute(sql, values)
        return None
    except psycopg.Error as error:
        return error.sqlstate


def asked(binary):
    cursor = connection.cursor(binary=binary)
    ask = lambda sql, *values: [list(row) for row in cursor.execute(sql, values, prepare=True).fetchall()]
    typed = ask(
        "SELECT %s AS a, %s AS b, %s AS c, %s AS d, %s AS e, %s AS f, %s AS g, %s AS h, %s AS i",
        -7, "it's; --", 1.5, True, None, b"\x00\xff", datetime.date(2026, 1, 2), datetime.time(1, 2, 3, 4),
        datetime.timedelta(days=2, seconds=5),
    )
    assert typed == [[
        -7, "it's; --", 1.5, True, None, b"\x00\xff", datetime.date(2026, 1, 2), datetime.time(1, 2, 3, 4),
        datetime.timedelta(days=2, seconds=5),
    ]], typed
    least = D("-0.99999999999999999999999999999999999999")
    assert ask("SELECT %b AS a, %s AS b", least, D("9" * 38)) == [[least, D("9" * 38)]]
    assert ask("SELECT %s::text AS a", uuid.UUID(int=5)) == [["00000000-0000-0000-0000-000000000005"]]
    assert ask("SELECT %s AS a, ARRAY['a b', NULL] AS b", [1, 2]) == [[[1, 2], ["a b", None]]]
    berlin = datetime.timezone(datetime.timedelta(hours=2))
    noon = datetime.datetime(2026, 10, 1, 12, tzinfo=berlin)
    return {
        "costs": [str(row[0]) for row in ask("SELECT cost FROM tokens ORDER BY cost")],
        "of_cost": ask("SELECT subject FROM tokens WHERE cost = %b", D("12345678901234567890123456789.123456789")),
        "from": [ask("SELECT COUNT(*) FROM tokens WHERE window_start >= %b", at)[0][0]
                 for at in (noon, noon + datetime.timedelta(microseconds=1))],
        "any": ask("SELECT input FROM tokens WHERE subject = ANY(%s) ORDER BY input", ["b", "zz"]) == [[D(700)]],
        "limit": ask("SELECT model FROM tokens WHERE calls >= %s AND input > %s ORDER BY input LIMIT %s", 1, 5, 1),
        "injected": ask("SELECT COUNT(*) FROM tokens WHERE subject = %s", "a' OR '1'='1")[0][0],
        "at": ask("SELECT MIN(event_time) FROM llm_completion")[0][0].astimezone(UTC).isoformat(),
        "catalog": ask("SELECT relname FROM pg_class WHERE relname = %s", "tokens"),
    }


told = {"text": asked(False), "binary": asked(True)}
told["states"] = [
    state("SELECT * FROM token"), state("SELECT x FROM events"), state("SELECT nothing(1)"), state("SELEC 1"),
    state("DELETE FROM events"), state("SELECT 1 AS a; SELECT 2 AS b; DROP TABLE events"), state("COPY events TO STDOUT"),
    state("SHOW nothing"), state("SET client_encoding TO 'LATIN1'"), state("SELECT %s::int", "x"),
    state("SELECT 7 / 2"), state("SELECT COUNT(*) FROM pg_class, events"),
]
with psycopg.connect(address) as transaction:
    transaction.execute("SELECT 1")
    try:
        transaction.execute("SELECT * FROM token")
    except psycopg.errors.UndefinedTable:
        pass
    try:
        transaction.execute("SELECT 1")
    except psycopg.errors.InFailedSqlTransaction:
        told["failed"] = True
    transaction.rollback()
    told["again"] = transaction.execute("SELECT 1 AS a").fetchone()[0]
connection.execute("SET TIME ZONE 'Asia/Kolkata'")
told["zone"] = [connection.info.parameter_status("TimeZone"),
                connection.execute("SELECT CAST(MIN(window_start) AS VARCHAR) AS a, MIN(window_start) AS b FROM tokens")
                .fetchone()[1].isoformat()]
# What would run for ever is cancelled by another connection, and by its own limit.
waiting = threading.Timer(0.3, connection.cancel_safe)
waiting.start()
told["cancelled"] = state("SELECT COUNT(*) FROM generate_series(1, 1000000000000)")
waiting.join()
connection.execute("SET statement_timeout TO '200ms'")
told["timed_out"] = state("SELECT COUNT(*) FROM generate_series(1, 1000000000000)")
print(json.dumps(told))
