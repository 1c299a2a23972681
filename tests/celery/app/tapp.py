"""The Celery app of the tests: tasks whose life can be read from a file.

Everything is set by the environment, so that one app serves every case:

CELERY_BROKER_URL       the broker (redis, rediss, sentinel, amqp, amqps)
TAPP_LOG                file to which each task appends one JSON line per event; what a worker
                        fetches and what it drops unrun go to the file of this name and ".held"
TAPP_TRACE              Redis: key of a list on the broker that gets the same lines,
                        for workers that share no file with who counts
TAPP_ACKS_LATE          "1": acknowledge after the task, and put a lost one back
TAPP_KEY_PREFIX         Redis: global_keyprefix
TAPP_PRIORITY_STEPS     Redis: comma-separated steps, for example "0,3,6,9"
TAPP_VISIBILITY_TIMEOUT Redis: seconds
TAPP_SENTINEL_MASTER    Redis: the master's name, for sentinel:// URLs
TAPP_CA                 file of the authority that signed the broker's certificate
TAPP_MAX_PRIORITY       RabbitMQ: x-max-priority of the queues
TAPP_QUEUE_TYPE         RabbitMQ: "quorum" or "classic"
TAPP_REMOTE_CONTROL     "0": workers answer no questions
TAPP_EXCHANGES          names of the exchanges of commands and events, with a comma between them
TAPP_TIME_LIMIT         hard time limit of every task in seconds
"""

import functools
import json
import os
import socket
import ssl
import time

from celery import Celery
from celery.signals import task_received, task_revoked

ENV = os.environ
BROKER = ENV.get("CELERY_BROKER_URL", "redis://127.0.0.1:6379/0")

app = Celery("tapp", broker=BROKER)
app.conf.update(
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
)

options = {}
if "TAPP_KEY_PREFIX" in ENV:
    options["global_keyprefix"] = ENV["TAPP_KEY_PREFIX"]
if "TAPP_PRIORITY_STEPS" in ENV:
    options["priority_steps"] = [int(step) for step in ENV["TAPP_PRIORITY_STEPS"].split(",")]
if "TAPP_VISIBILITY_TIMEOUT" in ENV:
    options["visibility_timeout"] = float(ENV["TAPP_VISIBILITY_TIMEOUT"])
if "TAPP_SENTINEL_MASTER" in ENV:
    options["master_name"] = ENV["TAPP_SENTINEL_MASTER"]
if options:
    app.conf.broker_transport_options = options
if "TAPP_CA" in ENV:
    prefix = "ssl_" if BROKER.startswith(("redis", "sentinel")) else ""
    app.conf.broker_use_ssl = {
        prefix + "cert_reqs": ssl.CERT_REQUIRED,
        prefix + "ca_certs": ENV["TAPP_CA"],
    }
if ENV.get("TAPP_ACKS_LATE") == "1":
    app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True)
if "TAPP_MAX_PRIORITY" in ENV:
    app.conf.task_queue_max_priority = int(ENV["TAPP_MAX_PRIORITY"])
if "TAPP_QUEUE_TYPE" in ENV:
    app.conf.update(
        task_default_queue_type=ENV["TAPP_QUEUE_TYPE"],
        task_create_missing_queue_type=ENV["TAPP_QUEUE_TYPE"],
    )
if ENV.get("TAPP_REMOTE_CONTROL") == "0":
    app.conf.worker_enable_remote_control = False
if "TAPP_EXCHANGES" in ENV:
    control, events = ENV["TAPP_EXCHANGES"].split(",")
    app.conf.update(control_exchange=control, event_exchange=events)
if "TAPP_TIME_LIMIT" in ENV:
    app.conf.task_time_limit = float(ENV["TAPP_TIME_LIMIT"])


@functools.cache
def broker():
    """A client of the broker; its connections are made per process, so a fork may inherit it."""
    import redis

    return redis.Redis.from_url(BROKER)


def line_of(task_id, event):
    return json.dumps({"id": task_id, "pod": socket.gethostname(), "event": event, "at": time.time()})


def log(task_id, event):
    """Tells of a task's life in the task log."""
    line = line_of(task_id, event)
    if ENV.get("TAPP_TRACE"):
        broker().rpush(ENV["TAPP_TRACE"], line)
    if ENV.get("TAPP_LOG"):
        append(ENV["TAPP_LOG"], line)


def append(path, line):
    """Appends one line in one write, so that workers can share the file."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, line.encode() + b"\n")
    finally:
        os.close(fd)


# The ids of messages are those that the publisher gives to tasks.
if ENV.get("TAPP_LOG"):

    @task_received.connect
    def fetched(request, **_):
        append(ENV["TAPP_LOG"] + ".held", line_of(request.id, "fetch"))

    @task_revoked.connect
    def dropped(request, **_):
        append(ENV["TAPP_LOG"] + ".held", line_of(request.id, "drop"))


@app.task(name="tapp.sleep")
def sleep(seconds, id, note=None):
    """Takes a slot for some seconds."""
    log(id, "start")
    time.sleep(seconds)
    log(id, "end")


@app.task(name="tapp.hold")
def hold(seconds, gate, id, note=None):
    """Takes a slot for some seconds, and on until the file `gate` is there."""
    log(id, "start")
    time.sleep(seconds)
    while not os.path.exists(gate):
        time.sleep(0.1)
    log(id, "end")


@app.task(name="tapp.limited", rate_limit="2/m")
def limited(seconds, id, note=None):
    """As sleep, but a worker starts one only every half minute, and shows those that wait for it nowhere."""
    log(id, "start")
    time.sleep(seconds)
    log(id, "end")


@app.task(name="tapp.spin")
def spin(seconds, id, note=None):
    """Takes a slot and a processor; it never yields, as a blocking task under gevent."""
    log(id, "start")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    log(id, "end")


@app.task(name="tapp.add")
def add(a, b, id, note=None):
    """Takes no time."""
    log(id, "start")
    log(id, "end")
    return a + b


@app.task(name="tapp.fail")
def fail(id, note=None):
    """Ends with an exception, as tasks do."""
    log(id, "start")
    log(id, "fail")
    raise RuntimeError("this task always fails")
