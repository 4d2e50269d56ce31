"""A local Solana node for tests, with USDC at its real address: `python tests/chain/solana [--cluster mainnet] [--slot-ms 400]`.

Transactions are executed, not mocked: signatures, fee payer, balances, duplicates and the age of blockhashes are all enforced.
"""

import argparse
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from chain import CLUSTERS, Chain
from rpc import Methods, RpcError


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    chain, methods, lock = None, None, threading.RLock()

    def log_message(self, *arguments):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        faults = self.chain.faults
        if faults["latencyMs"]:
            time.sleep(faults["latencyMs"] / 1000)
        try:
            asked = json.loads(body)
        except ValueError:
            return self.reply(400, {"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": None})
        many = isinstance(asked, list)
        first = (asked[0] if many else asked).get("method", "")
        if faults["failRequests"] > 0 and not first.startswith("dev_"):
            faults["failRequests"] -= 1
            return self.fail(faults["httpStatus"] or 503)
        answers = [self.answer(one) for one in (asked if many else [asked])]
        self.reply(200, answers if many else answers[0])

    def fail(self, status):
        error = {"code": 429, "message": "Too many requests"} if status == 429 else {"code": -32005, "message": "Node is unhealthy"}
        self.reply(status, {"jsonrpc": "2.0", "error": error, "id": None})

    def answer(self, call):
        head = {"jsonrpc": "2.0", "id": call.get("id")}
        with self.lock:
            try:
                self.chain.tick()
                return {**head, "result": self.methods.call(call["method"], call.get("params") or [])}
            except RpcError as error:
                return {**head, "error": error.body}
            except Exception as error:
                return {**head, "error": {"code": -32602, "message": f"Invalid params: {type(error).__name__}: {error}"}}

    def reply(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cluster", choices=CLUSTERS, default="devnet")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--slot-ms", type=float, default=400)
    wanted = parser.parse_args()
    Handler.chain = Chain(wanted.cluster, wanted.slot_ms)
    Handler.methods = Methods(Handler.chain)
    server = Server(("127.0.0.1", wanted.port), Handler)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


main()
