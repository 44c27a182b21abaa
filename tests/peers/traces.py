"""Traces of a `glint serve` that was built with the feature `otel`, as a receiver of OTLP over HTTP gets them.

Usage: traces.py GLINT VENV, with the Python of VENV
"""

import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from clients import Server
from keystone import free_port

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{CALLER}-01"}


class Listener:
    """An HTTP server on loopback that keeps every request: method, path, headers, body."""

    STATUS, TYPE, BODY = 200, "application/octet-stream", b"x" * 5000

    def __init__(self):
        self.heard, listener = [], self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                listener.heard.append((self.command, self.path, self.headers, body))
                self.send_response(listener.STATUS)
                self.send_header("Content-Type", listener.TYPE)
                self.send_header("Content-Length", str(len(listener.BODY)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(listener.BODY)

            do_GET = do_HEAD = do_POST = answer

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Collector(Listener):
    TYPE, BODY = "application/x-protobuf", ExportTraceServiceResponse().SerializeToString()

    def resources(self):
        """What came, by resource: pairs of its attributes and its spans."""
        for method, path, headers, body in list(self.heard):
            assert (method, path, headers["content-type"]) == ("POST", "/v1/traces", self.TYPE)
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                yield attributes(group.resource), [span for scope in group.scope_spans for span in scope.spans]

    def spans(self):
        return [span for _, spans in self.resources() for span in spans]


class Unavailable(Listener):
    """What stands where Keystone should."""
    STATUS, BODY = 503, b""


def attributes(of):
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in of.attributes}


class Traces(unittest.TestCase):
    def setUp(self):
        room = tempfile.TemporaryDirectory(prefix="glint-traces-")
        self.addCleanup(room.cleanup)
        self.room = room.name

    def listen(self, kind):
        listener = kind()
        self.addCleanup(listener.stop)
        return listener

    def serve(self, config, **environment):
        clean = {name: "" for name in os.environ if name.startswith("OTEL_")}
        with mock.patch.dict(os.environ, clean | environment):
            server = Server(self.room, config)
        self.addCleanup(server.stop)
        return server

    def end(self, server):
        """An orderly end, by which all spans are sent."""
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.process.wait(30), 0, server.said())

    def test_a_request_goes_on_in_the_trace_it_came_with(self):
        collector = self.listen(Collector)
        server = self.serve(f'[log]\nlevel = "error,glint::server=info"\n[tracing]\nendpoint = "{collector.url}"\n')
        status, body, headers = server.call("POST", "/v2/images",
                                          {"disk_format": "raw", "container_format": "bare"}, **TRACEPARENT)
        self.assertEqual(status, 201)
        image = json.loads(body)["id"]
        octets = {"Content-Type": "application/octet-stream"}
        self.assertEqual(server.call("PUT", f"/v2/images/{image}/file", b"x" * 5000, **octets)[0], 204)
        self.assertEqual(server.call("GET", "/v2/nothing")[0], 404)
        self.assertEqual(server.call("FROB", "/v2/images")[0], 501)
        # A header that is none begins a new trace.
        self.assertEqual(server.call("GET", "/v2/images?name=secret", traceparent="00-0-0-01")[0], 200)
        self.end(server)

        resource, spans = next(collector.resources())
        self.assertEqual(resource["service.name"], "glint")
        self.assertTrue(resource["service.version"])
        spans = collector.spans()
        requests = {span.name: span for span in spans if span.kind == Span.SPAN_KIND_SERVER}
        self.assertEqual(sorted(requests),
                         ["GET", "GET /v2/images", "HTTP /v2/images", "POST /v2/images", "PUT /v2/images/{image}/file"])
        post = requests["POST /v2/images"]
        self.assertEqual((post.trace_id.hex(), post.parent_span_id.hex()), (TRACE, CALLER))
        self.assertLess(post.start_time_unix_nano, post.end_time_unix_nano)
        port = int(server.url.rsplit(":", 1)[1])
        self.assertEqual(attributes(post), {
            "http.request.method": "POST", "http.route": "/v2/images", "http.response.status_code": 201,
            "url.scheme": "http", "url.path": "/v2/images", "server.address": "127.0.0.1", "server.port": port,
            "request.id": headers["x-openstack-request-id"]})
        written = [s for s in spans if s.parent_span_id == post.span_id]
        self.assertEqual({s.name for s in written}, {"catalog.write"})
        self.assertEqual({(s.trace_id.hex(), s.kind, attributes(s)["db.system.name"]) for s in written},
                         {(TRACE, Span.SPAN_KIND_CLIENT, "sqlite")})
        put = requests["PUT /v2/images/{image}/file"]
        self.assertEqual(put.parent_span_id, b"")
        self.assertLessEqual({"receive", "judge", "commit"}, {s.name for s in spans if s.trace_id == put.trace_id})
        odd = requests["HTTP /v2/images"]
        self.assertEqual(attributes(odd)["http.request.method"], "_OTHER")
        self.assertEqual((odd.status.code, attributes(odd)["error.type"]), (Status.STATUS_CODE_ERROR, "501"))
        self.assertEqual(post.status.code, Status.STATUS_CODE_UNSET)
        self.assertEqual(len({s.trace_id for s in requests.values()}), 5)
        self.assertNotIn("secret", str(spans))

    def test_an_import_is_in_the_trace_of_its_request_and_its_origin_is_not_told(self):
        collector, origin = self.listen(Collector), self.listen(Listener)
        server = self.serve(f'[tracing]\nendpoint = "{collector.url}/"\n[fetch]\nallowed_networks = ["127.0.0.0/8"]\n'
                            f'allowed_ports = [{origin.port}]\n')
        _, body, _ = server.call("POST", "/v2/images", {"disk_format": "raw", "container_format": "bare"})
        image = json.loads(body)["id"]
        method = {"name": "web-download", "uri": f"{origin.url}/private/disk.raw?key=secret"}
        status, body, _ = server.call("POST", f"/v2/images/{image}/import", {"method": method},
                                    **{"Content-Type": "application/json"}, **TRACEPARENT)
        self.assertEqual(status, 202, body)
        end = time.monotonic() + 30
        while b'"active"' not in server.call("GET", f"/v2/images/{image}")[1]:
            self.assertLess(time.monotonic(), end, server.said())
            time.sleep(0.05)
        self.end(server)

        spans = {span.name: span for span in collector.spans() if span.trace_id.hex() == TRACE}
        asked, job = spans["POST /v2/images/{image}/import"], spans["job import"]
        self.assertEqual((job.parent_span_id, job.kind), (asked.span_id, Span.SPAN_KIND_CONSUMER))
        self.assertEqual(attributes(job)["job.attempt"], 1)
        for phase in ("import", "receive", "judge"):
            self.assertEqual(spans[phase].parent_span_id, job.span_id)
        call = spans["GET"]
        self.assertEqual((call.kind, call.parent_span_id), (Span.SPAN_KIND_CLIENT, job.span_id))
        self.assertEqual(attributes(call)["http.response.status_code"], 200)
        self.assertEqual(attributes(call)["server.port"], origin.port)
        self.assertNotIn("secret", str(collector.spans()))
        self.assertTrue(origin.heard)
        for _, _, headers, _ in origin.heard:
            self.assertIsNone(headers["traceparent"])

    def test_keystone_is_told_the_trace(self):
        collector, keystone = self.listen(Collector), self.listen(Unavailable)
        server = self.serve(f'[tracing]\nendpoint = "{collector.url}"\n[auth]\nmode = "keystone"\n[auth.keystone]\n'
                            f'auth_url = "{keystone.url}"\nusername = "glint"\npassword = "secret"\n'
                            'user_domain_id = "default"\nproject_name = "service"\nproject_domain_id = "default"\n')
        state = {"tracestate": "vendor=1"}
        self.assertEqual(server.call("GET", "/v2/images", **{"X-Auth-Token": "t"}, **TRACEPARENT, **state)[0], 503)
        self.end(server)
        call = next(s for s in collector.spans() if s.kind == Span.SPAN_KIND_CLIENT and s.name == "POST")
        self.assertEqual((call.status.code, attributes(call)["error.type"]), (Status.STATUS_CODE_ERROR, "503"))
        headers = keystone.heard[0][2]
        self.assertEqual(headers["traceparent"], f"00-{TRACE}-{call.span_id.hex()}-01")
        self.assertEqual(headers["tracestate"], "vendor=1")

    def test_the_environment_goes_before_the_file(self):
        collector = self.listen(Collector)
        server = self.serve(f'[tracing]\nendpoint = "http://127.0.0.1:{free_port()}"\nsample_ratio = 1.0\n',
                            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_EXPORTER_OTLP_HEADERS="x-key=k1",
                            OTEL_SERVICE_NAME="images", OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
                            OTEL_TRACES_SAMPLER="parentbased_always_off", OTEL_BSP_SCHEDULE_DELAY="50")
        self.assertEqual(server.call("GET", "/v2/images")[0], 200)
        self.assertEqual(server.call("GET", "/v2/images", **TRACEPARENT)[0], 200)
        end = time.monotonic() + 30
        while not collector.heard:
            self.assertLess(time.monotonic(), end, "nothing was sent while it ran")
            time.sleep(0.05)
        self.end(server)
        self.assertEqual({s.trace_id.hex() for s in collector.spans()}, {TRACE})
        resource, _ = next(collector.resources())
        self.assertEqual((resource["service.name"], resource["deployment.environment.name"]), ("images", "test"))
        self.assertEqual(collector.heard[0][2]["x-key"], "k1")

    def test_a_collector_that_is_away_is_a_warning(self):
        server = self.serve(f'[tracing]\nendpoint = "http://127.0.0.1:{free_port()}"\n',
                            OTEL_BSP_SCHEDULE_DELAY="20", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="2", OTEL_BSP_MAX_QUEUE_SIZE="4")
        for _ in range(50):
            self.assertEqual(server.call("GET", "/v2/images")[0], 200)
        since = time.monotonic()
        self.end(server)
        self.assertLess(time.monotonic() - since, 10)
        self.assertEqual(server.said().count("takes no traces"), 1, server.said())

    def test_what_cannot_be_had_is_refused(self):
        for config, environment, told in [
            ('[tracing]\nendpoint = "udp://127.0.0.1:1"\nsample_ratio = 2.0\n', {}, r"endpoint is .*udp.*"),
            ('[tracing]\nsample_ratio = 2.0\n', {}, r"sample_ratio is 2, allowed 0 to 1"),
            ("", dict(OTEL_EXPORTER_OTLP_PROTOCOL="grpc"), r"allowed http/protobuf"),
            ("", dict(OTEL_TRACES_EXPORTER="zipkin"), r"allowed otlp and none"),
        ]:
            with self.subTest(told), self.assertRaises(AssertionError) as refused:
                self.serve(config, **environment)
            self.assertTrue(re.search(told, str(refused.exception)), refused.exception)

    def test_traces_can_be_switched_off(self):
        collector = self.listen(Collector)
        for off in (dict(OTEL_SDK_DISABLED="true"), dict(OTEL_TRACES_EXPORTER="none")):
            server = self.serve(f'[tracing]\nendpoint = "{collector.url}"\n', **off)
            self.assertEqual(server.call("GET", "/v2/images", **TRACEPARENT)[0], 200)
            self.end(server)
        self.assertEqual(collector.heard, [])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    unittest.main(argv=[sys.argv[0], "-v", *sys.argv[3:]])
