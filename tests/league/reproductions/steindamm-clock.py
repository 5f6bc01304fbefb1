import time

from steindamm import SyncTokenBucket

bucket = SyncTokenBucket.create(name="alice", capacity=1, refill_frequency=2, max_sleep=10)
with bucket:
    real, time.time = time.time, lambda: real() - 3600  # the clock is set back by an hour
time.sleep(5)
with bucket:  # one token every 2 s
    print("admitted after 5 s")
