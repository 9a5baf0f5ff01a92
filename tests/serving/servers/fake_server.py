"""Stands in for vLLM: an HTTP server of the standard library that is up at once, with faults on demand.

    python fake_server.py PORT [FAULT...]

Faults: `dies` at its start, `ill` says 503 for ever, `mute` never answers a completion, `stubborn` ignores
SIGTERM, `child` starts a process that runs away into a session of its own, `talks` fills its log.
"""

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, FAULTS = int(sys.argv[1]), set(sys.argv[2:])
PAGE = os.environ.get("FAKE_METRICS", "")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self.answer(200, PAGE.encode())
        else:
            self.answer(503 if "ill" in FAULTS else 200, b"")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "mute" in FAULTS:
            time.sleep(3600)
        if asked["model"] != "fake":
            self.answer(404, b"no such model")
        else:
            self.answer(200, json.dumps({"choices": [{"text": "x" * asked["max_tokens"]}]}).encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def main() -> None:
    print(f"starting on {PORT} with GPUs {os.environ.get('CUDA_VISIBLE_DEVICES')}", flush=True)
    if "dies" in FAULTS:
        sys.exit("out of memory, says the fake")
    if "child" in FAULTS:
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in FAULTS else lambda *_: sys.exit(0))
    while "talks" in FAULTS:
        print("x" * 1000, flush=True)
    ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()


if __name__ == "__main__":
    main()
