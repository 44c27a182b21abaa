"""What schemathesis has to be told of our API: how patches are written, and an image that is there."""

import os

import schemathesis

for version in ("2.0", "2.1"):
    schemathesis.serializer.alias(f"application/openstack-images-v{version}-json-patch", "application/json")
schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    # A made-up id finds nothing; a protected image is never deleted.
    if path_parameters and "image" in path_parameters:
        path_parameters["image"] = os.environ["GLINT_IMAGE"]
    return path_parameters
