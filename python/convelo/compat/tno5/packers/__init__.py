"""Packing of messages for the 5.0 API."""

from convelo.compat.tno5.packers.packer import DefaultPacker as DefaultPacker
from convelo.compat.tno5.packers.packer import Packer as Packer
from convelo.compat.tno5.packers.serialization import (
    DefaultDeserializerOpts as DefaultDeserializerOpts,
)
from convelo.compat.tno5.packers.serialization import (
    DefaultSerializerOpts as DefaultSerializerOpts,
)
from convelo.compat.tno5.packers.serialization import DeserializerOpts as DeserializerOpts
from convelo.compat.tno5.packers.serialization import Serializer as Serializer
from convelo.compat.tno5.packers.serialization import SerializerOpts as SerializerOpts
