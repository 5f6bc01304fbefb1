"""TokenBucket of kombu, the rate limit of Celery's tasks; one for each key."""

from adapting import bounded, bucket_bound, per_key
from kombu.utils.limits import TokenBucket


@bounded(bucket_bound)
def token_bucket(limit, period, burst):
    bucket_of = per_key(lambda key: TokenBucket(limit / period, burst))

    def hit(key):
        bucket = bucket_of(key)
        if bucket.can_consume():
            return True, None
        return False, bucket.expected_time()

    return hit
