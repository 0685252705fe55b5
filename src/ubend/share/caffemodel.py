"""Arrays out of a .caffemodel file: the protocol-buffer message NetParameter of Caffe, of which few fields are needed.

A message is a row of fields, each a key (number of the field · 8 + type) and a value. Types are 0: an integer of 7 bits
a byte, 1 and 5: 8 and 4 bytes, 2: a length and so many bytes, which may be a message again. That is all there is to
read: Caffe, its protocol definition and a compiler for it are not needed, and nothing of the file is run.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ubend.errors import ModelFileError

LAYER, OLD_LAYER = 100, 2
"""Fields of NetParameter."""
NAME, BLOBS = 1, 7
"""Fields of LayerParameter."""
OLD_SHAPE, DATA, SHAPE = (1, 2, 3, 4), 5, 7
"""Fields of BlobProto; SHAPE is a message with the field 1."""


def arrays_of_caffemodel(content: bytes) -> dict[str, NDArray[np.float32]]:
    """Read the arrays of all layers.

    Parameters
    ----------
    content : bytes
        Of the file.

    Returns
    -------
    dict of str to ndarray of float32
        By "LAYER/0" (weights) and "LAYER/1" (biases), as in Caffe's HDF5 files.

    Raises
    ------
    ModelFileError
        If that is no such message, or one of before 2014.

    Examples
    --------
    A layer "a" with one array of the shape (2,):

    >>> blob = bytes([5 << 3 | 2, 8]) + np.float32([1, 2]).tobytes() + bytes([7 << 3 | 2, 3, 1 << 3 | 2, 1, 2])
    >>> layer = bytes([1 << 3 | 2, 1]) + b"a" + bytes([7 << 3 | 2, len(blob)]) + blob
    >>> arrays_of_caffemodel(bytes([0xA2, 0x06, len(layer)]) + layer)
    {'a/0': array([1., 2.], dtype=float32)}
    """
    arrays: dict[str, NDArray[np.float32]] = {}
    try:
        fields = list(_fields(memoryview(content)))
        for number, value in fields:
            if number == LAYER and isinstance(value, memoryview):
                arrays.update(_arrays_of_layer(value))
    except (IndexError, ValueError) as error:
        raise ModelFileError(f"this is no .caffemodel, or a damaged one: {error}") from None
    if not arrays:
        old = any(number == OLD_LAYER for number, _ in fields)
        raise ModelFileError(
            "the .caffemodel is of the form of before 2014: upgrade it with Caffe's upgrade_net_proto_binary"
            if old
            else "this is no .caffemodel, or one without weights"
        )
    return arrays


def _arrays_of_layer(message: memoryview) -> Iterator[tuple[str, NDArray[np.float32]]]:
    fields = [(number, value) for number, value in _fields(message) if isinstance(value, memoryview)]
    name = next((bytes(value).decode() for number, value in fields if number == NAME), "")
    blobs = [value for number, value in fields if number == BLOBS]
    for index, blob in enumerate(blobs):
        yield f"{name}/{index}", _array(blob)


def _array(blob: memoryview) -> NDArray[np.float32]:
    old, shape, parts = dict.fromkeys(OLD_SHAPE, 1), None, []
    for number, value in _fields(blob):
        if number == DATA and isinstance(value, memoryview):
            parts.append(np.frombuffer(value, "<f4"))
        elif number == SHAPE and isinstance(value, memoryview):
            shape = [size for field, sizes in _fields(value) if field == 1 for size in _integers(sizes)]
        elif number in OLD_SHAPE and isinstance(value, int):
            old[number] = value
    data = np.concatenate(parts) if parts else np.empty(0, np.float32)
    return data.reshape(list(old.values()) if shape is None else shape)


def _integers(value: memoryview | int) -> Iterator[int]:
    """Read integers that stand alone or packed."""
    if isinstance(value, int):
        yield value
        return
    place = 0
    while place < len(value):
        number, place = _integer(value, place)
        yield number


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    place = 0
    while place < len(message):
        key, place = _integer(message, place)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, place = _integer(message, place)
            yield number, value
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f"a field of the type {kind}")
        length, place = _integer(message, place) if kind == 2 else ({1: 8, 5: 4}[kind], place)
        if place + length > len(message):
            raise ValueError("it ends too early")
        yield number, message[place : place + length]
        place += length


def _integer(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
