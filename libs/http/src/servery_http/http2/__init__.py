"""HTTP/2 connections, either side of them: frames, header blocks, flow control."""
