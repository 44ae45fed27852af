#!/usr/bin/env python3
"""Computes bundle-vector.json without any code of knockd-rs: Python's hashes and base32, the reference program argon2
(apt-get install argon2) and the package cryptography for AES-256-GCM."""

import base64
import hashlib
import json
import subprocess

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SCHEME = b"knock:1:"


def line(body):
    whole = body + hashlib.sha256(SCHEME + body).digest()[:4]
    return SCHEME.decode() + base64.b32encode(whole).decode().rstrip("=").lower()


def text(word):
    return bytes([len(word)]) + word.encode()


def b64(key):
    return base64.b64encode(key).decode()


server = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")  # RFC 7748, section 6.1
gate, own, psk = (bytes([byte]) * 32 for byte in (2, 3, 4))
bundle = (
    bytes([1 | 2 | 4 | 8 | 16])
    + server + gate + own + psk
    + (62201).to_bytes(2, "big")
    + text("home") + text("vpn.example.org") + text("laptop")
    + bytes([1 | 4, 6])
    + bytes([2, 0]) + (22).to_bytes(2, "big") + bytes([3]) + (60000).to_bytes(2, "big") + (61000).to_bytes(2, "big")
    + bytes([1]) + text("web.v2") + bytes([1, 1]) + (80).to_bytes(2, "big") + (81).to_bytes(2, "big")
    + bytes([15])
    + bytes([3600 & 0x7F | 0x80, 3600 >> 7])
    + (20000).to_bytes(2, "big") + (8192).to_bytes(2, "big") + bytes([1]) + (25565).to_bytes(2, "big")
)
as_json = {
    "knockd-rs": 1, "server": "home", "host": "vpn.example.org", "port": 62201, "profile": "laptop",
    "server_key": b64(server), "gate_key": b64(gate), "private_key": b64(own), "psk": b64(psk),
    "open": ["tcp/22", "udp/60000-61000"], "services": {"web.v2": ["tcp/80-81"]}, "methods": ["spa", "sequence"],
    "totp_ports": 6, "duration": "15s", "max_duration": "1h",
    "sequence": {"base": 20000, "span": 8192, "excluded": ["tcp/25565"]},
}

passphrase, salt, cost = b"correct horse battery staple", b"sixteen of salt.", bytes([16, 3, 1])
key = subprocess.run(
    ["argon2", salt.decode(), "-id", "-m", str(cost[0]), "-t", str(cost[1]), "-p", str(cost[2]), "-l", "32", "-r"],
    input=passphrase, check=True, capture_output=True).stdout
header = SCHEME + bytes([1]) + cost + salt
sealed = AESGCM(bytes.fromhex(key.decode().strip())).encrypt(bytes(12), bundle, header)

print(json.dumps({
    "what": "one bundle as JSON, as a line, and as a line under a passphrase; computed by bundle-vector.py",
    "json": as_json,
    "line": line(bytes([0]) + bundle),
    "passphrase": passphrase.decode(),
    "protected": line(bytes([1]) + cost + salt + sealed),
}, indent=2))
