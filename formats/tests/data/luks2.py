#!/usr/bin/env python3
"""Makes luks2-*.img.gz: volumes of 8 KiB that cryptsetup encrypted, passphrase `open sesame`.

Wants cryptsetup and the Python package `cryptography`. Keys and salts differ from run to run. The
key material of a slot is 256 KB of noise; here all of it but the last stripe is stored as zeros,
which cryptsetup takes for a key slot like any other (it is asked), and which compresses.
"""
import base64, gzip, hashlib, json, os, struct, subprocess, tempfile
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

HERE = os.path.dirname(os.path.abspath(__file__))
PASSPHRASE = b"open sesame"
SIZE, KEY, STRIPES, SECTOR = 8192, 64, 4000, 512


def payload():
    return bytes((i * 7 + i // 256) % 256 for i in range(SIZE))


def xts(key, data, encrypt):
    out = b""
    for at in range(0, len(data), SECTOR):
        tweak = (at // SECTOR).to_bytes(16, "little")
        cipher = Cipher(algorithms.AES(key), modes.XTS(tweak))
        context = cipher.encryptor() if encrypt else cipher.decryptor()
        out += context.update(data[at:at + SECTOR]) + context.finalize()
    return out


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def diffuse(block):
    pieces = (struct.pack(">I", n) + block[n * 32:n * 32 + 32] for n in range(len(block) // 32))
    return b"".join(hashlib.sha256(piece).digest() for piece in pieces)


def before_last(material):
    mixed = bytes(KEY)
    for n in range(STRIPES - 1):
        mixed = diffuse(xor(mixed, material[n * KEY:n * KEY + KEY]))
    return mixed


def make(name, args):
    key, volume_key = "key", "volume-key"
    with open(key, "wb") as f:
        f.write(PASSPHRASE)
    with open("image", "wb") as f:
        f.write(payload())
        f.truncate(SIZE + (1 << 20))
    run = lambda *args: subprocess.run(["cryptsetup", *args, "-q", "--key-file", key, "image"],
                                       check=True, stdout=subprocess.DEVNULL)
    run("reencrypt", "--encrypt", "--force-offline-reencrypt", "--reduce-device-size", "1M",
        "--luks2-keyslots-size", "272k", *args)
    run("luksDump", "--dump-volume-key", "--volume-key-file", volume_key)
    secret = open(volume_key, "rb").read()
    os.remove(volume_key)

    image = bytearray(open("image", "rb").read())
    metadata = json.loads(image[4096:16384].split(b"\0")[0])
    slot = metadata["keyslots"]["0"]
    kdf, salt = slot["kdf"], base64.b64decode(slot["kdf"]["salt"])
    if kdf["type"] == "argon2id":
        slot_key = Argon2id(salt=salt, length=KEY, iterations=kdf["time"], lanes=kdf["cpus"],
                            memory_cost=kdf["memory"]).derive(PASSPHRASE)
    else:
        slot_key = hashlib.pbkdf2_hmac(kdf["hash"], PASSPHRASE, salt, kdf["iterations"], KEY)
    at, length = int(slot["area"]["offset"]), KEY * STRIPES
    material = xts(slot_key, bytes(image[at:at + length]), False)
    assert xor(before_last(material), material[-KEY:]) == secret
    material = xts(slot_key, bytes(length), False)
    material = material[:-KEY] + xor(before_last(material), secret)
    image[at:at + length] = xts(slot_key, material, True)
    start = int(metadata["segments"]["0"]["offset"])
    # What encrypting in place left behind.
    image[at + length:start] = bytes(start - at - length)
    with open("image", "wb") as f:
        f.write(image[:start + SIZE])
    run("open", "--test-passphrase")
    with open(os.path.join(HERE, f"luks2-{name}.img.gz"), "wb") as f:
        f.write(gzip.compress(bytes(image[:start + SIZE]), 9, mtime=0))


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    make("argon2id", ["--pbkdf", "argon2id", "--pbkdf-memory", "64", "--pbkdf-parallel", "2",
                      "--pbkdf-force-iterations", "4", "--sector-size", "512"])
    make("pbkdf2", ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
                    "--sector-size", "4096", "--label", "glint"])
