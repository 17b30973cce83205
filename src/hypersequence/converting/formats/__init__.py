"""Other formats, a module each. A module lists its ``FORMATS``; nothing else has to be told of it."""
