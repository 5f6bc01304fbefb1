import time

from fluxrate import LeakyBucket

bucket = LeakyBucket(0.2, 1)
bucket.allow(), time.sleep(3)
wait, start = bucket.retry_after(), time.monotonic()
while not bucket.allow():
    time.sleep(0.01)
print(f"announced after 3 s: {wait:.2f} s; needed: {time.monotonic() - start:.2f} s")
