#!/usr/bin/env python3
"""Computes sequence-vector.json without any code of knockd-rs: Python's own hashes, openssl for X25519 and AES."""

import hashlib
import hmac
import json
import subprocess
import tempfile


def openssl(*words, data=b""):
    return subprocess.run(["openssl", *words], input=data, check=True, capture_output=True).stdout


def mac(key, *parts):
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def hkdf(secret, info):  # RFC 5869 without a salt, one block
    return mac(mac(bytes(32), secret), info, b"\x01")


def ctr(key, iv, data):
    return openssl("enc", "-aes-256-ctr", "-K", key.hex(), "-iv", iv.hex(), data=data)


def agree(private, public):  # the two DER wrappings of RFC 8410
    with tempfile.NamedTemporaryFile() as key, tempfile.NamedTemporaryFile() as peer:
        key.write(bytes.fromhex("302e020100300506032b656e04220420") + private)
        peer.write(bytes.fromhex("302a300506032b656e032100") + public)
        key.flush(), peer.flush()
        return openssl("pkeyutl", "-derive", "-keyform", "DER", "-inkey", key.name,
                       "-peerform", "DER", "-peerkey", peer.name)


def times(a, b):  # GF(2^8) modulo 0x11d
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = (a << 1) ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return product


def over(a, b):
    return next(c for c in range(256) if times(c, b) == a)


def lagrange(values, at):
    total = 0
    for i, value in enumerate(values):
        above, below = value, 1
        for j in range(len(values)):
            if j != i:
                above, below = times(above, at ^ j), times(below, i ^ j)
        total ^= over(above, below)
    return total


S = bytes.fromhex("8f40c5adb68f25624ae5b214ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f")
G = bytes(range(0x20, 0x40))
c = bytes(range(0x40, 0x60))
psk = bytes(range(0x60, 0x80))
counter, base, span, voice = 1767225600, 16384, 32768, 1

# open tcp/22 for the source, 3756 s, single connection
payload = bytes([0x40, counter & 0xFF, 95, 0, 22, 0, 0, 1])
step = (counter >> 8).to_bytes(8, "big")
secret = agree(c, S) + psk
k_a, k_e, k_hint = (hkdf(secret, b"knockd-rs v1 seq " + name) for name in (b"mac", b"enc", b"hint"))
k_ports = hashlib.sha256(b"knockd-rs v1 seq ports" + S + G).digest()

tag = mac(k_a, b"seq", step, payload)[:8]
ct = ctr(k_e, tag + bytes(8), payload)
veil = mac(k_ports, b"veil", step, tag, ct)[:2]
hint = bytes(a ^ b for a, b in zip(mac(k_hint, b"hint", step)[:2], veil))
message = hint + tag + ct
lanes = bytes(lagrange(message, lane) for lane in range(28))

k_step = mac(k_ports, b"shuffle", step)
draws = ctr(k_step, bytes(16), bytes(8 * (span - 1)))
places = list(range(span))
for i in range(span - 1, 0, -1):
    at = 8 * (span - 1 - i)
    j = int.from_bytes(draws[at:at + 8], "big") % (i + 1)
    places[i], places[j] = places[j], places[i]
ports = [base + places[voice * 8192 + lane * 256 + byte] for lane, byte in enumerate(lanes)]

print(json.dumps({
    "what": "open tcp/22 for the source, 3756 s, single connection; voice 1; made by sequence-vector.py",
    "counter": counter,
    "K_a": k_a.hex(), "K_e": k_e.hex(), "K_hint": k_hint.hex(), "K_ports": k_ports.hex(), "K_step": k_step.hex(),
    "payload": payload.hex(), "tag": tag.hex(), "ct": ct.hex(), "hint": hint.hex(),
    "lanes": lanes.hex(), "ports": ports,
}, indent=2))
