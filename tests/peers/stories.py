"""What admin, member and reader do with an image, by the libraries programs use: openstacksdk and
python-glanceclient. Runs in their virtual environment, against a service behind Keystone.

Usage: stories.py sdk|glanceclient KEYSTONE-URL REGION PASSWORD PROJECT-B FILE WEB-URL

FILE is a raw disk, WEB-URL is where the service may fetch the same bytes.
"""

import io
import sys
import time
from pathlib import Path

import glanceclient
import openstack.connection
from glanceclient import exc
from keystoneauth1 import session
from keystoneauth1.identity import v3
from openstack import exceptions

STORY, AUTH_URL, REGION, PASSWORD, PROJECT_B, FILE, WEB_URL = sys.argv[1:]
DATA = Path(FILE).read_bytes()
RAW = {"disk_format": "raw", "container_format": "bare"}


def authenticated(user):
    """A session of one of the people, in the project of the name's last letter."""
    return session.Session(v3.Password(
        AUTH_URL, username=user, password=PASSWORD, user_domain_id="default",
        project_name=f"project-{user[-1]}", project_domain_id="default"))


def refused(kinds, what, *args, **more):
    """Asserts that a call fails as it should. Lists are read, for they ask when they are read."""
    try:
        answer = what(*args, **more)
        if hasattr(answer, "__next__"):
            list(answer)
        # The SDK hands some refusals back.
        if getattr(answer, "status_code", 200) == 403:
            return
    except kinds:
        return
    raise AssertionError(f"{what.__name__}{args} was not refused")


def until(what):
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.1)


def sdk():
    admin, member, reader, other, other_reader = (
        openstack.connection.Connection(session=authenticated(user), region_name=REGION).image
        for user in ("admin-a", "member-a", "reader-a", "member-b", "reader-b"))
    forbidden, absent = exceptions.ForbiddenException, exceptions.NotFoundException
    # The SDK holds the body of a refusal against the digests of the image.
    no_data = exceptions.InvalidResponse

    # Upload; who may see it, and who may take it away.
    image = member.create_image("by-sdk", filename=FILE, visibility="shared", wait=True, **RAW)
    assert reader.get_image(image.id).status == "active"
    assert [i.id for i in reader.images(name="by-sdk")] == [image.id]
    assert member.download_image(image).content == DATA
    refused(no_data, reader.download_image, image)
    refused(forbidden, reader.update_image, image.id, name="mine")
    refused(forbidden, reader.create_image, "nothing", **RAW, data=b"x", wait=True)
    refused(absent, other.get_image, image.id)
    member.update_image(image, os_distro="debian")
    member.add_tag(image, "good")
    seen = admin.get_image(image.id)
    assert (seen.os_distro, seen.tags) == ("debian", ["good"])
    member.remove_tag(image, "good")

    # Shared with another project, which accepts.
    refused(forbidden, reader.add_member, image, member_id=PROJECT_B)
    member.add_member(image, member_id=PROJECT_B)
    assert list(other.images(name="by-sdk")) == []
    refused(forbidden, member.update_member, PROJECT_B, image, status="accepted")
    refused(forbidden, other_reader.update_member, PROJECT_B, image, status="accepted")
    other.update_member(PROJECT_B, image, status="accepted")
    assert [i.id for i in other.images(name="by-sdk")] == [image.id]
    assert [(m.member_id, m.status) for m in member.members(image)] == [(PROJECT_B, "accepted")]
    assert other.download_image(image).content == DATA
    refused(forbidden, other.delete_image, image)
    member.remove_member(PROJECT_B, image)
    refused(absent, other.get_image, image.id)

    # For everybody who asks for it, and for everybody.
    refused(forbidden, member.update_image, image.id, visibility="public")
    member.update_image(image, visibility="community")
    assert list(other.images(name="by-sdk")) == []
    assert [i.id for i in other.images(name="by-sdk", visibility="community")] == [image.id]
    admin.update_image(image, visibility="public")
    assert [i.id for i in other_reader.images(name="by-sdk")] == [image.id]

    # The SDK does not tell of this refusal.
    other.deactivate_image(image)
    assert member.get_image(image.id).status == "active"
    member.deactivate_image(image)
    refused(no_data, member.download_image, image)
    member.reactivate_image(image)
    refused(forbidden, other.delete_image, image)
    member.delete_image(image)
    assert reader.find_image("by-sdk") is None

    # Imports of what was staged, and from the web.
    assert "web-download" in member.get_import_info().import_methods["value"]
    assert {"file", "web"} <= {store.id for store in member.stores()}
    for method, more in (("glance-direct", {}), ("web-download", {"uri": WEB_URL})):
        image = member.create_image(method, **RAW)
        if method == "glance-direct":
            member.stage_image(image, filename=FILE)
        refused(forbidden, reader.import_image, image, method, **more)
        member.import_image(image, method, **more)
        member.wait_for_status(image, "active", interval=0.2, wait=60)
        assert member.download_image(image).content == DATA
        assert [task.status for task in member.image_tasks(image)] == ["success"]
        refused(forbidden, list, reader.tasks())
        assert image.id in {task.result["image_id"] for task in map(admin.get_task, admin.tasks()) if task.result}
        admin.delete_image(image)

    # Data that lies elsewhere.
    image = member.create_image("elsewhere", **RAW)
    refused(forbidden, reader.add_image_location, image, WEB_URL)
    member.add_image_location(image, WEB_URL)
    member.wait_for_status(image, "active", interval=0.2, wait=60)
    assert member.download_image(image).content == DATA
    refused(forbidden, member.image_locations, image)
    assert [at.url for at in admin.image_locations(image)] == [WEB_URL]
    member.delete_image(image)

    # Definitions of properties.
    name = "Sdk::Box"
    refused(forbidden, member.create_metadef_namespace, namespace=name)
    admin.create_metadef_namespace(namespace=name, visibility="private")
    admin.create_metadef_object(name, name="door")
    admin.create_metadef_property(name, name="width", title="Width", type="integer")
    admin.add_tag_to_metadef_namespace(name, "red")
    admin.create_metadef_resource_type_association(name, name="OS::Glance::Image")
    assert reader.get_metadef_namespace(name).visibility == "private"
    assert [o.name for o in reader.metadef_objects(name)] == ["door"]
    assert [p.name for p in reader.metadef_properties(name)] == ["width"]
    refused(forbidden, member.delete_metadef_object, "door", name, ignore_missing=False)
    refused(absent, other.get_metadef_namespace, name)
    admin.update_metadef_namespace(name, visibility="public")
    assert other_reader.get_metadef_namespace(name).visibility == "public"
    refused(forbidden, other.delete_metadef_namespace, name)
    admin.delete_metadef_namespace(name)
    refused(absent, admin.get_metadef_namespace, name)


def glance():
    admin, member, reader, other, other_reader = (
        glanceclient.Client("2", session=authenticated(user), region_name=REGION)
        for user in ("admin-a", "member-a", "reader-a", "member-b", "reader-b"))
    forbidden, absent = exc.HTTPForbidden, exc.HTTPNotFound

    def download(who, image):
        return b"".join(who.images.data(image))

    def names(who, **filters):
        return [i.name for i in who.images.list(filters={"name": "by-glanceclient", **filters})]

    def active(image):
        until(lambda: member.images.get(image).status == "active")

    image = member.images.create(name="by-glanceclient", visibility="shared", **RAW).id
    refused(forbidden, reader.images.upload, image, io.BytesIO(DATA))
    member.images.upload(image, io.BytesIO(DATA))
    assert reader.images.get(image).status == "active"
    assert download(member, image) == DATA
    refused(forbidden, download, reader, image)
    refused(forbidden, reader.images.update, image, name="mine")
    refused(forbidden, reader.images.create, name="nothing", **RAW)
    refused(absent, other.images.get, image)
    member.images.update(image, os_distro="debian")
    member.image_tags.update(image, "good")
    seen = admin.images.get(image)
    assert (seen.os_distro, seen.tags) == ("debian", ["good"])
    member.image_tags.delete(image, "good")

    refused(forbidden, reader.image_members.create, image, PROJECT_B)
    member.image_members.create(image, PROJECT_B)
    assert names(other) == [] and names(other, member_status="pending") == ["by-glanceclient"]
    refused(forbidden, member.image_members.update, image, PROJECT_B, "accepted")
    refused(forbidden, other_reader.image_members.update, image, PROJECT_B, "accepted")
    other.image_members.update(image, PROJECT_B, "accepted")
    assert names(other) == ["by-glanceclient"]
    assert [m.status for m in reader.image_members.list(image)] == ["accepted"]
    assert download(other, image) == DATA
    refused(forbidden, other.images.delete, image)
    member.image_members.delete(image, PROJECT_B)
    refused(absent, other.images.get, image)

    refused(forbidden, member.images.update, image, visibility="public")
    member.images.update(image, visibility="community")
    assert names(other) == [] and names(other, visibility="community") == ["by-glanceclient"]
    admin.images.update(image, visibility="public")
    assert names(other_reader) == ["by-glanceclient"]
    refused(forbidden, other.images.deactivate, image)
    member.images.deactivate(image)
    refused(forbidden, download, member, image)
    member.images.reactivate(image)
    refused(forbidden, other.images.delete, image)
    member.images.delete(image)
    refused(absent, reader.images.get, image)

    assert "web-download" in member.images.get_import_info()["import-methods"]["value"]
    refused(forbidden, member.images.get_stores_info_detail)
    assert {"file", "web"} <= {store["id"] for store in admin.images.get_stores_info_detail()["stores"]}
    for method, more in (("glance-direct", {}), ("web-download", {"uri": WEB_URL})):
        image = member.images.create(name=method, **RAW).id
        if method == "glance-direct":
            refused(forbidden, reader.images.stage, image, io.BytesIO(DATA))
            member.images.stage(image, io.BytesIO(DATA))
        refused(forbidden, reader.images.image_import, image, method, **more)
        member.images.image_import(image, method, **more)
        active(image)
        assert download(member, image) == DATA
        refused(forbidden, list, reader.tasks.list())
        assert image in {admin.tasks.get(task.id).input.get("image_id") for task in admin.tasks.list()}
        admin.images.delete(image)

    # Locations by the newer call and by a patch.
    for add in (lambda who, image: who.images.add_image_location(image, WEB_URL),
                lambda who, image: who.images.add_location(image, WEB_URL, {})):
        image = member.images.create(name="elsewhere", **RAW).id
        refused(forbidden, add, reader, image)
        add(member, image)
        active(image)
        assert download(member, image) == DATA
        refused(forbidden, member.images.get_image_locations, image)
        assert [at["url"] for at in admin.images.get_image_locations(image)] == [WEB_URL]
        member.images.delete(image)

    name = "Glanceclient::Box"
    refused(forbidden, member.metadefs_namespace.create, namespace=name)
    admin.metadefs_namespace.create(namespace=name, visibility="private")
    admin.metadefs_object.create(name, name="door")
    admin.metadefs_property.create(name, name="width", title="Width", type="integer")
    admin.metadefs_tag.create(name, "red")
    admin.metadefs_resource_type.associate(name, name="OS::Glance::Image")
    assert reader.metadefs_namespace.get(name).visibility == "private"
    assert [o.name for o in reader.metadefs_object.list(name)] == ["door"]
    assert [t.name for t in reader.metadefs_tag.list(name)] == ["red"]
    refused(forbidden, member.metadefs_object.delete, name, "door")
    refused(absent, other.metadefs_namespace.get, name)
    admin.metadefs_namespace.update(name, visibility="public")
    assert other_reader.metadefs_namespace.get(name).visibility == "public"
    refused(forbidden, other.metadefs_namespace.delete, name)
    admin.metadefs_namespace.delete(name)
    refused(absent, admin.metadefs_namespace.get, name)


if __name__ == "__main__":
    {"sdk": sdk, "glanceclient": glance}[STORY]()
