"""The ASGI app over the composed planes, and the foreign dialects that it speaks."""
