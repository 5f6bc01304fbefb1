"""A limiter in front of HTTP: the middleware, and the service that shows it."""
