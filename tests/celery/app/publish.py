"""Publishes tasks of `tapp`: once from the command line, or many times from stdin.

With `--serve` it reads one JSON object per line, whose keys are the long
options below, and answers each with a line {"ids": [...]} or {"error": "..."}.
A long-lived publisher saves the second that starting Python and Celery takes.
"""

import argparse
import json
import sys
import uuid

from tapp import app

# An argument that nobody but the worker may show: the tests look for it in all that the operator says.
NOTE = "canary-argument-77f0"

DEFAULTS = {
    "task": "tapp.sleep",
    "queue": "celery",
    "count": 1,
    "seconds": 0.0,
    "priority": None,
    "countdown": None,
    "expires": None,
    "prefix": None,
    "extra": {},
}


def publish(producer, batch):
    unknown = set(batch) - set(DEFAULTS)
    if unknown:
        raise ValueError(f"unknown keys {sorted(unknown)}")
    batch = {**DEFAULTS, **batch}
    prefix = batch["prefix"] or uuid.uuid4().hex[:8]
    ids = []
    for index in range(batch["count"]):
        task_id = f"{prefix}-{index}"
        kwargs = {"id": task_id, "note": NOTE, **batch["extra"]}
        if batch["task"] in ("tapp.sleep", "tapp.spin", "tapp.limited", "tapp.hold"):
            kwargs["seconds"] = batch["seconds"]
        elif batch["task"] == "tapp.add":
            kwargs.update(a=1, b=2)
        app.send_task(
            batch["task"],
            kwargs=kwargs,
            task_id=task_id,
            queue=batch["queue"],
            priority=batch["priority"],
            countdown=batch["countdown"],
            expires=batch["expires"],
            producer=producer,
        )
        ids.append(task_id)
    return ids


def serve():
    producer = None
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        try:
            producer = producer or app.amqp.Producer(app.connection_for_write(), auto_declare=False)
            answer = {"ids": publish(producer, json.loads(line))}
        except Exception as error:  # the caller decides; the next batch gets a new connection
            producer = None
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


def main():
    parser = argparse.ArgumentParser(description="publish tasks of tapp")
    parser.add_argument("--serve", action="store_true", help="read batches from stdin")
    parser.add_argument("--task", default=DEFAULTS["task"])
    parser.add_argument("--queue", default=DEFAULTS["queue"])
    parser.add_argument("--count", type=int, default=DEFAULTS["count"])
    parser.add_argument("--seconds", type=float, default=DEFAULTS["seconds"])
    parser.add_argument("--priority", type=int)
    parser.add_argument("--countdown", type=float)
    parser.add_argument("--expires", type=float)
    parser.add_argument("--prefix", help="ids are PREFIX-0, PREFIX-1, …")
    given = vars(parser.parse_args())
    if given.pop("serve"):
        serve()
        return
    with app.producer_pool.acquire(block=True) as producer:
        print(json.dumps({"ids": publish(producer, given)}))


if __name__ == "__main__":
    main()
