"""The service behind a real Keystone: who is let in, who may do what, what projects may hold.

Usage: identity.py GLINT VENV
"""

import json
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

import clients
from clients import VENV, Server, Web, run
from keystone import PASSWORD, REGION, Keystone

CONFIG = """\
{keystone}cache_seconds = {bound}
[api]
show_multiple_locations = true
[quota]
use_keystone_limits = true
[fetch]
allowed_networks = ["127.0.0.0/8"]
allowed_ports = [80, {web}]
[[stores]]
id = "file"
type = "file"
path = "{room}/images"
[[stores]]
id = "web"
type = "http"
"""
# How long a revoked token may still be good, in seconds.
BOUND = 1


class Answer:
    def __init__(self, code, headers, body):
        self.code, self.headers, self.body = code, headers, body

    def json(self):
        return json.loads(self.body)


def ask(server, method, path, token=None, body=None, headers=()):
    """One request; errors are answers too."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    headers = {"Content-Type": "application/json", **({"X-Auth-Token": token} if token else {}), **dict(headers)}
    request = urllib.request.Request(server.url + path, method=method, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as e:
        return Answer(e.code, e.headers, e.read())


class UnderKeystone(clients.Peers):
    @classmethod
    def setUpClass(cls):
        room = tempfile.TemporaryDirectory(prefix="glint-keystone-")
        cls.addClassCleanup(room.cleanup)
        cls.keystone = Keystone(VENV, room.name)
        cls.addClassCleanup(cls.keystone.stop)
        cls.web = Web(room.name)
        cls.addClassCleanup(cls.web.stop)
        cls.CONFIG = CONFIG.format(
            keystone=cls.keystone.configuration(), bound=BOUND, web=cls.web.port, room=room.name)
        super().setUpClass()
        (Path(room.name) / "disk.raw").write_bytes(cls.raw.read_bytes())
        cls.keystone.serve_images_at(cls.server.url)

    def as_(self, user, *args, json_out=False, fails=False):
        """The openstack command, as one of the people."""
        tail = ["-f", "json"] if json_out else []
        done = run(VENV / "bin/openstack", "image", *args, *tail, env=self.keystone.environment(user))
        return self.outcome(done, (user, *args), json_out, fails)

    def ask(self, method, path, token=None, **more):
        return ask(self.server, method, path, token, **more)

    def until(self, what, wanted, seconds):
        """Asks again until the answer is as wanted; fails after so many seconds."""
        end = time.monotonic() + seconds
        while (got := what()) != wanted:
            self.assertLess(time.monotonic(), end, f"{got}, not {wanted}\n{self.server.said()[-2000:]}")
            time.sleep(0.1)

    # -- stories --------------------------------------------------------------------------------

    def test_admin_member_and_reader_by_the_openstack_command(self):
        image = self.as_("member-a", "create", "--file", self.qcow2, "--disk-format", "qcow2", "--private",
                         "ours", json_out=True)["id"]
        seen = self.as_("reader-a", "show", image, json_out=True)
        self.assertEqual((seen["status"], seen["owner"]), ("active", self.keystone.projects["project-a"]))
        self.as_("reader-a", "save", "--file", self.path("reader"), image, fails=True)
        self.as_("reader-a", "set", "--name", "mine", image, fails=True)
        self.as_("reader-a", "create", "nothing", fails=True)
        self.as_("member-b", "show", image, fails=True)
        self.as_("member-a", "set", "--public", image, fails=True)
        self.as_("admin-b", "set", "--public", image)
        back = self.path("from-b.qcow2")
        self.as_("member-b", "save", "--file", back, image)
        self.assert_same_bytes(self.qcow2, back)
        self.as_("member-b", "delete", image, fails=True)
        self.as_("member-a", "delete", image)

    def test_sharing_by_the_openstack_command(self):
        project = self.keystone.projects["project-b"]
        image = self.as_("member-a", "create", "--file", self.raw, "--disk-format", "raw", "--shared",
                         "shared", json_out=True)["id"]
        self.as_("member-b", "show", image, fails=True)
        self.as_("reader-a", "add", "project", image, project, fails=True)
        self.as_("member-a", "add", "project", image, project)
        self.as_("member-b", "set", "--accept", "--project", project, image)
        listed = self.as_("reader-b", "list", "--shared", json_out=True)
        self.assertEqual([i["ID"] for i in listed], [image])
        members = self.as_("member-a", "member", "list", image, json_out=True)
        self.assertEqual([(m["Member ID"], m["Status"]) for m in members], [(project, "accepted")])
        self.as_("member-a", "remove", "project", image, project)
        self.as_("member-b", "show", image, fails=True)
        self.as_("admin-a", "delete", image)

    def test_by_glints_own_client(self):
        """The service is found in the catalogue; accounts and application credentials are taken."""
        def glint(user, *args, fails=False, **more):
            state = {"XDG_STATE_HOME": str(self.path("state"))}
            done = run(clients.GLINT, "image", *args, env={**self.keystone.environment(user), **state, **more})
            return self.outcome(done, (user, *args), False, fails)

        told = json.loads(glint("member-a", "upload", self.qcow2, "--part-size", "1M", "--output", "json"))
        self.assertEqual((told["status"], told["protocol"], told["hash_algo"]), ("active", "tus", "sha512"))
        back = self.path("from-a.qcow2")
        glint("member-a", "download", told["id"], "-o", back)
        self.assert_same_bytes(self.qcow2, back)
        self.assertIn("404", glint("member-b", "download", told["id"], "-o", back, "--force", fails=True))
        self.assertIn("403", glint("reader-a", "upload", self.qcow2, fails=True))
        refused = glint("member-a", "download", told["id"], fails=True, OS_PASSWORD="other-s3cret")
        self.assertIn("Keystone answers 401", refused)
        self.assertNotIn("s3cret", refused)
        token = self.keystone.token("member-a")
        credential = self.keystone.call(
            "POST", f"/users/{self.keystone.users['member-a']}/application_credentials",
            {"application_credential": {"name": "uploads"}}, token)[1]["application_credential"]
        alone = {name: "" for name in self.keystone.environment("member-a")} | {"OS_AUTH_URL": self.keystone.url}
        glint("member-a", "download", told["id"], "-o", back, "--force", **alone,
              OS_AUTH_TYPE="v3applicationcredential", OS_APPLICATION_CREDENTIAL_ID=credential["id"],
              OS_APPLICATION_CREDENTIAL_SECRET=credential["secret"])
        self.as_("member-a", "delete", told["id"])

    def story(self, name):
        """One of stories.py."""
        done = run(VENV / "bin/python", Path(__file__).with_name("stories.py"), name, self.keystone.url, REGION,
                   PASSWORD, self.keystone.projects["project-b"], self.raw, self.web.url("disk.raw"))
        self.outcome(done, (name,), False, False)

    def test_admin_member_and_reader_by_the_sdk(self):
        self.story("sdk")

    def test_admin_member_and_reader_by_glanceclient(self):
        self.story("glanceclient")

    # -- tokens ---------------------------------------------------------------------------------

    def test_a_revoked_token_is_refused_within_the_bound(self):
        token = self.keystone.token("member-a")
        self.assertEqual(self.ask("GET", "/v2/images", token).code, 200)
        self.keystone.revoke(token)
        self.until(lambda: self.ask("GET", "/v2/images", token).code, 401, BOUND + 5)

    def test_who_has_no_token_is_told_where_to_get_one(self):
        long = "a" * 5000
        for token in (None, "gAAAAABnonsense", long, "with space", "caf\u00e9"):
            with self.subTest(token=token and token[:20]):
                refused = self.ask("GET", "/v2/images", token)
                self.assertEqual(refused.code, 401)
                self.assertEqual(refused.headers["WWW-Authenticate"], f'Keystone uri="{self.keystone.url}"')
        self.assertEqual(self.ask("GET", "/healthcheck").code, 200)

    def test_a_service_asks_for_somebody_else(self):
        user, service = self.keystone.token("member-a"), self.keystone.token("glint", "service")
        for header, code in ((service, 200), ("gAAAAABnonsense", 401)):
            self.assertEqual(self.ask("GET", "/v2/images", user, headers={"X-Service-Token": header}).code, code)

    def test_a_token_of_the_system_passes_no_rule(self):
        token = self.keystone.token("admin", "admin", scope={"system": {"all": True}})
        self.assertEqual(self.ask("GET", "/v2/images", token).code, 403)

    def test_without_keystone_nobody_is_let_in(self):
        known, new = self.keystone.token("member-a"), self.keystone.token("member-a")
        self.assertEqual(self.ask("GET", "/v2/images", known).code, 200)
        self.keystone.stop()
        try:
            refused = self.ask("GET", "/v2/images", new)
            self.assertEqual(refused.code, 503)
            self.assertTrue(refused.headers["Retry-After"])
            # What is known is not known for ever.
            self.until(lambda: self.ask("GET", "/v2/images", known).code, 503, BOUND + 10)
        finally:
            # It comes back, and hands out tokens that end soon.
            text = self.keystone.config.read_text()
            self.keystone.config.write_text(text.replace("expiration = 3600", "expiration = 8"))
            self.keystone.start()
        self.until(lambda: self.ask("GET", "/v2/images", new).code, 200, 30)
        short = self.keystone.token("member-a")
        self.assertEqual(self.ask("GET", "/v2/images", short).code, 200)
        self.until(lambda: self.ask("GET", "/v2/images", short).code, 401, 20)
        self.keystone.stop()
        self.keystone.config.write_text(text)
        self.keystone.start()

    def test_an_application_credential_from_glances_own_file(self):
        token = self.keystone.token("glint", "service")
        credential = self.keystone.call(
            "POST", f"/users/{self.keystone.users['glint']}/application_credentials",
            {"application_credential": {"name": "validator"}}, token)[1]["application_credential"]
        file = self.path("glance-api.conf")
        file.write_text("[keystone_authtoken]\nauth_type = v3applicationcredential\n"
                        f"auth_url = {self.keystone.url}\nwww_authenticate_uri = http://keystone.example/\n"
                        f"application_credential_id = {credential['id']}\n"
                        f"application_credential_secret = {credential['secret']}\n")
        server = Server(self.room.name, f'[auth]\nmode = "keystone"\n[auth.keystone]\nfrom = "{file}"\n')
        try:
            self.assertEqual(ask(server, "GET", "/v2/images", self.keystone.token("reader-a")).code, 200)
            refused = ask(server, "GET", "/v2/images")
            self.assertEqual(refused.headers["WWW-Authenticate"], 'Keystone uri="http://keystone.example/"')
        finally:
            server.stop()

    # -- limits ---------------------------------------------------------------------------------

    def test_keystones_limits_hold(self):
        member = self.keystone.token("member-b")
        self.keystone.limit("project-b", "image_count_total", 1)
        self.keystone.limit("project-b", "image_size_total", 1)
        new = {"disk_format": "raw", "container_format": "bare"}
        made = self.ask("POST", "/v2/images", member, body=new)
        self.assertEqual(made.code, 201)
        image = made.json()["id"]
        over = self.ask("POST", "/v2/images", member, body=new)
        self.assertEqual(over.code, 413)
        self.assertIn(b"image_count_total is over limit of 1", over.body)
        task = {"type": "import", "input": {"import_from": "http://127.0.0.1/disk.raw", "import_from_format": "raw"}}
        over = self.ask("POST", "/v2/tasks", self.keystone.token("admin-b"), body=task)
        self.assertEqual(over.code, 413)
        self.assertIn(b"image_count_total is over limit of 1", over.body)

        octets = {"Content-Type": "application/octet-stream"}
        over = self.ask("PUT", f"/v2/images/{image}/file", member, body=bytes(2 << 20), headers=octets)
        self.assertEqual(over.code, 413)
        self.assertIn(b"image_size_total is over limit of 1", over.body)
        fits = self.ask("PUT", f"/v2/images/{image}/file", member, body=bytes(1 << 20), headers=octets)
        self.assertEqual(fits.code, 204)
        self.assertEqual(self.ask("GET", "/v2/info/usage", member).json()["usage"], {
            "image_size_total": {"usage": 1, "limit": 1},
            "image_stage_total": {"usage": 0, "limit": 1000},
            "image_count_total": {"usage": 1, "limit": 1},
            "image_count_uploading": {"usage": 0, "limit": 10},
        })
        self.assertEqual(self.ask("DELETE", f"/v2/images/{image}", member).code, 204)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], "-v", *sys.argv[3:]])
