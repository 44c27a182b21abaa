"""A real Keystone on loopback, with throwaway data: SQLite, Fernet tokens, one uwsgi process.

    from keystone import Keystone
    with Keystone(venv, room) as keystone:
        keystone.serve_images_at("http://127.0.0.1:9292")
        token = keystone.token("member-a")

or as a command, which prints the facts below as JSON and serves until it is signalled or its
standard input ends:

    keystone.py VENV ROOM [IMAGE-URL]

The people: in each of the projects `project-a` and `project-b` an `admin-…`, a `member-…` and a
`reader-…` with the role of that name; Keystone's own `admin`, administrator of project `admin`; and
`glint` of project `service` with the roles `service` and `admin`, which services validate tokens with.
Everybody's password is PASSWORD, everything is in the domain `default`.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

PASSWORD = "secret"
REGION = "RegionOne"
# The four limits of the image service, without which it refuses everything.
LIMITS = {"image_size_total": 1000, "image_stage_total": 1000, "image_count_total": 100, "image_count_uploading": 10}

CONFIG = """\
[DEFAULT]
log_file = {room}/keystone.log
use_stderr = false
[database]
connection = sqlite:///{room}/keystone.db
[fernet_tokens]
key_repository = {room}/fernet-keys
[fernet_receipts]
key_repository = {room}/fernet-keys
[credential]
key_repository = {room}/credential-keys
[token]
provider = fernet
expiration = {expiration}
[identity]
password_hash_rounds = 4
[cache]
enabled = true
backend = dogpile.cache.memory
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Refused(Exception):
    """Keystone answered with an error."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code = code


class Keystone:
    """`expiration` is the life of a token in seconds."""

    def __init__(self, venv, room, expiration=3600):
        self.venv, self.room = Path(venv).absolute(), Path(room).absolute()
        self.room.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v3"
        self.config = self.room / "keystone.conf"
        self.config.write_text(CONFIG.format(room=self.room, expiration=expiration))
        self.process = None
        atexit.register(self.stop)
        self.projects, self.users = {}, {}
        self._prepare()
        self.start()
        self._populate()

    # -- the program ----------------------------------------------------------------------------

    def _manage(self, *args):
        done = subprocess.run([self.venv / "bin/keystone-manage", f"--config-file={self.config}", *args],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"keystone-manage {args[0]}: {done.stdout}{done.stderr}")

    def _prepare(self):
        self._manage("db_sync")
        # It wants to know whom the keys shall belong to when it runs as root.
        me = [f"--keystone-user={os.getuid()}", f"--keystone-group={os.getgid()}"]
        self._manage("fernet_setup", *me)
        self._manage("credential_setup", *me)
        self._manage("bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", REGION,
                     *(f"--bootstrap-{kind}-url={self.url}" for kind in ("admin", "internal", "public")))

    def start(self):
        """Starts it, with the data it had when it was stopped."""
        log = open(self.room / "uwsgi.log", "a")
        environ = {**os.environ, "OS_KEYSTONE_CONFIG_FILES": str(self.config)}
        self.process = subprocess.Popen(
            [self.venv / "bin/uwsgi", "--http-socket", f"127.0.0.1:{self.port}", "--need-app", "--lazy-apps",
             "--module", "keystone.wsgi.api:application", "--virtualenv", self.venv, "--buffer-size", "65535",
             # One request at a time: with several SQLite is "locked" now and then, and the connection of such a
             # request is closed without an answer.
             "--enable-threads",
             # It keeps no connection, which nobody would be told.
             "--add-header", "Connection: close", "--die-on-term", "--disable-logging", "--no-orphans", "--master"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ)
        log.close()
        for _ in range(1200):
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(self.url, timeout=10):
                    return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"Keystone did not start:\n{(self.room / 'uwsgi.log').read_text()[-3000:]}")

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    # -- its API --------------------------------------------------------------------------------

    def call(self, method, path, body=None, token=None, headers=()):
        """What it answers: headers and JSON."""
        request = urllib.request.Request(
            self.url + path, method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **({"X-Auth-Token": token} if token else {}), **dict(headers)})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
                return answer.headers, json.loads(text) if text else None
        except urllib.error.HTTPError as e:
            raise Refused(e.code, e.read().decode(errors="replace")) from None

    def admin(self, method, path, body=None, headers=()):
        """The same, as the administrator."""
        return self.call(method, path, body, self.token("admin", "admin"), headers)[1]

    def token(self, user, project=None, scope=None):
        """A new token of `user` for `project`; that of the name's last letter unless said otherwise."""
        project = project or f"project-{user[-1]}"
        domain = {"id": "default"}
        scope = scope or {"project": {"name": project, "domain": domain}}
        methods = {"methods": ["password"],
                   "password": {"user": {"name": user, "domain": domain, "password": PASSWORD}}}
        headers, _ = self.call("POST", "/auth/tokens", {"auth": {"identity": methods, "scope": scope}})
        return headers["X-Subject-Token"]

    def revoke(self, token):
        self.admin("DELETE", "/auth/tokens", headers={"X-Subject-Token": token})

    def _populate(self):
        admin = self.token("admin", "admin")

        def ask(method, path, body=None):
            return self.call(method, path, body, admin)[1]

        roles = {r["name"]: r["id"] for r in ask("GET", "/roles")["roles"]}
        for name in ("project-a", "project-b", "service"):
            project = {"name": name, "domain_id": "default"}
            self.projects[name] = ask("POST", "/projects", {"project": project})["project"]["id"]
        people = [(f"{role}-{p}", f"project-{p}", [role]) for p in "ab" for role in ("admin", "member", "reader")]
        for name, project, has in [*people, ("glint", "service", ["service", "admin"])]:
            user = {"name": name, "password": PASSWORD, "domain_id": "default"}
            self.users[name] = ask("POST", "/users", {"user": user})["user"]["id"]
            for role in has:
                ask("PUT", f"/projects/{self.projects[project]}/users/{self.users[name]}/roles/{roles[role]}")
        service = ask("POST", "/services", {"service": {"type": "image", "name": "glint"}})["service"]
        self.services = {"image": service["id"]}
        ask("POST", "/registered_limits", {"registered_limits": [
            {"service_id": self.services["image"], "region_id": REGION, "resource_name": name, "default_limit": limit}
            for name, limit in LIMITS.items()]})

    def serve_images_at(self, url, kind="image"):
        """Puts the image service into the catalog as a service of type `kind`, or moves it."""
        if kind not in self.services:
            service = self.admin("POST", "/services", {"service": {"type": kind, "name": f"glint-{kind}"}})
            self.services[kind] = service["service"]["id"]
        service = self.services[kind]
        for old in self.admin("GET", f"/endpoints?service_id={service}")["endpoints"]:
            self.admin("DELETE", f"/endpoints/{old['id']}")
        for interface in ("public", "internal", "admin"):
            self.admin("POST", "/endpoints", {"endpoint": {
                "service_id": service, "interface": interface, "url": url, "region_id": REGION}})

    def limit(self, project, name, value):
        """Sets the limit of one project."""
        old = self.admin("GET", f"/limits?resource_name={name}&project_id={self.projects[project]}"
                                )["limits"]
        if old:
            self.admin("PATCH", f"/limits/{old[0]['id']}", {"limit": {"resource_limit": value}})
        else:
            self.admin("POST", "/limits", {"limits": [{
                "service_id": self.services["image"], "region_id": REGION, "project_id": self.projects[project],
                "resource_name": name, "resource_limit": value}]})

    def environment(self, user, project=None):
        """What the OpenStack commands want in their environment."""
        return {"OS_AUTH_URL": self.url, "OS_IDENTITY_API_VERSION": "3", "OS_REGION_NAME": REGION,
                "OS_USERNAME": user, "OS_PASSWORD": PASSWORD, "OS_USER_DOMAIN_ID": "default",
                "OS_PROJECT_NAME": project or f"project-{user[-1]}", "OS_PROJECT_DOMAIN_ID": "default"}

    def configuration(self):
        """The part of glint's configuration that makes it ask this Keystone."""
        return (f'[auth]\nmode = "keystone"\n[auth.keystone]\nauth_url = "{self.url}"\n'
                f'username = "glint"\npassword = "{PASSWORD}"\nuser_domain_id = "default"\n'
                f'project_name = "service"\nproject_domain_id = "default"\nregion_name = "{REGION}"\n')

    def facts(self):
        return {"url": self.url, "region": REGION, "password": PASSWORD, "users": self.users,
                "projects": self.projects, "pid": self.process.pid}


def main(venv, room, image_url=None):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Keystone(venv, room) as keystone:
        if image_url:
            keystone.serve_images_at(image_url)
        print(json.dumps(keystone.facts()), flush=True)
        # The end of our input is the end of whoever started us.
        while sys.stdin.buffer.read1(4096):
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])
