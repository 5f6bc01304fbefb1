from django.conf import settings

settings.configure(RATELIMIT_BACKEND="memory")
from django_smart_ratelimit.backends.memory import MemoryBackend

backend = MemoryBackend()
print("requests counted in an hour:", [backend.incr("alice", 3600) for _ in range(4)])
for number in range(20_000):
    backend.incr(f"client {number}", 3600)
print("after 20,000 other clients:", backend.incr("alice", 3600))
