"""A stand-in for the central server of a federation, for the demo and the tests.

It speaks the part of vantage6's server API that a central function needs, and hands each subtask to the node of
its organisation through that node's own `countersign-runner serve` socket. Standard library only.

    server.py --token-file F --node 1=/run/a.sock --node 2=/run/b.sock [--port 0]

Prints the port it listens on (loopback), then one line for each request: method, path, whether the token was right.
"""

import argparse
import base64
import http.client
import http.server
import json
import socket
import sys
import threading
import urllib.parse


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a node's Unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self.path)


def call(node, method, path, body=None):
    """One request to a node; its JSON answer."""
    connection = UnixConnection(node)
    try:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text}")
        return json.loads(text)
    finally:
        connection.close()


class Federation:
    """Organisations with a node each, and the tasks that were handed out."""

    def __init__(self, nodes, token):
        self.nodes = nodes
        self.token = token
        self.lock = threading.Lock()
        self.tasks = {}

    def create(self, request):
        runs = []
        for organization in request["organizations"]:
            node = self.nodes[organization["id"]]
            function_input = json.loads(base64.b64decode(organization["input"]))
            task = call(node, "POST", "/v1/tasks", {"image": request["image"], "input": function_input, "databases": ["default"]})
            runs.append({"organization": organization["id"], "node": node, "id": task["id"]})
        with self.lock:
            number = len(self.tasks) + 1
            self.tasks[number] = runs
        return {"id": number}

    def states(self, number):
        return [call(run["node"], "GET", f"/v1/tasks/{run['id']}")["state"] for run in self.tasks[number]]

    def status(self, number):
        states = self.states(number)
        if any(state in ("queued", "verifying", "running") for state in states):
            return {"status": "active"}
        done = all(state == "completed" for state in states)
        return {"status": "completed" if done else "failed", "states": states}

    def results(self, number):
        data = []
        for run in self.tasks[number]:
            result = call(run["node"], "GET", f"/v1/tasks/{run['id']}/result")
            data.append({"id": run["organization"], "result": base64.b64encode(json.dumps(result).encode()).decode(), "blob_storage_used": False})
        return data


def page(data):
    return {"data": data, "links": {"next": None}}


class Handler(http.server.BaseHTTPRequestHandler):
    """The routes of the API that a central function calls."""

    protocol_version = "HTTP/1.1"
    federation = None

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def route(self, body=None):
        authorised = self.headers.get("Authorization") == f"Bearer {self.federation.token}"
        print(f"{self.command} {self.path} {'authorised' if authorised else 'NO TOKEN'}", flush=True)
        if not authorised:
            return self.answer(401, {"msg": "the run's token is missing"})
        url = urllib.parse.urlparse(self.path)
        query = urllib.parse.parse_qs(url.query)
        parts = url.path.strip("/").split("/")
        try:
            match (self.command, parts):
                case ("GET", ["organization"]):
                    return self.answer(200, page([{"id": number, "name": f"hospital {number}"} for number in self.federation.nodes]))
                case ("GET", ["organization", number]):
                    return self.answer(200, {"id": int(number), "public_key": ""})
                case ("GET", ["blobstream", "status"]):
                    return self.answer(404, {"msg": "no blob store here"})
                case ("POST", ["task"]):
                    return self.answer(201, self.federation.create(body))
                case ("GET", ["task", number, "status"]):
                    return self.answer(200, self.federation.status(int(number)))
                case ("GET", ["result"]):
                    return self.answer(200, page(self.federation.results(int(query["task_id"][0]))))
        except (KeyError, ValueError) as error:
            return self.answer(400, {"msg": f"bad request: {error}"})
        except (OSError, RuntimeError) as error:
            return self.answer(502, {"msg": str(error)})
        return self.answer(404, {"msg": "no such route"})

    def do_GET(self):
        self.route()

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        if length > 1 << 20:
            return self.answer(413, {"msg": "too large"})
        self.route(json.loads(self.rfile.read(length) or b"{}"))

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--token-file", required=True)
    parser.add_argument("--node", action="append", required=True, metavar="ID=SOCKET")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    nodes = {int(number): path for number, path in (node.split("=", 1) for node in arguments.node)}
    with open(arguments.token_file, encoding="utf-8") as file:
        Handler.federation = Federation(nodes, file.read().strip())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
