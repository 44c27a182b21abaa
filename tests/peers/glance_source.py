"""Makes a real Glance's database and store, to be moved from. Runs in a venv that has Glance.

Usage: glance_source.py FOLDER DATABASE_URL [serve]

Schema and metadata definitions by glance-manage; images by Glance's own API, called in this process.
Prints as JSON what the API shows of every image afterwards, and the ids of the deleted ones. With
`serve` it makes no images: it prints the port of 127.0.0.1 where it answers, until it is killed.
"""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOM, URL = Path(sys.argv[1]), sys.argv[2]
SERVES = sys.argv[3:] == ["serve"]
VENV = Path(sysconfig.get_path("scripts")).parent


def configure():
    etc = VENV / "etc/glance"
    (ROOM / "glance-api.conf").write_text(f"""
[DEFAULT]
enabled_backends = one:file, two:file
log_file = {ROOM}/glance.log
node_staging_uri = file://{ROOM}/staging
[database]
connection = {URL}
[glance_store]
default_backend = one
[one]
filesystem_store_datadir = {ROOM}/one
[two]
filesystem_store_datadir = {ROOM}/two
[os_glance_staging_store]
filesystem_store_datadir = {ROOM}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {ROOM}/tasks
[oslo_policy]
enforce_scope = false
enforce_new_defaults = false
policy_file = {ROOM}/policy.yaml
[paste_deploy]
config_file = {etc}/glance-api-paste.ini
""")
    (ROOM / "policy.yaml").write_text('"default": ""\n' + "".join(
        f'"{rule}": "@"\n' for rule in (
            "add_image get_image get_images modify_image delete_image publicize_image communitize_image "
            "upload_image download_image add_member get_member get_members modify_member deactivate "
            "reactivate").split()))
    for folder in ("one", "two", "staging", "tasks"):
        (ROOM / folder).mkdir()
    manage = [VENV / "bin/glance-manage", "--config-file", ROOM / "glance-api.conf"]
    with open(ROOM / "manage.log", "w") as log:
        subprocess.run([*manage, "db_sync"], check=True, stdout=log, stderr=log)
        subprocess.run([*manage, "db_load_metadefs", etc / "metadefs"], check=True, stdout=log, stderr=log)


configure()
os.environ["OS_GLANCE_CONFIG_DIR"] = str(ROOM)
sys.argv[1:] = []
from glance.wsgi.api import application  # noqa: E402
from webob import Request  # noqa: E402

if SERVES:
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIServer, make_server

    class Threads(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    server = make_server("127.0.0.1", 0, application, server_class=Threads)
    print(server.server_port, flush=True)
    server.serve_forever()

PATCH = "application/openstack-images-v2.1-json-patch"


def call(method, path, body=None, kind="application/json", **headers):
    request = Request.blank(path, method=method, headers=headers)
    if body is not None:
        request.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        request.content_type = kind
    response = request.get_response(application)
    assert response.status_int < 300, f"{method} {path}: {response.status} {response.text}"
    return response.json if response.content_type == "application/json" else None


def create(data=None, store=None, **fields):
    fields = {"disk_format": "raw", "container_format": "bare", "owner": "p1"} | fields
    image = "/v2/images/" + call("POST", "/v2/images", fields)["id"]
    if data is not None:
        headers = {"X-Image-Meta-Store": store} if store else {}
        call("PUT", f"{image}/file", data, "application/octet-stream", **headers)
    return image


shown = [
    create(b"plain" * 1000, name="plain", min_ram=64, min_disk=3, os_distro="debian", empty=""),
    create(b"second store" * 999, "two", name="in the second store", visibility="public"),
    create(name="queued, nothing in it", visibility="private", protected=True),
    create(b"x", name="h\u00efdden", os_hidden=True, visibility="community", tags=["a", "b", "\u00fc"]),
    create(b"shared" * 77, name="shared", visibility="shared", long="v" * 5000),
    create(b"", name="empty, yet active"),
]
off = create(b"deactivated" * 55, name="deactivated")
call("POST", f"{off}/actions/deactivate")
shown.append(off)
for member, status in (("p2", "accepted"), ("p3", "pending"), ("p4", "rejected")):
    call("POST", f"{shown[4]}/members", {"member": member})
    if status != "pending":
        call("PUT", f"{shown[4]}/members/{member}", {"status": status})
gone = [create(b"deleted" * 9, name="deleted", tags=["t"]), create(name="deleted while queued")]
for image in gone:
    call("DELETE", image)
namespaces = call("GET", "/v2/metadefs/namespaces?limit=1000")["namespaces"]
json.dump({
    "images": [call("GET", image) for image in shown],
    "deleted": [image.rsplit("/", 1)[1] for image in gone],
    "members": call("GET", f"{shown[4]}/members")["members"],
    "namespaces": [call("GET", f"/v2/metadefs/namespaces/{n['namespace']}") for n in namespaces],
}, sys.stdout)
