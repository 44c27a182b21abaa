#!/usr/bin/env python3
"""Makes the seeds of every target in seeds/: from fixtures/, from what qemu-img writes, and from the
corpus of real images where GLINT_CORPUS says where it is. What each target takes: src/lib.rs."""

import bz2, gzip, io, lzma, os, pathlib, shutil, struct, subprocess, tarfile, tempfile, zipfile, zlib

HERE = pathlib.Path(__file__).resolve().parent
FIXTURES = HERE.parent.parent / "fixtures"
SEEDS = HERE / "seeds"
MOST = 128 << 10
SECTOR = 512


def seed(target, name, data):
    if data and len(data) <= MOST:
        (SEEDS / target).mkdir(parents=True, exist_ok=True)
        (SEEDS / target / name.replace("/", "_")).write_bytes(data)


def packed(file):
    """As src/lib.rs has it: the sectors that are not zero, and where they stand."""
    if len(file) > 0xffff * SECTOR:
        return b""
    sectors = [(n, file[n * SECTOR:(n + 1) * SECTOR]) for n in range(-(-len(file) // SECTOR))]
    kept = [(n, s.ljust(SECTOR, b"\0")) for n, s in sectors if s.strip(b"\0")]
    places = b"".join(struct.pack("<H", n) for n, _ in kept)
    return struct.pack("<HH", len(kept), len(file) // SECTOR) + places + b"".join(s for _, s in kept)


def whole(file):
    return bytes(4) + file


# The targets of a format, and how they take it.
TARGETS = {
    "qcow2": [("qcow2", bytes)], "qcow": [("qcow1", bytes)], "qed": [("qed", bytes)],
    "vhd": [("vhd", bytes)], "vhdx": [("vhdx", packed)], "vdi": [("vdi", bytes)],
    "vmdk": [("vmdk", packed), ("vmdk", whole)], "parallels": [("parallels", bytes)],
    "bochs": [("bochs", bytes)], "dmg": [("dmg", bytes)], "luks": [("luks", packed)],
    "iso": [("iso", packed)], "raw": [("gpt", packed), ("content", bytes)],
    "ova": [("archive", bytes)], "docker": [("archive", bytes)], "box": [("archive", bytes)],
    "tar": [("archive", bytes)], "ovf": [("package", lambda file: b"x" + file)],
}


def image(format, name, file):
    for n, (target, how) in enumerate(TARGETS.get(format, [])):
        seed(target, f"{name}-{n}", how(file))
    seed("drivers", name, min(packed(file) or whole(file), whole(file), key=len))


def inflated(file):
    for opening in (gzip.decompress, bz2.decompress, lzma.decompress):
        try:
            return opening(file)
        except (OSError, EOFError, lzma.LZMAError):
            pass
    if file.startswith(b"\x28\xb5\x2f\xfd"):
        return subprocess.run(["zstd", "-dcq"], input=file, capture_output=True).stdout
    return None


def take(format, name, file):
    """A file, and what is compressed in it."""
    inner = inflated(file)
    if inner is not None:
        seed("wrap", name, file)
    if inner is None or format == "dmg":
        image(format, name, file)
    elif len(inner) <= 32 << 20:
        image(format, name, inner)


def fixtures():
    lines = (FIXTURES / "MANIFEST.tsv").read_text().splitlines()[1:]
    for name, format, *_ in (line.split("\t") for line in lines):
        take(format, name, (FIXTURES / name).read_bytes())


def corpus():
    root = os.environ.get("GLINT_CORPUS")
    if not root:
        return
    head, *lines = (pathlib.Path(root) / "MANIFEST.tsv").read_text().splitlines()
    head = head.split("\t")
    for line in lines:
        entry = dict(zip(head, line.split("\t")))
        path = pathlib.Path(root) / entry["path"]
        if path.stat().st_size <= 1 << 20:
            take(entry["format"], entry["path"], path.read_bytes())


GUEST = bytes(5000) + b"\7" * 4000 + bytes(31 << 10) + b"guest" * 200


def qemu_img():
    with tempfile.TemporaryDirectory() as folder:
        def path(name):
            return os.path.join(folder, name)

        def run(*args):
            done = subprocess.run(["qemu-img", *args], cwd=folder, capture_output=True, text=True)
            # qemu-img 7.2 writes a whole compressed qcow, says nothing, and ends with 1.
            if done.returncode and done.stderr:
                raise SystemExit(f"qemu-img {args}: {done.stderr}")

        def convert(format, name, *args, fmt=None):
            run("convert", "-f", "raw", "raw", "-O", fmt or format, *args, name)
            image(format, name, pathlib.Path(path(name)).read_bytes())

        pathlib.Path(path("raw")).write_bytes(GUEST.ljust(64 << 10, b"\0"))
        pathlib.Path(path("key")).write_text("open sesame")
        secret = "secret,id=s,file=key"
        for n, options in enumerate([
            "cluster_size=512", "cluster_size=512,compat=0.10", "cluster_size=512,refcount_bits=1",
            "cluster_size=512,refcount_bits=64,lazy_refcounts=on", "cluster_size=16k,extended_l2=on",
            "cluster_size=4k,preallocation=metadata",
        ]):
            convert("qcow2", f"q{n}.qcow2", "-o", options)
        for kind in ("zlib", "zstd"):
            convert("qcow2", f"{kind}.qcow2", "-c", "-o", f"cluster_size=4k,compression_type={kind}")
        run("create", "-f", "qcow2", "-o", "cluster_size=512", "snapshot.qcow2", "32k")
        for _ in range(2):
            run("snapshot", "-c", "one", "snapshot.qcow2")
        run("bitmap", "--add", "-g", "512", "snapshot.qcow2", "dirty")
        run("create", "-f", "qcow2", "-F", "raw", "-b", "raw", "-o", "cluster_size=512", "backed.qcow2")
        for name in ("snapshot.qcow2", "backed.qcow2"):
            image("qcow2", name, pathlib.Path(path(name)).read_bytes())
        convert("qcow", "q.qcow")
        convert("qcow", "c.qcow", "-c")
        convert("qed", "q.qed", "-o", "cluster_size=4k,table_size=2")
        for kind in ("dynamic", "fixed"):
            convert("vhd", f"{kind}.vhd", "-o", f"subformat={kind},force_size=on", fmt="vpc")
            convert("vhdx", f"{kind}.vhdx", "-o", f"subformat={kind}")
        convert("vdi", "dynamic.vdi")
        convert("vdi", "static.vdi", "-o", "static=on")
        convert("parallels", "p.hds", "-o", "cluster_size=4k")
        for kind in ("monolithicSparse", "streamOptimized", "monolithicFlat", "twoGbMaxExtentSparse"):
            convert("vmdk", f"{kind}.vmdk", "-o", f"subformat={kind}")
        run("convert", "-f", "raw", "raw", "--object", secret, "-O", "luks", "-o",
            "key-secret=s,iter-time=10", "volume.luks")
        file = pathlib.Path(path("volume.luks")).read_bytes()
        seed("luks", "qemu", packed(file))
        bundle(pathlib.Path(path("p.hds")).read_bytes())


def luks():
    for path in sorted((HERE.parent / "tests" / "data").glob("luks*.gz")):
        seed("luks", path.stem, packed(gzip.decompress(path.read_bytes())))


def bundle(hds):
    guid, none = "{5fbaabe3-6958-40ff-92a7-860e329aab41}", "{00000000-0000-0000-0000-000000000000}"
    base = "{11111111-1111-1111-1111-111111111111}"

    def storage(start, *images):
        images = "".join(f"<Image><GUID>{g}</GUID><Type>{t}</Type><File>a.hds</File></Image>" for g, t in images)
        return f"<Storage><Start>{start}</Start><End>{start + 80}</End><Blocksize>8</Blocksize>{images}</Storage>"

    def descriptor(*images, shots):
        shots = "".join(f"<Shot><GUID>{g}</GUID><ParentGUID>{p}</ParentGUID></Shot>" for g, p in shots)
        return (f"<?xml version='1.0'?><Parallels_disk_image Version=\"1.0\"><Disk_Parameters><Disk_size>160"
                f"</Disk_size><Padding>0</Padding></Disk_Parameters><StorageData>{storage(0, *images)}"
                f"{storage(80, *images)}</StorageData><Snapshots>{shots}</Snapshots></Parallels_disk_image>").encode()

    one = descriptor((guid, "Compressed"), shots=[(guid, none)])
    two = descriptor((base, "Plain"), (guid, "Compressed"), shots=[(base, none), (guid, base)])
    for n, text in enumerate((one, two)):
        seed("bundle", str(n), text + b"\n%%\n" + hds)
    seed("bundle", "fixture", (FIXTURES / "bundle.xml").read_bytes() + b"\n%%\n" + hds)


def dmg():
    """A chunk in each coding."""
    sector = b"chunk" * 102 + b"\0\0"
    adc = b"\x80\5" + b"\x7f\0\0" * 7 + b"\x66\0\0"
    stored = b"bvx-" + struct.pack("<I", 512) + sector + b"bvx$"
    for coding, chunk in ((1, sector), (3, adc), (4, zlib.compress(sector)),
                          (5, bz2.compress(sector)), (6, stored), (7, lzma.compress(sector))):
        seed("dmg", f"coding-{coding}", bytes([coding, 1]) + chunk)
    path = os.environ.get("GLINT_CORPUS", "")
    # Blocks of LZFSE and LZVN as Apple's programs write them.
    file = pathlib.Path(path, "dmg", "compression-lzfse.dmg")
    if path and file.exists():
        file, n, at = file.read_bytes(), 0, 0
        for magic in (b"bvx2", b"bvxn", b"bvx1"):
            while (at := file.find(magic, at)) >= 0:
                end = file.find(b"bvx$", at)
                seed("dmg", f"lzfse-{n}", b"\6\x40" + file[at:end + 4])
                n, at = n + 1, at + 4
            at = 0


def packages():
    for path in sorted(set(FIXTURES.glob("*.ova")) - {FIXTURES / "truncated.ova"}):
        with tarfile.open(path) as archive:
            members = {}
            for member in archive:
                if member.isfile():
                    members.setdefault(member.name.rsplit(".", 1)[-1], archive.extractfile(member).read())
        disk = members.get("vmdk", b"")[:4 << 10]
        parts = [members.get(name, b"") for name in ("ovf", "mf", "cert")] + [disk]
        seed("package", path.name, b"o" + b"\n%%\n".join(parts))
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo("disk/a.img")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"bytes"))
    layer = layer.getvalue()[:2048]
    config = b'{"architecture":"amd64","os":"linux"}'
    saved = b'[{"Config":"c.json","RepoTags":["a:b"],"Layers":["l"]}]'
    index = b'{"manifests":[{"digest":"a:1"}]}'
    manifest = b'{"config":{"digest":"a:2"},"layers":[{"digest":"a:3","size":5}]}'
    layout = b'{"imageLayoutVersion":"1.0.0"}'
    clean = (FIXTURES / "clean.qcow2").read_bytes()
    libvirt = b'{"provider":"libvirt","format":"qcow2","virtual_size":1}'
    disks = b'{"provider":"libvirt","disks":[{"path":"box.img","name":"a","format":"qcow2"}]}'
    for n, (choice, parts) in enumerate([
        (b"d", (saved, config, layer, layout)), (b"i", (index, manifest, config, layer)),
        (b"v", (libvirt, clean, b"", b"")), (b"v", (disks, clean, b"", b"")),
    ]):
        seed("package", f"made-{n}", choice + b"\n%%\n".join(parts))


def wrappers():
    clean = (FIXTURES / "clean.qcow2").read_bytes()
    members = io.BytesIO()
    with zipfile.ZipFile(members, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("disk.qcow2"), clean)
    seed("wrap", "zip", members.getvalue())
    for name, pack in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)):
        seed("wrap", name, pack(clean))
        seed("wrap", f"{name}-twice", pack(clean) + pack(clean))
    for args in (["-q"], ["-q", "--no-check"], ["-q", "-19", "--long"]):
        out = subprocess.run(["zstd", *args], input=clean, capture_output=True).stdout
        seed("wrap", f"zstd{len(args)}", out)
    seed("wrap", "stored", b"g" + clean)
    seed("wrap", "stored-ova", b"g" + (FIXTURES / "clean.ova").read_bytes())


if __name__ == "__main__":
    shutil.rmtree(SEEDS, ignore_errors=True)
    for make in (fixtures, corpus, qemu_img, luks, dmg, packages, wrappers):
        make()
    for folder in sorted(SEEDS.iterdir()):
        print(len(list(folder.iterdir())), folder.name)
