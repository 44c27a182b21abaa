"""What operators see of a running `glint serve`: log, metrics, signals.

Usage: operating.py GLINT VENV
"""

import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

from clients import GLINT, Server


def until(what, seconds=30):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.05)
    return found


class Operating(unittest.TestCase):
    def serve(self, config):
        room = tempfile.TemporaryDirectory(prefix="glint-operating-")
        self.addCleanup(room.cleanup)
        server = Server(room.name, config)
        self.addCleanup(server.stop)
        return server

    def create(self, server):
        status, body, headers = server.call("POST", "/v2/images",
                                          {"disk_format": "raw", "container_format": "bare"})
        self.assertEqual(status, 201)
        return json.loads(body)["id"], headers["x-openstack-request-id"]

    def lines(self, server):
        return [json.loads(line) for line in server.said().splitlines() if line.startswith("{")]

    def test_json_lines_carry_the_request(self):
        server = self.serve('[log]\nformat = "json"\n')
        image, request = self.create(server)
        made = until(lambda: [l for l in self.lines(server) if l.get("image.id") == image])[0]
        self.assertEqual(made["span"]["request.id"], request)
        access = [l for l in self.lines(server) if l.get("request.id") == request][0]
        self.assertEqual((access["http.method"], access["http.path"], access["http.status"]),
                         ("POST", "/v2/images", 201))
        self.assertIsInstance(access["duration_ms"], int)

    def test_a_line_a_request_can_be_left_out(self):
        server = self.serve("[log]\naccess = false\n")
        self.create(server)
        self.assertNotIn("is answered", server.said())

    def test_metrics_have_a_port_of_their_own(self):
        server = self.serve('[metrics]\nlisten = "127.0.0.1:0"\n')
        image, _ = self.create(server)
        octets = {"Content-Type": "application/octet-stream"}
        self.assertEqual(server.call("PUT", f"/v2/images/{image}/file", b"x" * 5000, **octets)[0], 204)
        self.assertEqual(server.call("GET", f"/v2/images/{image}/file")[1], b"x" * 5000)
        self.assertEqual(server.call("GET", "/v2/nothing")[0], 404)
        # However many verbs are made up, they are counted as one.
        for verb in ("FROB1", "FROB2"):
            self.assertEqual(server.call(verb, "/")[0], 300)
        out = 'glint_store_bytes_total{store="file",direction="out"}'
        until(lambda: self.metrics(server.said).get(out) == 5000)
        seen = self.metrics(server.said)
        count = "glint_http_request_duration_seconds_count"
        self.assertEqual(seen[f'{count}{{method="POST",route="/v2/images",code="201"}}'], 1)
        self.assertEqual(seen[f'{count}{{method="PUT",route="/v2/images/{{image}}/file",code="204"}}'], 1)
        self.assertEqual(seen[f'{count}{{method="GET",route="none",code="404"}}'], 1)
        self.assertEqual(sum(n for name, n in seen.items() if name.startswith(count + '{method="other"')), 2)
        self.assertFalse([name for name in seen if "FROB" in name])
        self.assertEqual(seen['glint_store_bytes_total{store="file",direction="in"}'], 5000)
        self.assertEqual(seen['glint_transfer_in_flight_bytes{direction="in"}'], 0)
        for stage in ("receive", "judge", "commit"):
            self.assertEqual(seen[f'glint_ingest_stage_duration_seconds_count{{stage="{stage}"}}'], 1)
        self.assertEqual(seen['glint_jobs{state="ready"}'], 0)
        self.assertEqual(server.call("GET", "/metrics")[0], 300, "not on the port of the API")

    def metrics(self, said):
        """The samples of the page that a log tells of."""
        page = "http://" + until(lambda: re.search(r"metrics are at (\S+)", said()))[1]
        with urllib.request.urlopen(page, timeout=30) as answer:
            self.assertTrue(answer.headers["content-type"].startswith("application/openmetrics-text"))
            text = answer.read().decode()
        samples = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in samples}

    def test_a_worker_counts_on_a_page_of_its_own(self):
        script = Path(__file__).resolve().parents[1] / "support/database.sh"
        postgres = subprocess.Popen([script, "postgres"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(postgres.communicate)
        url = postgres.stdout.readline().strip() + "postgres"
        room = tempfile.TemporaryDirectory(prefix="glint-operating-")
        self.addCleanup(room.cleanup)
        data = Path(room.name) / "data"
        config = data.with_suffix(".toml")
        config.write_text(f'[catalog]\nurl = "{url}"\n[import]\nworkers = 0\n'
                          '[metrics]\nlisten = "127.0.0.1:0"\nworker_listen = "127.0.0.1:0"\n')
        place = ["--data", data, "--config", config]
        subprocess.run([GLINT, "db", "sync", *place], check=True, capture_output=True)
        server = Server(room.name, data=data)
        self.addCleanup(server.stop)
        log = data.with_suffix(".worker")
        with log.open("w") as out:
            worker = subprocess.Popen([GLINT, "worker", *place], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.addCleanup(worker.wait)
        self.addCleanup(worker.terminate)

        image, _ = self.create(server)
        octets = {"Content-Type": "application/octet-stream"}
        self.assertEqual(server.call("PUT", f"/v2/images/{image}/stage", b"x" * 5000, **octets)[0], 204)
        self.assertEqual(server.call("POST", f"/v2/images/{image}/import", {"method": {"name": "glance-direct"}},
                                   **{"Content-Type": "application/json"})[0], 202)
        until(lambda: b'"active"' in server.call("GET", f"/v2/images/{image}")[1])
        stored = 'glint_store_bytes_total{store="file",direction="in"}'
        imports = 'glint_ingest_stage_duration_seconds_count{stage="import"}'
        seen = until(lambda: (page := self.metrics(log.read_text)).get(imports) and page)
        self.assertEqual((seen[stored], seen[imports], seen['glint_jobs{state="ready"}']), (5000, 1, 0))
        self.assertNotIn(imports, self.metrics(server.said))

    def test_sighup_reads_log_level_and_policies_again(self):
        server = self.serve("")
        config, policy = server.data.with_suffix(".toml"), server.data.with_suffix(".yaml")
        self.create(server)

        def hangup(text, told):
            before = server.said().count("SIGHUP received")
            config.write_text(text)
            server.process.send_signal(signal.SIGHUP)
            until(lambda: server.said().count("SIGHUP received") > before)
            self.assertIn(told, server.said().splitlines()[-1])

        policy.write_text('add_image: "!"\n')
        hangup(f'[auth]\npolicy_file = "{policy}"\n', "read again")
        self.assertEqual(server.call("POST", "/v2/images", {})[0], 403)
        policy.write_text('add_image: "rule:nowhere"\n')
        hangup(f'[auth]\npolicy_file = "{policy}"\n', "what was stays")
        self.assertEqual(server.call("POST", "/v2/images", {})[0], 403)
        hangup("[log]\nlevel = \"error,glint::server=info\"\n", "read again")
        lines = len(server.said().splitlines())
        self.assertEqual(server.call("POST", "/v2/images", {})[0], 201)
        self.assertEqual(len(server.said().splitlines()), lines)

    def is_refused(self, port):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            return True
        return False

    def test_sigterm_lets_a_request_end(self):
        server = self.serve("")
        image, _ = self.create(server)
        port = int(server.url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as slow:
            slow.sendall(f"PUT /v2/images/{image}/file HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n"
                         "Content-Type: application/octet-stream\r\n\r\n12345".encode())
            until(lambda: server.call("GET", f"/v2/images/{image}")[1].find(b'"saving"') > 0)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: "SIGTERM received" in server.said())
            until(lambda: self.is_refused(port))
            slow.sendall(b"67890")
            self.assertTrue(slow.recv(100).startswith(b"HTTP/1.1 204"))
        self.assertEqual(server.process.wait(30), 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    unittest.main(argv=[sys.argv[0], "-v", *sys.argv[3:]])
