"""The clients people have, against a running `glint serve`: python-openstackclient and
python-glanceclient, as commands, on loopback, with throwaway data.

Usage: clients.py GLINT VENV
"""

import atexit
import hashlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

GLINT, VENV = (Path(p).absolute() for p in sys.argv[1:3])
FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
MIB = 1 << 20


class Server:
    """One `glint serve` with data of its own."""

    def __init__(self, room, config="", data=None):
        self.data = data or Path(tempfile.mkdtemp(prefix="data-", dir=room))
        file = self.data.with_suffix(".toml")
        if not data:
            file.write_text(config)
        self.log = open(self.data.with_suffix(".log"), "w+")
        self.process = subprocess.Popen(
            [GLINT, "serve", "--listen", "127.0.0.1:0", "--data", self.data, "--config", file],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        # Whatever ends us ends it too.
        atexit.register(self.stop)
        self.url = self.wait_for_url()

    def wait_for_url(self):
        for _ in range(600):
            if found := re.search(r"http://127\.0\.0\.1:\d+", self.said()):
                return found[0]
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"the server did not start:\n{self.said()}")

    def again(self):
        """A new process on the same data and configuration."""
        return Server(self.data.parent, data=self.data)

    def said(self):
        return Path(self.log.name).read_text()

    def files(self, folder):
        """What lies in a folder of the data, by name and length."""
        return sorted((p.name, p.stat().st_size) for p in (self.data / folder).rglob("*") if p.is_file())

    def call(self, method, path, body=None, **headers):
        """Status, body and headers of an answer, whatever the status."""
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as e:
            return e.code, e.read(), e.headers

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()


def run(*args, env=None):
    """Runs a command as at a terminal: both clients upload what they find in any other input."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("OS_")} | (env or {})
    ours, theirs = pty.openpty()
    try:
        return subprocess.run([*map(str, args)], stdin=theirs, capture_output=True, text=True, timeout=120, env=clean)
    finally:
        os.close(ours)
        os.close(theirs)


class Peers(unittest.TestCase):
    CONFIG = ""

    @classmethod
    def setUpClass(cls):
        cls.room = tempfile.TemporaryDirectory(prefix="glint-peers-")
        cls.addClassCleanup(cls.room.cleanup)
        cls.server = Server(cls.room.name, cls.CONFIG)
        cls.addClassCleanup(cls.server.stop)
        cls.raw = cls.path("disk.raw")
        # Two MiB that do not compress, a hole, an end that is no whole cluster.
        cls.raw.write_bytes(hashlib.shake_128(b"glint").digest(2 * MIB) + bytes(3 * MIB) + b"end".ljust(512, b"."))
        cls.qcow2 = cls.path("disk.qcow2")
        cls.qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", cls.raw, cls.qcow2)

    @classmethod
    def path(cls, name):
        return Path(cls.room.name) / name

    @staticmethod
    def qemu_img(*args):
        subprocess.run(["qemu-img", *args], check=True)

    def tearDown(self):
        self.assertIsNone(self.server.process.poll(), f"the server died:\n{self.server.said()}")

    # -- the two clients ------------------------------------------------------------------------

    def openstack(self, *args, json_out=False, fails=False):
        tail = ["-f", "json"] if json_out else []
        done = run(VENV / "bin/openstack", "--os-auth-type", "none", "--os-endpoint", self.server.url,
                   "image", *args, *tail)
        return self.outcome(done, args, json_out, fails)

    def glance(self, *args, fails=False):
        done = run(VENV / "bin/glance", "--os-auth-token", "any", "--os-image-url", self.server.url, *args)
        return self.outcome(done, args, False, fails)

    def outcome(self, done, args, json_out, fails):
        told = f"{' '.join(map(str, args))}\n{done.stdout}{done.stderr}\nserver:\n{self.server.said()[-3000:]}"
        self.assertEqual(done.returncode != 0, fails, told)
        if fails:
            return done.stdout + done.stderr
        return json.loads(done.stdout) if json_out else done.stdout

    def show(self, image):
        return self.openstack("show", image, json_out=True)

    def wait_active(self, image):
        for _ in range(60):
            seen = self.show(image)
            if seen["status"] not in ("importing", "uploading", "saving"):
                break
            time.sleep(0.5)
        self.assertEqual(seen["status"], "active", f"{seen}\n{self.server.said()[-3000:]}")
        return seen

    def assert_same_bytes(self, a, b):
        self.assertTrue(a.read_bytes() == b.read_bytes(), f"{a.name} and {b.name} differ")

    def assert_nothing_stored(self, before):
        self.assertEqual(self.server.files("images"), before)
        self.assertEqual(self.server.files("staging"), [])


class OpenStackClient(Peers):
    def test_a_qcow2_from_upload_to_delete(self):
        created = self.openstack(
            "create", "--file", self.qcow2, "--disk-format", "qcow2", "--container-format", "bare",
            "--public", "--tag", "first", "--property", "os_distro=debian", "debian", json_out=True)
        image = created["id"]
        seen = self.show(image)
        self.assertEqual(seen["status"], "active")
        self.assertEqual(seen["visibility"], "public")
        self.assertEqual(seen["size"], self.qcow2.stat().st_size)
        self.assertEqual(seen["virtual_size"], self.raw.stat().st_size)
        self.assertEqual(seen["checksum"], hashlib.md5(self.qcow2.read_bytes()).hexdigest())
        self.assertEqual(seen["properties"]["os_hash_value"], hashlib.sha512(self.qcow2.read_bytes()).hexdigest())
        self.assertEqual(seen["properties"]["os_distro"], "debian")
        self.assertEqual(seen["tags"], ["first"])

        listed = self.openstack("list", "--public", "--property", "os_distro=debian", json_out=True)
        self.assertEqual([(i["ID"], i["Name"], i["Status"]) for i in listed], [(image, "debian", "active")])

        self.openstack("set", "--name", "bookworm", "--min-disk", "3", "--property", "os_version=12",
                       "--tag", "second", "--protected", image)
        seen = self.show("bookworm")
        self.assertEqual((seen["id"], seen["min_disk"], seen["protected"]), (image, 3, True))
        self.assertEqual(seen["properties"]["os_version"], "12")
        self.assertEqual(sorted(seen["tags"]), ["first", "second"])
        self.openstack("delete", image, fails=True)
        self.openstack("set", "--unprotected", image)
        self.openstack("unset", "--property", "os_version", "--tag", "first", image)
        seen = self.show(image)
        self.assertNotIn("os_version", seen["properties"])
        self.assertEqual(seen["tags"], ["second"])

        back = self.path("back.qcow2")
        self.openstack("save", "--file", back, image)
        self.assert_same_bytes(self.qcow2, back)

        self.openstack("set", "--deactivate", image)
        self.assertEqual(self.show(image)["status"], "deactivated")
        self.openstack("set", "--activate", image)
        self.assertEqual(self.show(image)["status"], "active")

        self.openstack("delete", image)
        self.openstack("show", image, fails=True)
        self.assertNotIn((image, ), [(i["ID"], ) for i in self.openstack("list", json_out=True)])

    def test_stage_and_import(self):
        image = self.openstack("create", "--disk-format", "qcow2", "staged", json_out=True)["id"]
        self.assertEqual(self.show(image)["status"], "queued")
        self.openstack("stage", "--file", self.qcow2, image)
        self.assertEqual(self.show(image)["status"], "uploading")
        self.openstack("import", "--method", "glance-direct", image)
        seen = self.wait_active(image)
        self.assertEqual(seen["virtual_size"], self.raw.stat().st_size)
        self.assertEqual(self.server.files("staging"), [])
        back = self.path("imported.qcow2")
        self.openstack("save", "--file", back, image)
        self.assert_same_bytes(self.qcow2, back)
        self.openstack("delete", image)

    def test_create_by_import(self):
        image = self.openstack(
            "create", "--import", "--file", self.raw, "--disk-format", "raw", "by-import", json_out=True)["id"]
        self.assertEqual(self.wait_active(image)["size"], self.raw.stat().st_size)
        self.openstack("delete", image)

    def test_what_the_service_offers(self):
        methods = self.openstack("import", "info", json_out=True)
        self.assertIn("glance-direct", json.dumps(methods))
        self.assertTrue(self.openstack("stores", "list", json_out=True))

    def test_an_unsafe_upload_is_refused_with_the_reason_and_leaves_nothing(self):
        before = self.server.files("images")
        for name, claimed, reason in [
            ("backing.qcow2", "qcow2", "backing"),
            ("extent-path.vmdk", "vmdk", "extent"),
            ("clean.qcow2", "vmdk", "qcow2"),
            ("truncated.qcow2", "qcow2", ""),
        ]:
            with self.subTest(name):
                told = self.openstack("create", "--file", FIXTURES / name, "--disk-format", claimed,
                                      f"bad-{name}", fails=True)
                self.assertIn(reason, told)
                self.assert_nothing_stored(before)
                active = self.openstack("list", "--name", f"bad-{name}", "--status", "active", json_out=True)
                self.assertEqual(active, [])


class GlanceClient(Peers):
    def image_of(self, table):
        """The rows of a glance property table."""
        rows = [line.split("|") for line in table.splitlines() if line.startswith("|")]
        return {r[1].strip(): "|".join(r[2:-1]).strip() for r in rows[1:]}

    def test_an_image_from_upload_to_delete(self):
        created = self.image_of(self.glance(
            "image-create", "--name", "glance", "--disk-format", "qcow2", "--container-format", "bare",
            "--visibility", "private", "--property", "colour=green", "--file", self.qcow2))
        image = created["id"]
        self.assertEqual(created["status"], "active")
        self.assertEqual(created["virtual_size"], str(self.raw.stat().st_size))
        self.assertIn(image, self.glance("image-list"))
        self.assertEqual(self.image_of(self.glance("image-show", image))["colour"], "green")
        updated = self.image_of(self.glance("image-update", "--property", "colour=blue", "--min-ram", "64", image))
        self.assertEqual((updated["colour"], updated["min_ram"]), ("blue", "64"))
        self.glance("image-tag-update", image, "tagged")
        self.assertIn("tagged", self.image_of(self.glance("image-show", image))["tags"])

        back = self.path("glance.qcow2")
        self.glance("image-download", "--file", back, image)
        self.assert_same_bytes(self.qcow2, back)

        self.glance("image-deactivate", image)
        self.glance("image-reactivate", image)
        self.glance("image-delete", image)
        self.glance("image-show", image, fails=True)

    def test_stage_and_import(self):
        image = self.image_of(self.glance(
            "image-create", "--name", "staged", "--disk-format", "raw", "--container-format", "bare"))["id"]
        self.glance("image-stage", "--file", self.raw, image)
        self.glance("image-import", "--import-method", "glance-direct", image)
        self.wait_active(image)
        self.assertIn("success", self.glance("image-tasks", image))
        back = self.path("glance.raw")
        self.glance("image-download", "--file", back, image)
        self.assert_same_bytes(self.raw, back)
        self.glance("image-delete", image)

    def test_what_the_service_offers(self):
        self.assertIn("import-methods", self.glance("import-info"))
        self.glance("stores-info")

    def test_an_unsafe_upload_is_refused(self):
        before = self.server.files("images")
        told = self.glance("image-create", "--name", "bad", "--disk-format", "qcow2",
                           "--container-format", "bare", "--file", FIXTURES / "backing.qcow2", fails=True)
        self.assertIn("backing", told)
        self.assert_nothing_stored(before)


class Web:
    """A web server on loopback that serves a folder."""

    def __init__(self, folder):
        class Quiet(SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=folder)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, name):
        return f"http://127.0.0.1:{self.port}/{name}"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class SeveralStores(Peers):
    """Members, imports from the web and between stores, locations."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="glint-web-")
        cls.addClassCleanup(folder.cleanup)
        cls.web = Web(folder.name)
        cls.addClassCleanup(cls.web.stop)
        cls.CONFIG = f"""
            [api]
            show_multiple_locations = true
            [fetch]
            allowed_networks = ["127.0.0.0/8"]
            allowed_ports = [{cls.web.port}]
            [[stores]]
            id = "fast"
            type = "file"
            path = "{folder.name}/fast"
            weight = 10
            [[stores]]
            id = "slow"
            type = "file"
            path = "{folder.name}/slow"
            [[stores]]
            id = "web"
            type = "http"
            """
        super().setUpClass()
        (Path(folder.name) / "disk.raw").write_bytes(cls.raw.read_bytes())

    def rows(self, table):
        rows = [line.split("|") for line in table.splitlines() if line.startswith("|")]
        return {r[1].strip(): "|".join(r[2:-1]).strip() for r in rows[1:]}

    def create(self, name):
        told = self.glance("image-create", "--name", name, "--disk-format", "raw", "--container-format", "bare")
        image = self.rows(told)["id"]
        self.addCleanup(self.glance, "image-delete", image)
        return image

    def wait_for(self, image, **wanted):
        for _ in range(60):
            seen = self.rows(self.glance("image-show", image))
            if all(seen.get(k) == v for k, v in wanted.items()):
                return seen
            time.sleep(0.5)
        self.fail(f"{wanted} never came: {seen}\n{self.server.said()[-3000:]}")

    def assert_downloads(self, image):
        back = self.path(f"{image}.raw")
        self.glance("image-download", "--file", back, image)
        self.assert_same_bytes(self.raw, back)

    def test_members(self):
        image = self.create("shared")
        self.assertIn("pending", self.glance("member-create", image, "guests"))
        self.assertIn("accepted", self.glance("member-update", image, "guests", "accepted"))
        self.assertRegex(self.glance("member-list", "--image-id", image), r"guests +\| accepted")
        self.glance("member-delete", image, "guests")
        self.assertNotIn("guests", self.glance("member-list", "--image-id", image))
        self.glance("member-get", image, "guests", fails=True)

    def test_the_web_into_all_stores_and_out_of_one(self):
        image = self.create("everywhere")
        self.glance("image-import", "--import-method", "web-download", "--uri", self.web.url("disk.raw"),
                    "--all-stores", "true", image)
        self.wait_for(image, status="active", stores="fast,slow", os_glance_importing_to_stores="")
        self.assert_downloads(image)
        self.glance("stores-delete", "--store", "fast", image)
        self.wait_for(image, stores="slow")
        self.assert_downloads(image)
        self.glance("image-import", "--import-method", "copy-image", "--stores", "fast", image)
        self.wait_for(image, stores="fast,slow", os_glance_importing_to_stores="")
        self.assertIn("success", self.glance("image-tasks", image))

    def test_the_web_by_the_other_client(self):
        image = self.create("from the web")
        self.openstack("import", image, "--method", "web-download", "--uri", self.web.url("disk.raw"),
                       "--store", "slow")
        self.wait_active(image)
        self.wait_for(image, stores="slow")
        self.assert_downloads(image)

    def test_nothing_inside_is_fetched(self):
        image = self.create("nosy")
        for uri in ["http://127.0.0.1:1/x", "http://169.254.169.254/latest", "file:///etc/passwd"]:
            told = self.glance("image-import", "--import-method", "web-download", "--uri", uri, image, fails=True)
            self.assertIn("does not pass filtering", told)

    def test_a_location_by_either_way(self):
        new, old = self.create("new way"), self.create("old way")
        self.glance("add-location", "--url", self.web.url("disk.raw"), new)
        self.glance("location-add", "--url", self.web.url("disk.raw"), old)
        for image in (new, old):
            self.wait_for(image, status="active", stores="web", size=str(self.raw.stat().st_size))
            back = self.path(f"{image}.raw")
            self.glance("image-download", "--file", back, image)
            self.assert_same_bytes(self.raw, back)


class OpenApi(Peers):
    """Requests made up from our own description of the API, always the same ones."""

    CONFIG = """
        [api]
        show_multiple_locations = true
        """

    def test_nothing_makes_the_service_fail(self):
        image = self.openstack("create", "--file", self.raw, "--disk-format", "raw", "--protected", "there",
                               json_out=True)["id"]
        done = subprocess.run(
            [VENV / "bin/st", "run", f"{self.server.url}/openapi.json", "--checks", "not_a_server_error",
             "--phases", "fuzzing", "--max-examples", "12", "--seed", "1", "--no-shrink",
             "--continue-on-failure", "--generation-database", "none", "--no-color",
             "--request-timeout", "20"],
            env={**os.environ, "SCHEMATHESIS_HOOKS": "openapi_hooks", "GLINT_IMAGE": image,
                 "PYTHONPATH": str(Path(__file__).resolve().parent)},
            cwd=self.room.name, capture_output=True, text=True, timeout=240)
        self.assertEqual(done.returncode, 0, f"{done.stdout[-6000:]}{done.stderr[-2000:]}\n{self.server.said()[-2000:]}")


class Metadefs(Peers):
    """The `glance md-*` commands, and the stock definitions."""

    def md(self, command, *args, fails=False):
        return self.glance(f"md-{command}", *args, fails=fails)

    def namespace(self, name, *args):
        self.md("namespace-create", name, *args)
        self.addCleanup(self.md, "namespace-delete", name)

    def test_a_namespace_from_create_to_delete(self):
        told = self.md("namespace-create", "Lab::Box", "--display-name", "Box", "--visibility", "public")
        self.assertRegex(told, r"display_name +\| Box ")
        self.assertIn("Lab::Box", self.md("namespace-list", "--visibility", "public"))
        self.md("namespace-update", "Lab::Box", "--description", "a box", "--protected", "True")
        self.md("namespace-delete", "Lab::Box", fails=True)
        self.assertRegex(self.md("namespace-show", "Lab::Box"), r"description +\| a box ")
        self.md("namespace-update", "Lab::Box", "--protected", "False")
        self.md("namespace-delete", "Lab::Box")
        self.md("namespace-show", "Lab::Box", fails=True)

    def test_what_is_in_a_namespace(self):
        self.namespace("Lab::In")
        schema = json.dumps({"title": "Width", "type": "integer", "minimum": 1})
        self.md("property-create", "Lab::In", "--name", "width", "--title", "Width", "--type", "integer",
                "--schema", json.dumps({"minimum": 1}))
        self.assertIn("width", self.md("property-list", "Lab::In"))
        self.md("property-update", "Lab::In", "width", "--title", "How wide")
        self.assertIn("How wide", self.md("property-show", "Lab::In", "width"))

        self.md("object-create", "Lab::In", "--name", "door", "--schema",
                json.dumps({"description": "a way in", "properties": {"wide": json.loads(schema)}}))
        self.assertIn("door", self.md("object-list", "Lab::In"))
        self.assertIn("a way in", self.md("object-show", "Lab::In", "door"))
        self.assertIn("Width", self.md("object-property-show", "Lab::In", "door", "wide"))
        self.md("object-update", "Lab::In", "door", "--name", "gate")
        self.md("object-delete", "Lab::In", "gate")

        self.md("tag-create", "Lab::In", "--name", "red")
        self.md("tag-update", "Lab::In", "red", "--name", "blue")
        self.assertRegex(self.md("tag-list", "Lab::In"), r"\| blue +\|")
        # Without --append, whose header this client cannot encode: all others are replaced.
        self.md("tag-create-multiple", "Lab::In", "--names", "x:y", "--delim", ":")
        listed = self.md("tag-list", "Lab::In")
        self.assertNotIn("blue", listed)
        for tag in ("x", "y"):
            self.assertRegex(listed, rf"\| {tag} +\|")
        self.md("tag-delete", "Lab::In", "x")
        self.md("namespace-tags-delete", "Lab::In")
        self.assertNotRegex(self.md("tag-list", "Lab::In"), r"\| y +\|")

        self.md("resource-type-associate", "Lab::In", "--name", "OS::Nova::Server", "--prefix", "lab:")
        self.assertIn("lab:", self.md("namespace-resource-type-list", "Lab::In"))
        self.assertIn("lab:width", self.md("namespace-show", "Lab::In", "--resource-type", "OS::Nova::Server"))
        self.md("resource-type-deassociate", "Lab::In", "OS::Nova::Server")
        self.assertIn("OS::Cinder::Volume", self.md("resource-type-list"))
        self.md("property-delete", "Lab::In", "width")
        self.md("namespace-properties-delete", "Lab::In")
        self.md("namespace-objects-delete", "Lab::In")

    def test_a_namespace_is_imported_whole(self):
        file = self.path("namespace.json")
        file.write_text(json.dumps({
            "namespace": "Lab::Import", "visibility": "public",
            "properties": {"a": {"title": "A", "type": "string", "enum": ["x", "y"]}},
            "objects": [{"name": "o", "required": ["b"], "properties": {"b": {"title": "B", "type": "number"}}}],
            "tags": [{"name": "t"}],
            "resource_type_associations": [{"name": "OS::Glance::Image", "prefix": "lab_"}]}))
        self.md("namespace-import", "--file", file)
        self.addCleanup(self.md, "namespace-delete", "Lab::Import")
        shown = self.md("namespace-show", "Lab::Import")
        for part in ("OS::Glance::Image", "tags", "objects", "properties"):
            self.assertIn(part, shown)

    def test_the_stock_definitions_are_listed_and_go_again(self):
        def db(*args):
            subprocess.run([GLINT, "db", *args, "--data", self.server.data], check=True, capture_output=True)

        db("load-metadefs", "--stock")
        self.addCleanup(db, "unload-metadefs", "--all")
        listed = self.md("namespace-list", "--page-size", "7")
        for name in ("OS::Compute::LibvirtImage", "OS::OperatingSystem", "OS::Cinder::Volumetype"):
            self.assertIn(name, listed)
        self.assertIn("hw_disk_bus", self.md("namespace-show", "OS::Compute::LibvirtImage",
                                             "--resource-type", "OS::Glance::Image"))
        self.assertIn("OS::Compute::Quota", self.md("namespace-list", "--resource-types", "OS::Nova::Flavor"))


class Conversion(Peers):
    CONFIG = '[import]\noutput_format = "raw"\n'

    def import_of(self, file, disk_format, *more):
        image = self.openstack("create", "--disk-format", disk_format, *more, file.name, json_out=True)["id"]
        self.openstack("stage", "--file", file, image)
        self.openstack("import", "--method", "glance-direct", image)
        return image

    def test_an_import_converts(self):
        seen = self.wait_active(self.import_of(self.qcow2, "qcow2"))
        self.assertEqual((seen["disk_format"], seen["size"]), ("raw", self.raw.stat().st_size))
        self.assertEqual(seen["checksum"], hashlib.md5(self.raw.read_bytes()).hexdigest())
        back = self.path("converted.raw")
        self.openstack("save", "--file", back, seen["id"])
        self.assert_same_bytes(self.raw, back)

    def test_an_ova_becomes_its_disk(self):
        file = FIXTURES / "clean.ova"
        seen = self.wait_active(self.import_of(file, "vmdk", "--container-format", "ova"))
        self.assertEqual((seen["disk_format"], seen["container_format"]), ("raw", "bare"))
        self.assertEqual(seen["size"], 64 << 10)

    def test_an_unsafe_import_fails_and_leaves_nothing(self):
        before = self.server.files("images")
        image = self.import_of(FIXTURES / "backing.qcow2", "qcow2")
        for _ in range(60):
            seen = self.show(image)
            if seen["status"] not in ("importing", "uploading"):
                break
            time.sleep(0.5)
        self.assertEqual(seen["status"], "queued", seen)
        self.assert_nothing_stored(before)


class Tus(Peers):
    """tuspy, a client of tus 1.0, through a kill of the server."""

    SCRIPT = """
import sys
from tusclient.client import TusClient
endpoint, path, url, stop_at = sys.argv[1:]
client = TusClient(endpoint)
upload = client.uploader(path, url=url or None, chunk_size=256 << 10, upload_checksum=True)
upload.upload(stop_at=int(stop_at) or None)
print(upload.url, upload.offset)
"""

    def tus(self, server, image, url, stop_at=0):
        endpoint = f"{server.url}/v2/images/{image}/upload"
        done = run(VENV / "bin/python", "-c", self.SCRIPT, endpoint, self.raw, url, stop_at)
        self.assertEqual(done.returncode, 0, f"{done.stdout}{done.stderr}\n{server.said()[-3000:]}")
        url, offset = done.stdout.split()
        return url, int(offset)

    def test_an_upload_goes_on_after_a_kill(self):
        server = Server(self.room.name)
        self.addCleanup(server.stop)
        self.server = server
        image = self.openstack("create", "--disk-format", "raw", "--container-format", "bare", "tus", json_out=True)["id"]
        url, offset = self.tus(server, image, "", 1 * MIB)
        self.assertEqual(offset, 1 * MIB)
        server.process.kill()
        server.process.wait()
        again = server.again()
        self.addCleanup(again.stop)
        self.server = again
        url = again.url + url[url.index("/v2/"):]
        self.assertEqual(self.tus(again, image, url)[1], self.raw.stat().st_size)
        seen = self.show(image)
        self.assertEqual(seen["status"], "active")
        self.assertEqual(seen["checksum"], hashlib.md5(self.raw.read_bytes()).hexdigest())
        self.assertEqual(again.files("uploads"), [])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    unittest.main(argv=[sys.argv[0], "-v", *sys.argv[3:]])
