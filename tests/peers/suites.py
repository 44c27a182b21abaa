"""OpenStack's own functional suites, tempest.api.image and glance-tempest-plugin, against two processes of
`glint serve` on one PostgreSQL, behind a real Keystone, on loopback, with throwaway data.

Usage: suites.py GLINT VENV

Some tests exclude each other by what the service must be configured for, so there are several runs: the
later ones ask what the first had to skip. Every test must succeed in one of them and may fail in none; what
no run can run is named below, and why.
"""

import atexit
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from clients import FIXTURES, GLINT, VENV, Web
from keystone import PASSWORD, REGION, Keystone, free_port

SUITES = r"^tempest\.api\.image|^glance_tempest_plugin"

# Of each format a good image and some that nobody may use, as the suite of formats wants them told.
USABLE = {"qcow2": "clean.qcow2", "vmdk": "clean.vmdk", "vhd": "clean.vhd", "vdi": "clean.vdi", "iso": "clean.iso",
          "raw": "clean-mbr.raw"}
UNUSABLE = {"qcow2-backing": "backing.qcow2", "qcow2-data-file": "data-file.qcow2", "vmdk-flat": "flat.vmdk"}

# Skipped in every run, as with Glance itself.
NEVER = {
    r"ImageCachingTest$": "needs a cache, which this service has none of",
    r"ImageDependencyTests$": "needs Nova and Cinder",
    r"test_compute_rejects_\w+\(": "needs Nova",
    r"test_accept_usable_formats\(\w+-": "has nothing to ask of unusable images",
    r"ImageTaskCreate\.test_image_tasks_create": "waits for a bug of the suite's, 2030527",
}

SERVICE = """\
{keystone}
[api]
listen = "127.0.0.1:{port}"
show_image_direct_url = true
show_multiple_locations = {locations}
[catalog]
url = "{database}"
[formats]
require_match = {match}
[import]
methods = ["glance-direct", "web-download", "copy-image", "glance-download"]
do_secure_hash = {hashes}
glance_regions = {{ {region} = "{first}" }}
{conversion}
[fetch]
allowed_networks = ["127.0.0.0/8"]
allowed_ports = [{web}, {ports}]
[[stores]]
id = "fast"
type = "file"
path = "{room}/fast"
weight = 10
[[stores]]
id = "slow"
type = "file"
path = "{room}/slow"
weight = 5
[[stores]]
id = "web"
type = "http"
"""

TEMPEST = """\
[DEFAULT]
log_dir = {room}
[oslo_concurrency]
lock_path = {room}/locks
[auth]
use_dynamic_credentials = true
create_isolated_networks = false
admin_username = admin
admin_password = {password}
admin_project_name = admin
admin_domain_name = Default
[identity]
uri_v3 = {keystone}
auth_version = v3
region = {region}
v3_endpoint_type = public
[identity-feature-enabled]
api_v2 = false
[enforce_scope]
glance = true
[service_available]
cinder = false
glance = true
horizon = false
neutron = false
nova = {nova}
swift = false
[image]
build_interval = 1
build_timeout = 60
http_image = {web}/small.img
http_qcow2_image = {web}/clean.qcow2
images_manifest_file = {web_folder}/manifest.yaml
alternate_image_endpoint = image-alt
image_caching_enabled = false
disk_formats = raw,qcow2,ami,ari,aki,vhd,vhdx,vmdk,vdi,iso,ploop
container_formats = bare,ami,ari,aki,ovf,ova,docker,compressed
[image-feature-enabled]
manage_locations = {locations}
image_conversion = {converts}
http_store_enabled = true
do_secure_hash = {hashes}
store_weight_enabled = true
image_format_enforcement = {match}
"""


def images(folder):
    """Small images to fetch, and the manifest of those of the suite of formats."""
    folder.mkdir()
    (folder / "small.img").write_bytes(b"x" * 65536)
    entries = []
    for names, usable in ((USABLE, True), (UNUSABLE, False)):
        for name, file in names.items():
            (folder / file).write_bytes((FIXTURES / file).read_bytes())
            entries.append(f"- name: {name}\n  format: {name.split('-')[0]}\n  filename: {file}\n  usable: {usable}\n")
    (folder / "manifest.yaml").write_text(f"images:\n{''.join(entries)}")


class Run:
    """One configuration of the service, and what the suites say of it."""

    def __init__(self, room, name, keystone, web, database, locations=True, match=True, converts=False, hashes=True):
        self.room, self.name, self.processes = room / name, name, []
        self.room.mkdir()
        flags = {k: str(v).lower() for k, v in dict(
            locations=locations, match=match, converts=converts, hashes=hashes, nova=converts).items()}
        ports = [free_port(), free_port()]
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        for kind, port, url in zip(("image", "image-alt"), ports, urls):
            config = self.room / f"{kind}.toml"
            config.write_text(SERVICE.format(
                keystone=keystone.configuration(), room=room, port=port, ports=", ".join(map(str, ports)), first=urls[0],
                database=database, web=web.port, region=REGION,
                conversion='output_format = "raw"' if converts else "", **flags))
            self.serve(kind, config, url)
            keystone.serve_images_at(url, kind)
        subprocess.run([VENV / "bin/tempest", "init", "--workspace-path", self.room / "workspaces", self.room / "work"],
                       check=True, stdin=subprocess.DEVNULL, capture_output=True)
        (self.room / "work/etc/tempest.conf").write_text(TEMPEST.format(
            room=self.room, password=PASSWORD, keystone=keystone.url, region=REGION, web=web.url("").rstrip("/"),
            web_folder=room / "web", **flags))

    def serve(self, kind, config, url):
        data, log = self.room / f"{kind}-data", self.room / f"{kind}.log"
        if not self.processes:
            subprocess.run([GLINT, "db", "sync", "--data", data, "--config", config], check=True, capture_output=True)
        with log.open("w") as out:
            self.processes.append(subprocess.Popen([GLINT, "serve", "--data", data, "--config", config],
                                                   stdin=subprocess.DEVNULL, stdout=out, stderr=out))
        atexit.register(self.processes[-1].kill)
        end = time.monotonic() + 30
        while url not in log.read_text():
            if self.processes[-1].poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the server did not start:\n{log.read_text()}")
            time.sleep(0.05)

    def outcome(self, wanted):
        """The outcome of every test that one of the expressions names: `ok`, `FAILED` or `SKIPPED: why`."""
        names = self.room / "names"
        names.write_text("".join(f"{name}\n" for name in wanted))
        done = subprocess.run([VENV / "bin/tempest", "run", "--include-list", names, "--concurrency", "2"],
                              cwd=self.room / "work", stdin=subprocess.DEVNULL, capture_output=True, text=True)
        found = {}
        for line in done.stdout.splitlines():
            if seen := re.match(r"\{\d+\} (?:setUpClass \((\S+)\)|(\S+?)(?:\[[^\]]*\])?(\([^)]*\))?) (?:\[[\d.]+s\] )?\.\.\. "
                                r"(ok|FAILED|SKIPPED.*)$", line):
                found[seen[1] or seen[2] + (seen[3] or "")] = seen[4]
        if "FAILED" in found.values() or not found:
            logs = [log.read_text()[-6000:] for log in self.room.glob("image*.log")]
            print(done.stdout[-60000:], done.stderr[-3000:], *logs, sep="\n")
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()


def database():
    """A PostgreSQL of its own, which ends with its standard input; and its URL."""
    script = Path(__file__).resolve().parents[1] / "support/database.sh"
    process = subprocess.Popen([script, "postgres"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip() + "postgres"


def expressions(names):
    """What chooses these tests and classes of tests."""
    return [f"^{re.escape(name.split('(')[0])}[.\\[(]" for name in names]


def main():
    passed, skipped, failed = set(), {}, set()
    with tempfile.TemporaryDirectory(prefix="glint-suites-") as room:
        room = Path(room)
        images(room / "web")
        web = Web(room / "web")
        postgres, url = database()
        with postgres, Keystone(VENV, room / "keystone") as keystone:
            common = dict(room=room, keystone=keystone, web=web, database=url)
            for options, wanted in [
                (dict(name="all-features"), lambda: [SUITES]),
                (dict(name="lenient", match=False, hashes=False), lambda: expressions(skipped)),
                (dict(name="converts", locations=False, converts=True), lambda: [r"ImportImages", r"ImagesFormatTest"]),
            ]:
                start = time.monotonic()
                with Run(**common, **options) as run:
                    for name, outcome in run.outcome(wanted()).items():
                        if outcome == "ok":
                            passed.add(name)
                            skipped.pop(name, None)
                            skipped.pop(name.rsplit(".", 1)[0], None)
                        elif outcome == "FAILED":
                            failed.add(f"{name} ({run.name})")
                        elif name not in passed:
                            skipped[name] = outcome
                print(f"-- {run.name}: {time.monotonic() - start:.0f} s")
            postgres.stdin.close()
        web.stop()
    for name in sorted(passed):
        print(f"{name} ... ok")
    wrong = len(failed)
    for name in sorted(failed):
        print(f"FAIL: {name}")
    for name, why in sorted(skipped.items()):
        reasons = [reason for pattern, reason in NEVER.items() if re.search(pattern, name)]
        wrong += not reasons
        print(f"known: {name}: {reasons[0]}" if reasons else f"FAIL: {name}: {why}")
    if not passed:
        print("FAIL: no test ran")
    return 1 if wrong or not passed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
