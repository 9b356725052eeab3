#!/usr/bin/env python3
"""Writes prepared.json: prepared sets, computed from the RFCs alone (9380, 9496, 9497) and BLAKE3.

Slow and not in constant time: for vectors only.
"""

import hashlib
import json
import pathlib
import struct

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
I = pow(2, (P - 1) // 4, P)


def odd(x):
    return x % P & 1


def root(u, v):
    """SQRT_RATIO_M1 of RFC 9496, section 4.2."""
    r = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    check = v * r * r % P
    square = check == u % P
    if check == -u % P or check == -u * I % P:
        square = square or check == -u % P
        r = r * I % P
    return square, P - r if odd(r) else r


ONE_MINUS_D_SQ = (1 - D * D) % P
D_MINUS_ONE_SQ = (D - 1) ** 2 % P
# The negative root.
SQRT_AD_MINUS_ONE = P - root(-D - 1, 1)[1]
INVSQRT_A_MINUS_D = root(1, -1 - D)[1]


def add(a, b):
    """In affine coordinates of the curve -x^2 + y^2 = 1 + d x^2 y^2."""
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + y1 * x2) * pow(1 + k, -1, P) % P
    y = (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P
    return x, y


def multiply(scalar, point):
    result = (0, 1)
    for bit in bin(scalar)[2:]:
        result = add(result, result)
        if bit == "1":
            result = add(result, point)
    return result


def mapped(bytes_):
    """MAP of RFC 9496, section 4.3.4."""
    t = int.from_bytes(bytes_, "little") % 2**255 % P
    r = I * t * t % P
    u = (r + 1) * ONE_MINUS_D_SQ % P
    v = (-1 - r * D) * (r + D) % P
    square, s = root(u, v)
    c = -1
    if not square:
        s = s * t % P
        s = s if odd(s) else -s % P
        c = r
    n = (c * (r - 1) * D_MINUS_ONE_SQ - v) % P
    w0, w1 = 2 * s * v % P, n * SQRT_AD_MINUS_ONE % P
    w2, w3 = (1 - s * s) % P, (1 + s * s) % P
    return w0 * pow(w1, -1, P) % P, w2 * pow(w3, -1, P) % P


def encoded(point):
    """Encode of RFC 9496, section 4.3.2, with z = 1."""
    x0, y0 = point
    t0 = x0 * y0 % P
    u1 = (1 + y0) * (1 - y0) % P
    u2 = x0 * y0 % P
    _, inverse = root(1, u1 * u2 * u2 % P)
    den1, den2 = inverse * u1 % P, inverse * u2 % P
    z_inverse = den1 * den2 * t0 % P
    x, y, den = x0, y0, den2
    if odd(t0 * z_inverse):
        x, y, den = y0 * I % P, x0 * I % P, den1 * INVSQRT_A_MINUS_D % P
    if odd(x * z_inverse):
        y = -y % P
    s = den * (1 - y) % P
    s = -s % P if odd(s) else s
    return s.to_bytes(32, "little")


def expand(message, domain):
    """expand_message_xmd of RFC 9380 with SHA-512, 64 bytes."""
    domain += bytes([len(domain)])
    start = hashlib.sha512(bytes(128) + message + b"\x00\x40\x00" + domain).digest()
    return hashlib.sha512(start + b"\x01" + domain).digest()


def evaluate(key, mode, value):
    """Evaluate of RFC 9497, section 3.3.1."""
    domain = b"HashToGroup-OPRFV1-" + bytes([mode]) + b"-ristretto255-SHA512"
    uniform = expand(value, domain)
    point = add(mapped(uniform[:32]), mapped(uniform[32:]))
    element = encoded(multiply(key, point))
    framed = struct.pack(">H", len(value)) + value + struct.pack(">H", 32) + element
    return hashlib.sha512(framed + b"Finalize").digest()


IV = [
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
]
ORDER_OF_WORDS = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]


def compress(chaining, block, length, flags):
    state = chaining + IV[:4] + [0, 0, length, flags]

    def turn(x, by):
        return (x >> by | x << (32 - by)) & 0xFFFFFFFF

    def mix(a, b, c, d, m, n):
        for word, by_d, by_b in ((m, 16, 12), (n, 8, 7)):
            state[a] = (state[a] + state[b] + word) & 0xFFFFFFFF
            state[d] = turn(state[d] ^ state[a], by_d)
            state[c] = (state[c] + state[d]) & 0xFFFFFFFF
            state[b] = turn(state[b] ^ state[c], by_b)

    words = list(block)
    for _ in range(7):
        for at in range(4):
            mix(at, 4 + at, 8 + at, 12 + at, words[2 * at], words[2 * at + 1])
        for at in range(4):
            diagonal = (at, 4 + (at + 1) % 4, 8 + (at + 2) % 4, 12 + (at + 3) % 4)
            mix(*diagonal, words[8 + 2 * at], words[9 + 2 * at])
        words = [words[at] for at in ORDER_OF_WORDS]
    return [state[at] ^ state[at + 8] for at in range(8)]


def blake3(key, flags, message):
    """Of a single chunk, so of at most 1024 bytes."""
    assert len(message) <= 1024
    blocks = [message[at : at + 64] for at in range(0, len(message), 64)] or [b""]
    chaining = key
    for at, block in enumerate(blocks):
        of_block = flags | (1 if at == 0 else 0) | (2 | 8 if at == len(blocks) - 1 else 0)
        words = struct.unpack("<16I", block.ljust(64, b"\0"))
        chaining = compress(chaining, words, len(block), of_block)
    return chaining


def derive_key(context, material):
    return struct.pack("<8I", *blake3(blake3(IV, 32, context), 64, material))


def prepared(key, mode, questions, items):
    def bits(size):
        return (max(size, 1) - 1).bit_length()

    length = -(-(40 + bits(questions) + bits(len(items))) // 8)
    tags = b"".join(sorted(evaluate(key, mode, item)[:length] for item in items))
    base = (
        15112221349535400772501151409588531511454012693041857206046113283949847762202,
        4 * pow(5, -1, P) % P,
    )
    header = b"psi-tags\x01\x01" + bytes([mode]) + struct.pack("<QQ", len(items), questions)
    header += encoded(multiply(key, base)) + derive_key(b"convelo prepared set tags", tags)
    return header + tags


def main():
    here = pathlib.Path(__file__).parent
    items = [bytes([number] * 16) for number in range(4)] + [bytes(range(16))]
    vectors = []
    for suite in json.loads((here / "rfc9497.json").read_text()):
        mode, questions = suite["mode"], [1000, 2**28][suite["mode"]]
        key = int.from_bytes(bytes.fromhex(suite["skSm"]), "little")
        # The implementation above gives the RFC's outputs.
        for vector in suite["vectors"]:
            pairs = zip(vector["Input"].split(","), vector["Output"].split(","))
            for value, output in pairs:
                assert evaluate(key, mode, bytes.fromhex(value)).hex() == output
        vectors.append(
            {
                "secret": suite["skSm"],
                "mode": mode,
                "questions": questions,
                "items": [item.hex() for item in items],
                "set": prepared(key, mode, questions, items).hex(),
            }
        )
    (here / "prepared.json").write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
