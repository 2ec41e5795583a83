"""Data that can be made again at any offset, so that nothing has to be kept to verify it.

A piece of a stream is a seed, an offset and a length; a Content is a list of pieces: what a PUT wrote is one, what was put
together of parts or copied from ranges is several.
"""

import random

BLOCK_LEN = 64 << 10


class Stream:
    """An endless stream of bytes. Every block begins with its number and the stream's seed; the rest is the stream's own noise."""

    _noise = {}

    def __init__(self, seed):
        self.seed = seed

    def _rest(self):
        # A few variants of noise are enough: the blocks differ by their heads.
        variant = self.seed % 16
        if variant not in Stream._noise:
            Stream._noise[variant] = random.Random(f"noise {variant}").randbytes(BLOCK_LEN - 16)
        return Stream._noise[variant]

    def read(self, offset, length):
        """Exactly these bytes."""
        first, last = offset // BLOCK_LEN, (offset + length - 1) // BLOCK_LEN if length else offset // BLOCK_LEN
        rest = self._rest()
        blocks = b"".join(number.to_bytes(8, "big") + self.seed.to_bytes(8, "big") + rest for number in range(first, last + 1))
        begin = offset - first * BLOCK_LEN
        return blocks[begin:begin + length]


class Content:
    """What an object holds: pieces (seed, offset, length) one after the other."""

    def __init__(self, pieces):
        self.pieces = [piece for piece in pieces if piece[2] > 0]
        self.length = sum(length for _, _, length in self.pieces)

    @classmethod
    def new(cls, seed, length):
        return cls([(seed, 0, length)])

    @classmethod
    def joined(cls, contents):
        return cls([piece for content in contents for piece in content.pieces])

    def cut(self, offset, length):
        """A range of it."""
        pieces, at = [], 0
        for seed, begin, len_ in self.pieces:
            low, high = max(offset, at), min(offset + length, at + len_)
            if low < high:
                pieces.append((seed, begin + low - at, high - low))
            at += len_
        return Content(pieces)

    def read(self, offset=0, length=None):
        """Bytes of a range; up to the end if no length is given."""
        wanted = self.cut(offset, self.length - offset if length is None else length)
        return b"".join(Stream(seed).read(begin, len_) for seed, begin, len_ in wanted.pieces)

    def chunks(self, chunk_len=1 << 20):
        """The whole of it, in order, a chunk at a time."""
        for offset in range(0, self.length, chunk_len):
            yield self.read(offset, min(chunk_len, self.length - offset))

    def differs(self, body, chunk_len=1 << 20):
        """Reads a body to its end and compares as it goes. None if it is this content, else where it differs."""
        offset = 0
        while True:
            got = body.read(chunk_len)
            if not got:
                return None if offset == self.length else f"it ends after {offset} of {self.length} bytes"
            if got != self.read(offset, min(len(got), max(0, self.length - offset))):
                return f"it differs within {len(got)} bytes from {offset}"
            offset += len(got)


class ContentFile:
    """A Content as a file for boto3: read, seek, tell."""

    def __init__(self, content):
        self.content, self.at = content, 0

    def read(self, length=-1):
        left = self.content.length - self.at
        length = left if length is None or length < 0 else min(length, left)
        data = self.content.read(self.at, length) if length else b""
        self.at += len(data)
        return data

    def seek(self, offset, whence=0):
        self.at = offset + {0: 0, 1: self.at, 2: self.content.length}[whence]
        return self.at

    def tell(self):
        return self.at

    def seekable(self):
        return True

    def __len__(self):
        return self.content.length
