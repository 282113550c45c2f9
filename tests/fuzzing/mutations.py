"""Damage: of any bytes, of JSON headers, and checksums made right again so that it gets through."""

import copy
import json
import struct
import zlib

NUMBERS = [0, 1, 2, 3, 4, 7, 8, 16, 63, 64, 65, 127, 255, 256, 1000, 65535, 65536, 2**20, 2**31 - 1,
           2**31, 2**32 - 1, 2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1]  # fmt: skip


def flip(rng, content, others):
    at = rng.randrange(len(content) * 8)
    content[at // 8] ^= 1 << at % 8


def set_byte(rng, content, others):
    content[rng.randrange(len(content))] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])


def set_number(rng, content, others):
    form = rng.choice(["<H", "<I", "<Q"])
    size = struct.calcsize(form)
    if len(content) > size:
        number = rng.choice(NUMBERS) & ((1 << 8 * size) - 1)
        struct.pack_into(form, content, rng.randrange(len(content) - size), number)


def truncate(rng, content, others):
    del content[rng.randrange(1, len(content) + 1) :]


def remove(rng, content, others):
    at = rng.randrange(len(content))
    del content[at : at + rng.randrange(1, 20)]


def insert(rng, content, others):
    at = rng.randrange(len(content) + 1)
    content[at:at] = rng.randbytes(rng.randrange(1, 20))


def repeat(rng, content, others):
    at, size = rng.randrange(len(content)), rng.randrange(1, 60)
    content[at:at] = content[at : at + size]


def splice(rng, content, others):
    other = rng.choice(others)
    at, size = rng.randrange(len(other)), rng.randrange(1, 80)
    place = rng.randrange(len(content))
    content[place : place + size] = other[at : at + size]


BYTES = [flip, set_byte, set_number, truncate, remove, insert, repeat, splice]


def damaged(rng, content, others, kinds=None):
    """Return `content` with one to four mutations; count them in `kinds`."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        mutation = rng.choice(BYTES)
        if content:
            mutation(rng, content, others)
        if kinds is not None:
            kinds[mutation.__name__] = kinds.get(mutation.__name__, 0) + 1
    return bytes(content)


def sealed(content):
    """Return a container with every checksum right that can be found."""
    content = bytearray(content)
    if len(content) < 48:
        return bytes(content)
    (length,) = struct.unpack_from("<I", content, 12)
    if not 48 <= length <= len(content) - 56:
        return bytes(content)
    seal(content, 0, length - 4)
    (stages,) = struct.unpack_from("<I", content, 32)
    for slot in (length, length + 28):
        generation, offset, size = struct.unpack_from("<QQQ", content, slot)
        seal(content, slot, 24)
        if generation and 16 <= size <= len(content) - offset:
            _seal_index(content, offset, size, stages)
    return bytes(content)


def _seal_index(content, offset, size, stages):
    for entry in range(offset + 12, offset + size - 19, 16):
        chunk, _ = struct.unpack_from("<QQ", content, entry)
        head = 16 + 9 * stages
        if stages > 64 or chunk + head > len(content):
            continue
        place = chunk + head
        for stage in range(stages):
            at = chunk + 16 + 9 * stage
            (count,) = struct.unpack_from("<I", content, at + 1)
            struct.pack_into("<I", content, at + 5, zlib.crc32(content[place : place + count]))
            place += count
        struct.pack_into("<I", content, chunk + 4, zlib.crc32(content[chunk + 8 : chunk + head]))
    seal(content, offset, size - 4)


def seal(content, start, size):
    """Write the CRC-32 of `size` bytes from `start` on behind them."""
    struct.pack_into("<I", content, start + size, zlib.crc32(content[start : start + size]))


def rewritten(rng, content):
    """Return a safetensors file with something in its JSON changed, its length right."""
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    for _ in range(rng.choice([1, 1, 2, 3])):
        _change(rng, header)
    metadata = header.get("__metadata__")
    if isinstance(metadata, dict) and "rvq_np" in metadata and rng.random() < 0.6:
        try:
            plan = json.loads(metadata["rvq_np"])
            _change(rng, plan)
            metadata["rvq_np"] = json.dumps(plan)
        except (ValueError, TypeError):
            pass
    reported = json.dumps(header).encode()
    return struct.pack("<Q", len(reported)) + reported + content[8 + length :]


def altered(rng, content):
    """Return JSON with something changed, or bytes that may be no JSON."""
    if rng.random() < 0.3:
        return damaged(rng, content, [content])
    tree = json.loads(content)
    _change(rng, tree)
    if rng.random() < 0.5:
        tree[rng.choice(["vq_strides", "use_cosine_sim", "groups", "model_type"])] = rng.choice(
            [*NUMBERS, -1, 0.5, None, True, "", [], {}, [4, 2, 1], [0, 1, 1], [2**40] * 3, ["a"]]
        )
    return json.dumps(tree).encode()


def _change(rng, tree):
    """Change one thing somewhere in nested lists and dictionaries."""
    places = list(_places(tree))
    if not places:
        return
    holder, key = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        holder[key] = rng.choice([*NUMBERS, -1, 0.5, None, True, "", "F32", "F64", "BOOL", [], {}])
    elif kind == 2:
        other, place = rng.choice(places)
        holder[key] = copy.deepcopy(other.get(place) if isinstance(other, dict) else None)
    elif kind == 3 and isinstance(holder, dict):
        holder[rng.choice(["words", "maps", "levels", "parallel", "x", str(key) + "0"])] = (
            holder.pop(key)
        )
    elif kind == 4 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif isinstance(holder[key], int):
        holder[key] += rng.choice([-8, -4, -1, 1, 4, 8])


def _places(tree):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield tree, key
        if isinstance(value, (dict, list)):
            yield from _places(value)
