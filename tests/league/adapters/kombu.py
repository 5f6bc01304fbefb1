"""TokenBucket of kombu, the rate limit of Celery's tasks; one for each key."""

from adapting import bounded, bucket_bound, per_key
from kombu.utils.limits import TokenBucket


@bounded(bucket_bound)
def token_bucket(limit, period, burst):
    bucket_of = per_key(lambda: TokenBucket(limit / period, burst))

    def hit(key, cost=1):
        bucket = bucket_of(key)
        if bucket.can_consume(cost):
            return True, None
        return False, bucket.expected_time(cost)

    return hit
