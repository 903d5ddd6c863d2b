"""Colour profiles (ICC) made by hand, of the colours that pictures of the tests are in."""

import struct


def profile(space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A colour profile (ICC.1:2001-04), of no more than these tags."""
    at = 132 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        value += b"\0" * (-len(value) % 4)
        table += name + struct.pack(">II", at + len(data), len(value))
        data += value
    illuminant = xyz(0.9642, 1, 0.8249)[8:]
    head = b"\0" * 4 + b"\x02\x10\0\0" + b"mntr" + space + connection + b"\0" * 12 + b"acsp" + b"\0" * 28 + illuminant
    return struct.pack(">I", at + len(data)) + head + b"\0" * (124 - len(head)) + table + data


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))


def gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * value))


RED, GREEN, BLUE = xyz(0.4361, 0.2225, 0.0139), xyz(0.3851, 0.7169, 0.0971), xyz(0.1431, 0.0606, 0.7139)  # of sRGB
WHITE = {b"wtpt": xyz(0.9642, 1, 0.8249)}
CURVES = {name: gamma(2.2) for name in (b"rTRC", b"gTRC", b"bTRC")}
SWAPPED = profile(b"RGB ", b"XYZ ", {b"rXYZ": BLUE, b"gXYZ": GREEN, b"bXYZ": RED, **WHITE, **CURVES})
LIGHTER = profile(b"GRAY", b"XYZ ", {b"kTRC": gamma(1.0), **WHITE})


def inks() -> bytes:
    """A profile of four inks of which the first is red and none of the others is seen."""
    nodes = b"".join(bytes([136, 208, 195]) if node >= 8 else bytes([255, 128, 128]) for node in range(16))  # Lab
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * (at % 4 == 0) for at in range(9)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + 4 * ramp + nodes + 3 * ramp
    return profile(b"CMYK", b"Lab ", {b"A2B0": table, **WHITE})
