"""Closed loops: clients that react to their answers, and a server with a capacity behind the limiter."""
