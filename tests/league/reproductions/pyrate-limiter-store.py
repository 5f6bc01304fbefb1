import redis
from pyrate_limiter import Duration, Limiter, Rate, RedisBucket

client = redis.Redis()
limiter = Limiter(RedisBucket.init([Rate(5, Duration.SECOND)], client, "alice"))
print(limiter.try_acquire("alice", blocking=False))
client.script_flush()  # as a restart of the server does
print(limiter.try_acquire("alice", blocking=False))
