"""The front that passes requests by: to one server behind it, both ways as bytes come, without ASGI and without tasks."""
