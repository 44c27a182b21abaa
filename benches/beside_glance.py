"""glint beside Glance under uwsgi with two workers, in one run on one machine.

    python3 benches/beside_glance.py GLINT VENV [requests] [rest] [data] [imports] [appliance] [crowd]
            [--database mariadb|sqlite] [--seconds N] [--rounds N] [--gib N] [--under COMMAND]

GLINT is a release build; VENV has what tests/peers/glance.txt names, and uwsgi. Needs wrk and curl.
`requests`: one image, a page of 25, creation, with 1,000 images and 8 connections. `rest`: memory of the
idle servers and the time from start to the first answer. `data`: a raw image in and out. `imports`: a
staged image of 1 GiB with 512 MiB of programs and libraries, from the call to active, to raw. `appliance`:
the same in an OVA compressed by zstd, to qcow2, beside tools in turn. `crowd`: 200 uploads at once. Measurements alone are run under COMMAND, if one is given.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import re
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES, CONNECTIONS = 1000, 8
CROWD, CROWD_BYTES = 200, 16 << 20
TICK = os.sysconf("SC_CLK_TCK")
# Who Glance takes us for; nobody looks into it but Glance, whose tasks need an owner.
WHO = {"X-Identity-Status": "Confirmed", "X-User-Id": "u", "X-Project-Id": "p", "X-Roles": "admin"}
HEADERS = [part for name, value in WHO.items() for part in ("-H", f"{name}: {value}")]
RULES = ("add_image get_image get_images modify_image delete_image publicize_image communitize_image "
         "upload_image download_image tasks_api_access get_task add_task modify_task").split()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def tree(pid):
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


class Server:
    """One of the two, on a port and in a folder of its own."""

    def start(self):
        self.port = free_port()
        self.log = open(self.room / "server.log", "a")
        begun = time.monotonic()
        self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        while True:
            try:
                if self.call("GET", "/v2/images?limit=1").status == 200:
                    return time.monotonic() - begun
            except OSError:
                assert self.process.poll() is None, f"{self.name} ended: see {self.room}"
            assert time.monotonic() < begun + 60, f"{self.name} does not answer: see {self.room}"
            time.sleep(0.001)

    def stop(self):
        # SIGTERM tells uwsgi to begin anew.
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        self.log.close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def call(self, method, path, body=None, kind="application/json"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        kind = {"Content-Type": kind} if body is not None else {}
        connection.request(method, path, body, kind | WHO)
        answer = connection.getresponse()
        answer.body = answer.read()
        connection.close()
        return answer

    def create(self, body):
        answer = self.call("POST", "/v2/images", json.dumps(body))
        assert answer.status == 201, (self.name, answer.status, answer.body)
        return "/v2/images/" + json.loads(answer.body)["id"]

    def put(self, image, data):
        answer = self.call("PUT", f"{image}/file", data, "application/octet-stream")
        assert answer.status == 204, (self.name, answer.status, answer.body)

    def fill(self):
        # One after another: Glance on SQLite bears no more.
        self.images = [self.create(example(n)) for n in range(IMAGES)]
        for image in self.images:
            self.put(image, b"data" * 256)

    def memory(self):
        """MiB of all processes; what they share is counted once."""
        pss = 0
        for pid in tree(self.process.pid):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            pss += int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1])
        return pss / 1024

    def cpu(self):
        """Processor seconds so far."""
        ticks = 0
        for pid in tree(self.process.pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
            ticks += sum(map(int, fields[11:15]))
        return ticks / TICK


class Glance(Server):
    name = "Glance"

    def __init__(self, room, venv, database):
        self.room, self.venv = room, Path(venv).absolute()
        room.mkdir()
        paste = (self.venv / "etc/glance/glance-api-paste.ini").read_text()
        (room / "paste.ini").write_text(paste.replace("unauthenticated-context ", "context "))
        (room / "glance-api.conf").write_text(f"""
[DEFAULT]
enabled_backends = one:file
log_file = {room}/glance.log
node_staging_uri = file://{room}/staging
[database]
connection = {database}
[glance_store]
default_backend = one
[one]
filesystem_store_datadir = {room}/one
[os_glance_staging_store]
filesystem_store_datadir = {room}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {room}/tasks
[image_import_opts]
image_import_plugins = ['image_conversion']
[image_conversion]
output_format = raw
[oslo_policy]
enforce_scope = false
enforce_new_defaults = false
policy_file = {room}/policy.yaml
[paste_deploy]
config_file = {room}/paste.ini
""")
        (room / "policy.yaml").write_text('"default": ""\n' + "".join(f'"{rule}": "@"\n' for rule in RULES))
        with open(room / "manage.log", "w") as log:
            subprocess.run([self.venv / "bin/glance-manage", "--config-file", room / "glance-api.conf", "db_sync"],
                           check=True, stdout=log, stderr=log)

    def command(self):
        return ["env", f"OS_GLANCE_CONFIG_DIR={self.room}", self.venv / "bin/uwsgi",
                "--http-socket", f"127.0.0.1:{self.port}", "--module", "glance.wsgi.api:application",
                "--virtualenv", self.venv, "--py-sys-executable", self.venv / "bin/python", "--master", "--processes", "2", "--need-app", "--lazy-apps",
                "--enable-threads", "--http-raw-body", "--http-chunked-input", "--http-auto-chunked",
                "--chunked-input-limit", "16777216", "--buffer-size", "65535", "--disable-logging", "--die-on-term"]


class Glint(Server):
    name = "glint"

    def __init__(self, room, program, database):
        self.room, self.program = room, Path(program).absolute()
        room.mkdir()
        catalog = f'[catalog]\nurl = "{database}"\n' if database else ""
        (room / "glint.toml").write_text(f'{catalog}[import]\noutput_format = "raw"\n')
        if database:
            subprocess.run([self.program, "db", "sync", *self.place()], check=True)

    def place(self):
        return ["--data", self.room / "data", "--config", self.room / "glint.toml"]

    def command(self):
        return [self.program, "serve", "--listen", f"127.0.0.1:{self.port}", *self.place()]


class Mariadb:
    """A server whose commits wait for no disk: both sides are spared the same."""

    def __enter__(self):
        self.process = subprocess.Popen([ROOT / "tests/support/database.sh", "mariadb"], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        url = self.process.stdout.readline().strip()
        assert url, "MariaDB did not start"
        self.socket = url.split("socket=")[1]
        for name in ("glance", "glint"):
            subprocess.run(["mariadb", "-S", self.socket, "-u", "root", "-e", f"CREATE DATABASE {name}"], check=True)
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def example(n):
    return {"name": f"image-{n}", "disk_format": "raw", "container_format": "bare", "min_ram": 512,
            "tags": ["linux", "stable"], "os_distro": "debian", "os_version": "12", "architecture": "x86_64"}


def under(args, script):
    """Runs a shell script of measurements and answers its output."""
    done = subprocess.run([*shlex.split(args.under), "bash", "-ec", script], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, f"failed: {script}\n{done.stdout}"
    return done.stdout


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]


def wrk(args, glance, glint, what, paths, body=None):
    """Both in turn, several rounds; a line of the table."""
    script = ""
    lua = glint.room / "request.lua"
    if body:
        lua.write_text(f"wrk.method = 'POST'\nwrk.body = [==[{json.dumps(body)}]==]\n"
                       "wrk.headers['Content-Type'] = 'application/json'\n")
    for _ in range(args.rounds):
        for server, path in zip((glance, glint), paths):
            script += shlex.join(["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{args.seconds}s", "--latency",
                                  *HEADERS, *(["-s", str(lua)] if body else []), server.url + path]) + "\n"
    output = under(args, script)
    # uwsgi closes after each answer, which wrk counts as errors of reading.
    assert "Non-2xx" not in output, output
    rates = [float(n) for n in re.findall(r"Requests/sec:\s+([\d.]+)", output)]
    tails = [milliseconds(n) for n in re.findall(r"99%\s+(\S+)", output)]
    (theirs, ours), (their_tail, our_tail) = [[statistics.median(all[n::2]) for n in (0, 1)] for all in (rates, tails)]
    print(f"| {what} | {ours:,.0f}/s | {theirs:,.0f}/s | {ours / theirs:.1f}x | {our_tail:.1f} ms | "
          f"{their_tail:.1f} ms | 1/{their_tail / our_tail:.0f} |", flush=True)


def requests(args, glance, glint):
    print("| request | glint | Glance | ratio | p99 glint | p99 Glance | of Glance's |\n| --- |" + " --- |" * 6)
    wrk(args, glance, glint, "GET one image", [server.images[IMAGES // 2] for server in (glance, glint)])
    wrk(args, glance, glint, "GET a page of 25", ["/v2/images"] * 2)
    wrk(args, glance, glint, "POST an image", ["/v2/images"] * 2, example(0))


def rest(args, glance, glint):
    for server in (glint, glance):
        server.stop()
        starts = []
        for _ in range(5):
            starts.append(server.start())
            idle = server.memory()
            server.stop()
        server.start()
        starts.sort()
        print(f"{server.name}: {starts[2] * 1e3:.0f} ms ({starts[0] * 1e3:.0f}-{starts[-1] * 1e3:.0f}) from start to the "
              f"first page, {idle:.0f} MiB at rest", flush=True)


def data(args, glance, glint):
    """A raw image in, and out again with a warm page cache."""
    size = args.gib << 30
    source = glint.room.parent / "source.raw"
    with open("/dev/urandom", "rb") as random, open(source, "wb") as file:
        for _ in range(size >> 20):
            file.write(random.read(1 << 20))
    print(f"| {args.gib} GiB raw | glint | Glance | ratio | CPU glint | CPU Glance |\n| --- |" + " --- |" * 5)
    curl = shlex.join(["curl", "-sSf", "-o", "/dev/null", "-w", "%{time_total}\\n", *HEADERS])
    rows = {}
    for server in (glance, glint):
        kind = "-H 'Content-Type: application/octet-stream'"
        ins, outs = [], []
        for _ in range(args.rounds):
            image = server.create({"disk_format": "raw", "container_format": "bare"})
            before = server.cpu()
            seconds = float(under(args, f"{curl} {kind} -T {source} {server.url}{image}/file"))
            ins.append((seconds, server.cpu() - before))
            script = f"{curl} {server.url}{image}/file\n" * 3
            before = server.cpu()
            seconds = sum(map(float, under(args, script).split())) / 3
            outs.append((seconds, (server.cpu() - before) / 3))
            server.call("DELETE", image)
        rows[server.name] = [sorted(runs)[len(runs) // 2] for runs in (ins, outs)]
    for n, what in enumerate(("PUT", "GET")):
        (ours, our_cpu), (theirs, their_cpu) = rows["glint"][n], rows["Glance"][n]
        print(f"| {what} | {size / ours / 2**20:,.0f} MiB/s | {size / theirs / 2**20:,.0f} MiB/s | {theirs / ours:.2f}x | "
              f"{our_cpu:.2f} s | {their_cpu:.2f} s |", flush=True)


FORMS = {
    "qcow2": "-O qcow2",
    "qcow2, compressed": "-c -O qcow2",
    "vmdk, streamOptimized": "-O vmdk -o subformat=streamOptimized",
    "vhdx": "-O vhdx",
}


def programs(glint):
    raw = glint.room.parent / "programs.raw"
    if not raw.exists():
        subprocess.run(f"(tar -C /usr -c bin lib share || :) | head -c 512M > {raw}; truncate -s 1G {raw}", shell=True, check=True)
    return raw


def imports(args, glance, glint):
    room, raw = glint.room.parent, programs(glint)
    print("| import to raw of | glint | Glance | ratio | CPU glint | CPU Glance | of Glance's |\n| --- |" + " --- |" * 6)
    for name, options in FORMS.items():
        source = room / "source"
        subprocess.run(["qemu-img", "convert", *shlex.split(options), raw, source], check=True)
        found = {}
        for server in (glance, glint):
            formats = {"disk_format": name.split(",")[0], "container_format": "bare"}
            runs = [one_import(args, server, formats, source) for _ in range(args.rounds)]
            found[server.name] = sorted(runs)[len(runs) // 2]
        (ours, our_cpu), (theirs, their_cpu) = found["glint"], found["Glance"]
        print(f"| {name} | {ours:.2f} s | {theirs:.2f} s | {theirs / ours:.1f}x | {our_cpu:.2f} s | {their_cpu:.2f} s | "
              f"{our_cpu / their_cpu:.2f} |", flush=True)


def appliance(args, _, glint):
    room, raw = glint.room.parent, programs(glint)
    archive = room / "programs.ova.zst"
    subprocess.run([glint.program, "convert", "-q", "-f", "raw", "-O", "ova", raw, room / "programs.ova"], check=True)
    subprocess.run(["zstd", "-q", "--rm", room / "programs.ova", "-o", archive], check=True)
    body = {"appliance": True, "convert": {"disk_format": "qcow2"}}
    formats = {"disk_format": "vmdk", "container_format": "ova"}
    ours = sorted(one_import(args, glint, formats, archive, body) for _ in range(args.rounds))[args.rounds // 2]
    tools = (f"rm -rf {room}/x; mkdir {room}/x; cd {room}/x; date +%s%N; zstd -dq {archive} -o x.ova; tar xf x.ova; "
             "qemu-img convert -O qcow2 *.vmdk x.qcow2; sha512sum x.qcow2 >/dev/null; date +%s%N")
    theirs = []
    for _ in range(args.rounds):
        begun, ended = map(int, under(args, tools).split())
        theirs.append((ended - begun) / 1e9)
    theirs = sorted(theirs)[args.rounds // 2]
    print(f"OVA in zstd to qcow2: {ours[0]:.2f} s, {ours[1]:.2f} s of processors, beside zstd, tar, qemu-img and sha512sum: "
          f"{theirs:.2f} s, {theirs / ours[0]:.1f}x", flush=True)


def one_import(args, server, formats, source, more={}):
    """Seconds from the call until the image is active, and processor seconds of all who work on it."""
    image = server.create(formats)
    with open(source, "rb") as data:
        answer = server.call("PUT", f"{image}/stage", data, "application/octet-stream")
    assert answer.status == 204, (server.name, answer.status, answer.body)
    before = server.cpu()
    curl = shlex.join(["curl", "-sSf", *HEADERS])
    body = shlex.quote(json.dumps({"method": {"name": "glance-direct"}} | more))
    call = f"{curl} -H 'Content-Type: application/json' -d {body} {server.url}{image}/import"
    active = f"""until {curl} {server.url}{image} | grep -q '"status": *"active"'; do sleep 0.02; done"""
    output = under(args, f"date +%s%N; {call}; {active}; echo; date +%s%N")
    begun, *_, ended = output.split()
    cpu = server.cpu() - before
    facts = json.loads(server.call("GET", image).body)
    assert facts["disk_format"] == more.get("convert", {}).get("disk_format", "raw"), facts
    assert facts["virtual_size"] == 1 << 30, facts
    server.call("DELETE", image)
    return (int(ended) - int(begun)) / 1e9, cpu


def crowd(args, _, glint):
    glint.stop()
    glint.start()
    images = [glint.create({"disk_format": "raw", "container_format": "bare"}) for _ in range(CROWD)]
    bytes_of = os.urandom(CROWD_BYTES)
    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(CROWD) as pool:
        list(pool.map(lambda image: glint.put(image, bytes_of), images))
    took = time.monotonic() - begun
    for image in images:
        assert json.loads(glint.call("GET", image).body)["status"] == "active"
    status = Path(f"/proc/{glint.process.pid}/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
    print(f"{CROWD} uploads of {CROWD_BYTES >> 20} MiB at once: all succeeded in {took:.1f} s, "
          f"the server's peak memory {peak:.0f} MiB", flush=True)
    for image in images:
        glint.call("DELETE", image)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("glint")
    parser.add_argument("venv")
    parser.add_argument("what", nargs="*")
    parser.add_argument("--database", choices=("mariadb", "sqlite"), default="mariadb")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gib", type=int, default=1)
    parser.add_argument("--under", default="env")
    args = parser.parse_args()
    parts = {part.__name__: part for part in (requests, rest, data, imports, appliance, crowd)}
    if unknown := set(args.what) - set(parts):
        sys.exit(f"{', '.join(unknown)}: none of {', '.join(parts)}")
    with tempfile.TemporaryDirectory(prefix="beside-glance.") as room, Mariadb() as mariadb:
        room = Path(room)
        databases = {
            "mariadb": (f"mysql+pymysql://root@localhost/glance?unix_socket={mariadb.socket}",
                        f"mysql://root@localhost/glint?socket={mariadb.socket}"),
            "sqlite": (f"sqlite:///{room}/glance.db", None),
        }[args.database]
        glance, glint = Glance(room / "glance", args.venv, databases[0]), Glint(room / "glint", args.glint, databases[1])
        try:
            for server in (glance, glint):
                server.start()
                server.fill()
            for name in args.what or parts:
                parts[name](args, glance, glint)
        finally:
            for server in (glance, glint):
                if getattr(server, "process", None) and server.process.poll() is None:
                    server.stop()


main()
