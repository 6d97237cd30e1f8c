"""Torrents for the rivals of the benchmarks: making one (BEP 3), and a tracker that knows everybody who asked.

    python3 tests/bench/torrents.py 10.77.255.254:6969      # the tracker by itself, until it is killed
"""

import hashlib
import http.server
import pathlib
import socket
import struct
import sys
import threading
import urllib.parse


def bencode(value):
    """The bytes of a value, keys sorted."""
    match value:
        case int():
            return b"i%de" % value
        case bytes():
            return b"%d:%s" % (len(value), value)
        case str():
            return bencode(value.encode())
        case list():
            return b"l" + b"".join(map(bencode, value)) + b"e"
        case dict():
            pairs = sorted((key.encode(), item) for key, item in value.items())
            return b"d" + b"".join(bencode(key) + bencode(item) for key, item in pairs) + b"e"
    raise TypeError(type(value))


def make(path, torrent, announce, piece_size):
    """Writes the torrent of one file."""
    path = pathlib.Path(path)
    pieces = bytearray()
    with open(path, "rb") as file:
        while piece := file.read(piece_size):
            pieces += hashlib.sha1(piece).digest()
    info = {"name": path.name, "length": path.stat().st_size, "piece length": piece_size, "pieces": bytes(pieces)}
    pathlib.Path(torrent).write_bytes(bencode({"announce": announce, "info": info}))


class Server(http.server.ThreadingHTTPServer):
    """A queue for a swarm that starts at once."""

    request_queue_size = 256
    daemon_threads = True


class Tracker:
    """Answers every announce with everybody else who has announced, a second to the next one."""

    def __init__(self, address="127.0.0.1", port=0):
        peers = {}

        class Answer(http.server.BaseHTTPRequestHandler):
            """One announce."""

            def do_GET(self):
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query, encoding="latin-1")
                swarm = peers.setdefault(query["info_hash"][0], {})
                asker = socket.inet_aton(self.client_address[0]) + struct.pack(">H", int(query["port"][0]))
                others = b"".join(other for other in list(swarm) if other != asker)
                if query.get("event") == ["stopped"]:
                    swarm.pop(asker, None)
                else:
                    swarm[asker] = True
                body = bencode({"interval": 1, "min interval": 1, "peers": others})
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = Server((address, port), Answer)
        # A client that has ended does not wait for the answer to its good-bye.
        self.server.handle_error = lambda *_: None
        self.url = f"http://{address}:{self.server.server_port}/announce"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def main():
    address, _, port = sys.argv[1].rpartition(":")
    tracker = Tracker(address, int(port))
    print(tracker.url, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
