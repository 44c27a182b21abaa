"""Moving from a real Glance, on SQLite and on MariaDB: what its API showed, ours shows, and the data is
read where Glance left it. And Glance before that, spoken to by our own client.

Usage: move.py GLINT GLANCE_VENV
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

GLINT, VENV = (Path(p).absolute() for p in sys.argv[1:3])
HERE = Path(__file__).resolve().parent
# Ours alone to say: where it is, and which of our stores.
OURS = {"self", "file", "schema", "stores"}


def glint(*args, check=True, env=None):
    done = subprocess.run([GLINT, *map(str, args)], capture_output=True, text=True, timeout=120, env=env)
    assert not check or done.returncode == 0, done.stderr
    return done


class Moved:
    """A Glance that was, and a `glint serve` that took over."""

    def __init__(self, room, theirs, ours):
        made = subprocess.run([VENV / "bin/python", HERE / "glance_source.py", room, theirs],
                              capture_output=True, text=True, timeout=300)
        assert made.returncode == 0, made.stderr
        self.was = json.loads(made.stdout)
        self.lay = self.files(room)
        config = room / "glint.toml"
        config.write_text("".join(
            f"[[stores]]\nid = '{name}'\ntype = 'file'\npath = '{room}/{name}'\n" for name in ("one", "two")))
        place = ["--data", room / "data", "--config", config]
        self.told = json.loads(glint("db", "import-glance", ours, "--dry-run", *place).stdout)
        self.done = json.loads(glint("db", "import-glance", ours, *place).stdout)
        self.again = json.loads(glint("db", "import-glance", ours, *place).stdout)
        self.lies = self.files(room)
        self.log = open(room / "serve.log", "w+")
        self.server = subprocess.Popen([GLINT, "serve", "--listen", "127.0.0.1:0", *place],
                                       stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        for _ in range(600):
            if found := re.search(r"http://127\.0\.0\.1:\d+", Path(self.log.name).read_text()):
                self.url = found[0]
                return
            time.sleep(0.05)
        raise AssertionError(Path(self.log.name).read_text())

    @staticmethod
    def files(room):
        """Data by name, with what would change if it were copied or touched."""
        stats = {p: p.stat() for store in ("one", "two") for p in (room / store).iterdir()}
        return {str(p): (s.st_ino, s.st_size, s.st_mtime_ns) for p, s in stats.items()}

    def get(self, path, method="GET", body=None):
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def stop(self):
        self.server.terminate()
        self.server.wait(60)
        self.log.close()


class ByGlintsOwnClient(unittest.TestCase):
    """`glint image` with Glance itself, which takes no uploads in parts."""

    def test_an_image_goes_there_and_comes_back(self):
        room = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="glint-glance-")))
        with open(room / "serve.log", "w") as log:
            glance = subprocess.Popen(
                [VENV / "bin/python", HERE / "glance_source.py", room, f"sqlite:///{room}/glance.db", "serve"],
                stdout=subprocess.PIPE, stderr=log, text=True)
        self.addCleanup(lambda: (glance.kill(), glance.wait(), glance.stdout.close()))
        port = glance.stdout.readline().strip()
        self.assertTrue(port, (room / "serve.log").read_text())
        env = {"PATH": os.environ["PATH"], "OS_AUTH_TYPE": "none", "OS_ENDPOINT": f"http://127.0.0.1:{port}",
               "XDG_STATE_HOME": str(room / "state")}
        file, back = room / "disk.img", room / "back.img"
        file.write_bytes(os.urandom(9 << 20) + bytes(9 << 20) + os.urandom(5000))
        done = glint("image", "upload", file, "--output", "json", env=env)
        told = json.loads(done.stdout)
        self.assertIn("takes no uploads in parts", done.stderr)
        self.assertEqual((told["status"], told["protocol"], told["hash_algo"]), ("active", "put", "sha512"))
        glint("image", "download", told["id"], "-o", back, env=env)
        self.assertEqual(back.read_bytes(), file.read_bytes())
        back.unlink()
        with open(room / "one" / told["id"], "r+b") as stored:
            stored.write(b"wrong")
        wrong = glint("image", "download", told["id"], "-o", back, env=env, check=False)
        self.assertEqual(wrong.returncode, 1, wrong.stderr)
        self.assertEqual([f.name for f in room.glob("back.img*")], [])


class FromSqlite(unittest.TestCase):
    @classmethod
    def databases(cls, room):
        return f"sqlite:///{room}/glance.db", f"sqlite:{room}/glance.db"

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="glint-move-")
        cls.addClassCleanup(cls.folder.cleanup)
        room = Path(cls.folder.name)
        cls.moved = Moved(room, *cls.databases(room))
        cls.addClassCleanup(cls.moved.stop)

    def test_images_are_shown_as_glance_showed_them(self):
        for was in self.moved.was["images"]:
            now = json.loads(self.moved.get(f"/v2/images/{was['id']}"))
            was = was | {"tags": sorted(was["tags"])}
            now = now | {"tags": sorted(now["tags"])}
            keys = (was.keys() | now.keys()) - OURS
            self.assertEqual({k: now.get(k) for k in keys}, {k: was.get(k) for k in keys})

    def test_data_is_read_where_it_lies(self):
        self.assertEqual(self.moved.lies, self.moved.lay)
        for was in self.moved.was["images"]:
            if was["status"] == "active":
                data = self.moved.get(f"/v2/images/{was['id']}/file")
                self.assertEqual(hashlib.sha512(data).hexdigest(), was["os_hash_value"], was["name"])

    def test_deleted_ids_stay_taken(self):
        for image in self.moved.was["deleted"]:
            for path, method, body, want in (
                    (f"/v2/images/{image}", "GET", None, 404),
                    ("/v2/images", "POST", json.dumps({"id": image}).encode(), 409)):
                with self.assertRaises(urllib.error.HTTPError) as refused:
                    self.moved.get(path, method, body)
                self.assertEqual(refused.exception.code, want)
                refused.exception.close()

    def test_metadata_definitions_come_along(self):
        self.assertGreater(len(self.moved.was["namespaces"]), 20)
        for was in self.moved.was["namespaces"]:
            now = json.loads(self.moved.get(f"/v2/metadefs/namespaces/{was['namespace']}"))
            for key in ("display_name", "description", "visibility", "protected", "owner"):
                self.assertEqual(now.get(key), was.get(key), was["namespace"])
            self.assertEqual(now.get("properties", {}).keys(), was.get("properties", {}).keys())
            self.assertEqual({o["name"] for o in now.get("objects", [])}, {o["name"] for o in was.get("objects", [])})

    def test_a_dry_run_tells_and_a_second_run_changes_nothing(self):
        told, done, again = self.moved.told, self.moved.done, self.moved.again
        self.assertEqual(told | {"dry_run": False}, done)
        self.assertEqual((done["images"], done["queued"], done["deleted_ids"]), (6, 1, 2))
        self.assertEqual(done["notes"], [])
        self.assertEqual((again["images"], again["already_there"], again["namespaces"]), (0, 9, 0))


class FromMariadb(FromSqlite):
    @classmethod
    def databases(cls, room):
        server = subprocess.Popen([HERE.parent / "support/database.sh", "mariadb"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        cls.addClassCleanup(server.wait)
        cls.addClassCleanup(server.stdin.close)
        cls.addClassCleanup(server.stdout.close)
        socket = server.stdout.readline().strip().split("socket=")[1]
        subprocess.run(["mariadb", "--no-defaults", "-S", socket, "-u", "root", "-e",
                        "CREATE DATABASE glance CHARACTER SET utf8mb4"], check=True)
        url = f"mysql+pymysql://root@localhost/glance?unix_socket={socket}&charset=utf8mb4"
        return url, url


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
