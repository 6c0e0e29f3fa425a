"""Cancels a query twenty times, each by a connection of its own, as libpq does: connect, write, wait for the end."""

import sys
import threading
import time

import psycopg2

TIMES = 20
host, port = sys.argv[1:]


def connect():
    connection = psycopg2.connect(host=host, port=port, user="app", dbname="postgres", connect_timeout=60)
    connection.autocommit = True
    return connection


def sleep(connection, ends):
    with connection.cursor() as cursor:
        try:
            cursor.execute("select pg_sleep(60)")
            ends.append("slept to the end")
        except psycopg2.Error as error:
            ends.append(type(error).__name__)


watcher, ends = connect(), []
for _ in range(TIMES):
    connection = connect()
    sleeper = threading.Thread(target=sleep, args=(connection, ends))
    sleeper.start()
    with watcher.cursor() as cursor:
        running = (0,)
        while running == (0,):
            cursor.execute("select count(*) from pg_stat_activity where wait_event = 'PgSleep'")
            running = cursor.fetchone()
            time.sleep(0.005)
    connection.cancel()
    sleeper.join()
    connection.close()
for end in sorted(set(ends)):
    print(f"{ends.count(end)} of {TIMES}: {end}")
