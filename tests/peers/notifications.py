"""Events as oslo.messaging reads them from a real RabbitMQ, which goes away in the middle.

Usage: notifications.py GLINT VENV
"""

import atexit
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

import oslo_messaging
from oslo_config import cfg

from clients import GLINT, Server

RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
# Seconds a broker may take to start, and events to come; a busy machine takes its time.
START, PATIENCE = 180, 120


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Broker:
    """A RabbitMQ of our own: its own name, folder, ports and port mapper."""

    def __init__(self, room):
        self.room = Path(room)
        self.port, dist, self.mapper = free_port(), free_port(), free_port()
        files = {"plugins": "[].", "env.conf": "", "rabbitmq.conf": "loopback_users.guest = true\n"}
        for name, text in files.items():
            (self.room / name).write_text(text)
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": room,
            "RABBITMQ_NODENAME": f"glint-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(dist),
            "RABBITMQ_MNESIA_BASE": str(self.room / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.room / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.room / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.room / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.room / "env.conf"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(self.mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        self.process = None
        atexit.register(self.close)

    def start(self):
        self.log = open(self.room / "broker.log", "a")
        self.process = subprocess.Popen([RABBITMQ], env=self.env, cwd=self.room, stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log, start_new_session=True)
        end = time.monotonic() + START
        while time.monotonic() < end and self.process.poll() is None:
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.2)
        raise AssertionError(f"RabbitMQ did not start:\n{(self.room / 'broker.log').read_text()[-3000:]}")

    def stop(self):
        """Orderly, as an operator does: what is durable is on disk then."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            self.log.close()

    def close(self):
        self.stop()
        subprocess.run(["epmd", "-kill"], env=self.env, capture_output=True)

    def url(self):
        return f"rabbit://guest:guest@127.0.0.1:{self.port}//"


class Postgres:
    """A database server that several of ours share."""

    def __init__(self):
        script = Path(__file__).resolve().parents[1] / "support" / "database.sh"
        self.process = subprocess.Popen([script, "postgres"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        admin = self.process.stdout.readline().strip()
        assert admin, "PostgreSQL did not start"
        # The database that is always there: the server is ours alone.
        self.url = f"{admin}postgres"

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


class Listener:
    """A consumer of the real library; remembers what it heard."""

    def __init__(self, url, durable):
        conf = cfg.ConfigOpts()
        conf([], project="glint-test", default_config_files=[])
        transport = oslo_messaging.get_notification_transport(conf, url=url)
        conf.set_override("amqp_durable_queues", durable, group="oslo_messaging_rabbit")
        conf.set_override("rabbit_retry_interval", 1, group="oslo_messaging_rabbit")
        self.heard, self.changed = [], threading.Condition()
        target = oslo_messaging.Target(exchange="glance", topic="notifications")
        self.listener = oslo_messaging.get_notification_listener(transport, [target], [self], executor="threading")
        self.listener.start()

    def hear(self, priority, publisher, event, payload, metadata):
        with self.changed:
            self.heard.append({"priority": priority, "publisher": publisher, "event": event, "payload": payload,
                               "id": metadata["message_id"], "time": metadata["timestamp"]})
            self.changed.notify_all()

    def info(self, ctxt, publisher_id, event_type, payload, metadata):
        self.hear("info", publisher_id, event_type, payload, metadata)

    def error(self, ctxt, publisher_id, event_type, payload, metadata):
        self.hear("error", publisher_id, event_type, payload, metadata)

    def of(self, image):
        """Events about an image, in the order they came."""
        with self.changed:
            return [e for e in self.heard if image in json.dumps(e["payload"])]

    def wait_for(self, image, event):
        with self.changed:
            there = self.changed.wait_for(
                lambda: any(e["event"] == event and image in json.dumps(e["payload"]) for e in self.heard), PATIENCE)
            assert there, f"no {event} of {image} among {[e['event'] for e in self.heard]}"
        return next(e for e in self.of(image) if e["event"] == event)

    def stop(self):
        self.listener.stop()
        self.listener.wait()


class Notifications(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.room = tempfile.TemporaryDirectory(prefix="glint-events-")
        cls.addClassCleanup(cls.room.cleanup)
        broker = Path(cls.room.name) / "broker"
        broker.mkdir()
        cls.broker = Broker(str(broker))
        cls.addClassCleanup(cls.broker.close)
        cls.broker.start()

    def serve(self, more=""):
        # Nobody listens at the first broker: the second is found.
        server = Server(self.room.name, self.config(more))
        self.addCleanup(server.stop)
        return server

    def config(self, more=""):
        url = f"rabbit://guest:guest@127.0.0.1:{free_port()},guest:guest@127.0.0.1:{self.broker.port}//"
        return f'[notifications]\ntransport_url = "{url}"\namqp_durable_queues = true\n{more}'

    def listen(self):
        listener = Listener(self.broker.url(), durable=True)
        self.addCleanup(listener.stop)
        return listener

    def call(self, server, method, path, body=None, kind="application/json"):
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        request = urllib.request.Request(server.url + path, data=data, method=method)
        if data is not None:
            request.add_header("Content-Type", kind)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as e:
            return e.code, e.read()

    def create(self, server, **more):
        status, body = self.call(server, "POST", "/v2/images",
                                 {"disk_format": "raw", "container_format": "bare", **more})
        self.assertEqual(status, 201, body)
        return json.loads(body)["id"]

    def upload(self, server, image, data):
        return self.call(server, "PUT", f"/v2/images/{image}/file", data, "application/octet-stream")[0]

    def test_the_life_of_an_image_is_told(self):
        server, listener = self.serve(), self.listen()
        image = self.create(server, name="told", os_distro="debian", tags=["t"])
        self.assertEqual(self.upload(server, image, b"x" * 1000), 204)
        patch = [{"op": "replace", "path": "/name", "value": "renamed"}]
        kind = "application/openstack-images-v2.1-json-patch"
        self.assertEqual(self.call(server, "PATCH", f"/v2/images/{image}", patch, kind)[0], 200)
        self.assertEqual(self.call(server, "GET", f"/v2/images/{image}/file")[1], b"x" * 1000)
        listener.wait_for(image, "image.send")
        self.assertEqual(self.call(server, "DELETE", f"/v2/images/{image}")[0], 204)
        last = listener.wait_for(image, "image.delete")
        events = listener.of(image)
        kinds = [e["event"] for e in events]
        order = ["image.create", "image.prepare", "image.upload", "image.activate", "image.send", "image.delete"]
        self.assertEqual([k for k in kinds if k in order], order, kinds)

        # Section 10 names the fields of an image's payload, and what is added where data is written.
        of_an_image = {"id", "name", "status", "created_at", "updated_at", "min_disk", "min_ram", "protected",
                       "checksum", "owner", "disk_format", "container_format", "size", "virtual_size", "is_public",
                       "visibility", "properties", "tags", "deleted", "deleted_at"}
        of_data = of_an_image | {"os_glance_importing_to_stores", "os_glance_failed_import", "backend"}
        fields = {"image.prepare": of_data, "image.upload": of_data, "image.send": {
            "bytes_sent", "image_id", "owner_id", "receiver_tenant_id", "receiver_user_id", "destination_ip"}}
        for event in events:
            self.assertEqual(set(event["payload"]), fields.get(event["event"], of_an_image), event["event"])

        first = events[0]
        self.assertEqual(first["priority"], "info")
        self.assertEqual(first["publisher"], f"image.{os.uname().nodename}")
        told = first["payload"]
        self.assertEqual((told["name"], told["status"], told["owner"]), ("told", "queued", "admin"))
        self.assertRegex(told["created_at"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertEqual((told["disk_format"], told["container_format"]), ("raw", "bare"))
        self.assertEqual((told["min_disk"], told["min_ram"], told["protected"]), (0, 0, False))
        self.assertEqual([told[k] for k in ("size", "virtual_size", "checksum", "deleted_at")], [None] * 4)
        self.assertEqual((told["properties"], told["tags"]), ({"os_distro": "debian"}, ["t"]))
        self.assertEqual((told["visibility"], told["is_public"], told["deleted"]), ("shared", False, False))
        active = listener.wait_for(image, "image.activate")["payload"]
        self.assertEqual((active["status"], active["size"]), ("active", 1000))
        self.assertEqual(active["checksum"], hashlib.md5(b"x" * 1000).hexdigest())
        self.assertEqual(listener.wait_for(image, "image.upload")["payload"]["backend"], "file")
        sent = listener.wait_for(image, "image.send")["payload"]
        self.assertEqual((sent["bytes_sent"], sent["image_id"]), (1000, image))
        self.assertEqual((sent["owner_id"], sent["receiver_tenant_id"]), ("admin", "admin"))
        self.assertEqual(sent["destination_ip"], "127.0.0.1")
        self.assertIn("renamed", [e["payload"]["name"] for e in events if e["event"] == "image.update"])
        self.assertEqual((last["payload"]["deleted"], last["payload"]["status"]), (True, "deleted"))
        self.assertIsNotNone(last["payload"]["deleted_at"])

    def test_a_failed_upload_is_an_error(self):
        server, listener = self.serve(), self.listen()
        image = self.create(server, disk_format="qcow2")
        self.assertEqual(self.upload(server, image, b"no qcow2"), 415)
        failed = listener.wait_for(image, "image.upload")
        self.assertEqual(failed["priority"], "error")
        self.assertIsInstance(failed["payload"], str)

    def test_members_are_told(self):
        server, listener = self.serve(), self.listen()
        image = self.create(server)
        members = f"/v2/images/{image}/members"
        self.assertEqual(self.call(server, "POST", members, {"member": "friend"})[0], 200)
        self.assertEqual(self.call(server, "PUT", f"{members}/friend", {"status": "accepted"})[0], 200)
        self.assertEqual(self.call(server, "DELETE", f"{members}/friend")[0], 204)
        gone = listener.wait_for(image, "image.member.delete")["payload"]
        self.assertEqual((gone["member_id"], gone["status"], gone["deleted"]), ("friend", "accepted", True))
        kinds = [e["event"] for e in listener.of(image) if ".member." in e["event"]]
        self.assertEqual(kinds, [f"image.member.{what}" for what in ("create", "update", "delete")])

    def test_metadata_definitions_and_tasks_are_told(self):
        server, listener = self.serve(), self.listen()
        status, _ = self.call(server, "POST", "/v2/metadefs/namespaces", {"namespace": "Lab::Told"})
        self.assertEqual(status, 201)
        at = "/v2/metadefs/namespaces/Lab::Told"
        self.call(server, "POST", f"{at}/objects", {"name": "o"})
        self.call(server, "POST", f"{at}/properties", {"name": "p", "title": "P", "type": "string"})
        self.call(server, "POST", f"{at}/tags/t")
        self.call(server, "POST", f"{at}/resource_types", {"name": "OS::Nova::Server"})
        self.call(server, "DELETE", f"{at}/resource_types/OS::Nova::Server")
        self.call(server, "DELETE", f"{at}/tags")
        self.call(server, "DELETE", at)
        listener.wait_for("Lab::Told", "metadef_namespace.delete")
        kinds = [e["event"] for e in listener.of("Lab::Told")]
        self.assertEqual(kinds, [
            "metadef_namespace.create", "metadef_object.create", "metadef_property.create", "metadef_tag.create",
            "metadef_resource_type.create", "metadef_resource_type.delete", "metadef_namespace.delete_tags",
            "metadef_namespace.delete"])

        image = self.create(server)
        self.call(server, "PUT", f"/v2/images/{image}/stage", b"x" * 512, "application/octet-stream")
        self.call(server, "POST", f"/v2/images/{image}/import", {"method": {"name": "glance-direct"}})
        listener.wait_for(image, "task.success")
        kinds = [e["event"] for e in listener.of(image) if e["event"].startswith("task.")]
        self.assertEqual(kinds, ["task.create", "task.run", "task.processing", "task.success"])

    def test_what_is_disabled_is_not_told(self):
        server = self.serve('disabled_notifications = ["image.create", "task"]\npublisher_id = "image.test"')
        listener = self.listen()
        image = self.create(server)
        self.assertEqual(self.call(server, "DELETE", f"/v2/images/{image}")[0], 204)
        self.assertEqual(listener.wait_for(image, "image.delete")["publisher"], "image.test")
        self.assertEqual([e["event"] for e in listener.of(image)], ["image.delete"])

    def test_nothing_is_lost_while_the_broker_is_away(self):
        server, listener = self.serve(), self.listen()
        before = self.create(server)
        listener.wait_for(before, "image.create")
        listener.stop()
        unread = self.create(server)
        self.broker.stop()
        away = [self.create(server) for _ in range(5)]
        for image in away:
            self.assertEqual(self.call(server, "DELETE", f"/v2/images/{image}")[0], 204)
        # Killed with events in the outbox: they are sent by whoever comes next.
        server.process.kill()
        server.process.wait()
        server = server.again()
        self.addCleanup(server.stop)
        later = [self.create(server) for _ in range(5)]
        self.broker.start()
        after = self.create(server)

        listener = self.listen()
        for image in [unread, *later, after]:
            listener.wait_for(image, "image.create")
        made = [e["payload"]["id"] for e in listener.heard if e["event"] == "image.create"]
        self.assertEqual([i for i in made if i != unread], [*away, *later, after], "in the order they were made")
        for image in away:
            kinds = [e["event"] for e in listener.of(image)]
            self.assertEqual(kinds, ["image.create", "image.delete"])
        # Sent twice or not, every event is one to the consumer.
        seen = [e["id"] for e in listener.heard]
        self.assertEqual(len(set(seen)), len(seen))

    def test_servers_of_one_catalog_send_each_event_once_and_in_order(self):
        database = Postgres()
        self.addCleanup(database.stop)
        config = self.config() + f'[catalog]\nurl = "{database.url}"\n'
        file = Path(self.room.name) / "shared.toml"
        file.write_text(config)
        subprocess.run([GLINT, "db", "sync", "--config", file, "--data", self.room.name], check=True,
                       capture_output=True)
        first = Server(self.room.name, config)
        self.addCleanup(first.stop)
        second = Server(self.room.name, config)
        self.addCleanup(second.stop)
        listener = self.listen()
        servers, images = [first, second], []
        for n in range(12):
            # Each step of an image is another server's.
            image = self.create(servers[n % 2])
            images.append(image)
            patch = [{"op": "replace", "path": "/name", "value": f"n{n}"}]
            kind = "application/openstack-images-v2.1-json-patch"
            status, body = self.call(servers[(n + 1) % 2], "PATCH", f"/v2/images/{image}", patch, kind)
            self.assertEqual(status, 200, body)
            self.assertEqual(self.call(servers[n % 2], "DELETE", f"/v2/images/{image}")[0], 204)
        # One of them is killed: what it noted is sent by the other.
        last = self.create(second)
        second.process.kill()
        second.process.wait()
        for image in images:
            listener.wait_for(image, "image.delete")
            kinds = [e["event"] for e in listener.of(image)]
            self.assertEqual(kinds, ["image.create", "image.update", "image.delete"])
        listener.wait_for(last, "image.create")

    def test_what_waits_too_long_is_dropped_aloud(self):
        nobody = f"rabbit://127.0.0.1:{free_port()}/"
        server = Server(self.room.name, f'[notifications]\ntransport_url = "{nobody}"\nkeep_events = 3\n')
        self.addCleanup(server.stop)
        for _ in range(8):
            self.create(server)
        end = time.monotonic() + PATIENCE
        while not re.search(r"[1-5] events are dropped", server.said()):
            self.assertLess(time.monotonic(), end, server.said())
            time.sleep(0.1)
        # A password is told to nobody.
        self.assertNotIn("guest:", server.said())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    unittest.main(argv=[sys.argv[0], "-v", *sys.argv[3:]])
