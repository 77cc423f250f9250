"""Sans-I/O codecs: bytes in, facts out. Nothing here opens a socket, reads a clock or awaits."""
