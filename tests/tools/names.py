"""All that a program may meet in a network namespace of its own: a name server, a Kubernetes API that holds one TaskQueue,
and the broker that this names. Ends with 0 once the API and the broker were reached by their names, and tells how long
that took; with 1 when the time is over, and tells what was reached.

A fake, because what it shows is in the program alone: that names are looked up where no library and no file of a system
is, but an address of a name server. It says nothing about Kubernetes.
"""

import json
import socket
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECONDS = 60
HOME = "127.0.0.1"
API, BROKER = "api.poolwright.test", "broker.poolwright.test"
asked, reached = set(), set()

QUEUE = {
    "apiVersion": "poolwright.dev/v1alpha1",
    "kind": "TaskQueue",
    "metadata": {"name": "q", "namespace": "default", "uid": "1", "resourceVersion": "1", "generation": 1},
    "spec": {"broker": {"url": f"redis://{BROKER}:6379/0"}},
}


class Names(socketserver.BaseRequestHandler):
    """Answers a question for the address of the two names, and that there is none to every other."""

    def handle(self):
        query, sock = self.request
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        question, name = query[12 : at + 5], ".".join(labels).lower()
        asked.add(name)
        is_address = query[at + 1 : at + 3] == b"\x00\x01"
        answer = b""
        if name in (API, BROKER) and is_address:
            answer = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04" + socket.inet_aton(HOME)
        code = 0x80 if name in (API, BROKER) else 0x83
        head = query[:2] + bytes([0x85, code]) + b"\x00\x01" + (b"\x00\x01" if answer else b"\x00\x00") + bytes(4)
        sock.sendto(head + question + answer, self.client_address)


class Api(BaseHTTPRequestHandler):
    """Lists nothing but the TaskQueue, and knows of no change to come."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.headers["Host"].split(":")[0] == API:
            reached.add(API)
        path = self.path.split("?")[0]
        if "watch=true" in self.path:
            time.sleep(SECONDS)
        if path == "/version":
            return self.answer(200, {"major": "1", "minor": "34", "gitVersion": "v1.34.0"})
        items = [QUEUE] if path.endswith("/taskqueues") else []
        self.answer(200, {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items})

    def refuse(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(403, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "reason": "Forbidden"})

    do_POST = do_PUT = do_PATCH = do_DELETE = refuse

    def answer(self, code, body):
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


class Broker(socketserver.BaseRequestHandler):
    """Whoever connects had the name's address: no file of the program has it."""

    def handle(self):
        if BROKER in asked:
            reached.add(BROKER)


def main():
    servers = [
        socketserver.ThreadingUDPServer((HOME, 53), Names),
        ThreadingHTTPServer((HOME, 8001), Api),
        socketserver.ThreadingTCPServer((HOME, 6379), Broker),
    ]
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("serving", flush=True)
    began = time.monotonic()
    while reached != {API, BROKER}:
        if time.monotonic() - began > SECONDS:
            print(f"after {SECONDS} s it has reached {sorted(reached)}, and asked for {sorted(asked)}")
            return 1
        time.sleep(0.05)
    print(f"reached {API} and {BROKER} by their names within {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
