"""Text formats by name: the patterns of their lines, in the syntax that RE2 and Python share."""

from __future__ import annotations

from ratelab.lab.traces.patterns import Shape, TextFormat

_QUOTED = r'[^"\\]*(?:\\.[^"\\]*)*'
_PORT = "(?::[0-9]{1,5})?"
ADDRESS = (
    rf"(?:\[[0-9A-Fa-f:.]+(?:%[0-9A-Za-z._-]+)?\]{_PORT}"
    rf"|[0-9A-Fa-f]*(?:\.[0-9.]+{_PORT}|:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%[0-9A-Za-z._-]+)?))"
)
"""An IPv4 or IPv6 address, roughly. RE2 is fast only if each character decides how a pattern goes on."""

_HOST = rf'[^ \t,:"\[\]]+{_PORT}'
_CLIENT = rf"(?:{ADDRESS}|{_HOST})"
_HOP = f"(?:{ADDRESS}|unknown|-)"
_FORWARDED = f"{_HOP}(?:, ?{_HOP})*"
_LIST = f"{ADDRESS}(?:, ?{_HOP})*"
_USER = r'[^ "\[]+'
DATE_TIME = (
    r"(?:[0-9]{2}/[A-Za-z]{3}/[0-9]{4}[: ][0-9:.]+(?: ?[+-][0-9]{2}:?[0-9]{2})?"
    r"|[0-9]{4}[-/][0-9]{2}[-/][0-9]{2}[T ][0-9:.,]+ ?(?:Z|UTC|[+-][0-9:]+)?)"
)

# --- access logs: common, combined, and with more fields in front or at the end

_REQUESTED = rf'"(?P<request>{_QUOTED})" (?P<status>[0-9]{{3}}|-) (?P<bytes>[0-9]+|-)'
_TIMED = rf'\[(?P<time>[^\]"]+)\] ?{_REQUESTED}'
_AGENT = rf'(?: "(?P<referer>{_QUOTED})" "(?P<agent>{_QUOTED})")?'
_LAST = rf'(?:(?: (?:"{_QUOTED}"|[^" \t\r\n]+))*? "(?P<forwarded>{_LIST})")?'


_LAST_HOP = (  # each has at least `MIN_ADDRESS_CHARS`
    rf"(?:[0-9]{{1,3}}(?:\.[0-9]{{1,3}}){{3}}{_PORT}|[0-9A-Fa-f]{{4}}:[0-9A-Fa-f:.]*:[0-9A-Fa-f.]+"
    rf"|\[[0-9A-Fa-f:.]{{5,}}\]{_PORT})"
)
_FORWARDED_END = (
    r'(?:" "[^"]*"|" (?:[0-9]{3}|-) (?:[0-9]+|-))(?: [^" \t\r\n]+)* '
    rf'"(?:{_HOP}, ?)*{_LAST_HOP}"\r?\n?$'
)
_END_NOTE = "some lines end with the address of a forwarded client: --key forwarded reads it instead of the peer"
_HEAD_NOTE = "some lines begin with two addresses: the second is the client (--key forwarded: the first)"


def _start(head: str, *, timed: str = _TIMED) -> Shape:
    """Return the shape of lines with these fields before the time."""
    if "<forwarded>" in head:
        return Shape(f"{head}{timed}", _AGENT, _HEAD_NOTE if "<ip>" in head else "")
    return Shape(f"{head}{timed}", _AGENT + _LAST)


_EXACT_TIMED = rf"\[(?P<time>{DATE_TIME})\] ?{_REQUESTED}"
_ACCESS_LOG = (
    # Nearly all lines: an IPv4 address or host name, or a virtual host in front of the address.
    _start(rf"(?P<ip>[!#-+.-9;-Z\\^-~-]+) - (?P<user>{_USER}) ?"),
    _start(rf"(?P<host>[A-Za-z_*]{_HOST}) (?P<ip>{ADDRESS}) - (?P<user>{_USER}) ?"),
    _start(rf"(?P<ip>{ADDRESS}) - (?P<user>{_USER}) ?"),
    # Two addresses, then ident and user, or one of them.
    _start(rf'"?(?P<forwarded>{_FORWARDED})"? (?P<ip>{ADDRESS}) - (?P<user>{_USER}) ?'),
    _start(rf'"?(?P<forwarded>{_FORWARDED})"? (?P<ip>{ADDRESS}) (?:(?P<user>{_USER}) )?'),
    # Any other host in front of the address or after it.
    _start(rf"(?P<host>{_HOST}) (?P<ip>{ADDRESS}) - (?P<user>{_USER}) ?"),
    _start(rf"(?P<ip>{ADDRESS}) (?P<host>{_HOST}) - (?P<user>{_USER}) ?"),
    _start(rf"(?P<host>{_HOST}) (?P<ip>{ADDRESS}) (?:(?P<user>{_USER}) )?"),
    # Forwarded addresses instead of the address of the peer.
    _start(rf'"?(?P<forwarded>{_LIST})"? - (?P<user>{_USER}) ?'),
    # Without ident or user, with an ident, or with a port.
    _start(rf"(?P<ip>{_CLIENT}) (?:(?P<user>{_USER}) )?"),
    _start(rf"(?P<ip>{_CLIENT}) [^ ]+ (?P<user>{_USER}) ?"),
    # A user name may contain blanks only if the ident is missing, or the two would be ambiguous.
    _start(rf"(?P<ip>{_CLIENT}) - (?P<user>.*?) ", timed=_EXACT_TIMED),
    _start(rf"(?P<host>{_HOST}) (?P<ip>{ADDRESS}) - (?P<user>.*?) ", timed=_EXACT_TIMED),
)  # fmt: skip


_COMMON_SAMPLE = '{ip} - {user} [{log_time}] "{method} {url} HTTP/1.1" {status} {size}'
_COMBINED_SAMPLE = f'{_COMMON_SAMPLE} "{{referer}}" "{{agent}}"'


def _create_access_log(
    name: str,
    title: str,
    sample: str,
    tail: str | None = None,
    head: str = rf"(?:{_CLIENT}) - {_USER} ",
    shapes: tuple[Shape, ...] = _ACCESS_LOG,
) -> TextFormat:
    """Return a format whose lines are read like those of any access log, and recognized by their `head` and `tail`."""
    detector = "" if tail is None else f"{head}{_TIMED}{tail}[\r\n]*$"
    return TextFormat(
        name,
        title,
        shapes,
        sample,
        detector,
        expected='a log line must begin HOST IDENT USER [TIME] "REQUEST" STATUS SIZE',
        forwarded_end=(_FORWARDED_END, _END_NOTE),
    )


_BLANK_TIME = r"\[[0-9]{2}/[A-Za-z]{3}/[0-9]{4} "
_COMBINED = rf' "{_QUOTED}" "{_QUOTED}"'
_ACCESS_LOGS = (
    _create_access_log("combined", "Apache and nginx, combined", _COMBINED_SAMPLE, _COMBINED),
    _create_access_log("common", "Apache, common", _COMMON_SAMPLE, "", rf"{_CLIENT} - {_USER} (?!{_BLANK_TIME})"),
    _create_access_log(
        "vhost_combined",
        "Apache, combined after the virtual host",
        f"shop.example:443 {_COMBINED_SAMPLE}",
        _COMBINED,
        rf"(?!{ADDRESS} ){_HOST} {ADDRESS} - {_USER} ",
        (_ACCESS_LOG[1], _ACCESS_LOG[0], *_ACCESS_LOG[2:]),  # no line has both of these shapes
    ),
    _create_access_log(
        "nginx-main",
        "nginx, main: combined before the forwarded addresses",
        f'{_COMBINED_SAMPLE} "-"',
        rf'{_COMBINED} "{_FORWARDED}"',
    ),
    _create_access_log(
        "ingress-nginx",
        "ingress-nginx, the ingress controller of Kubernetes",
        f"{_COMBINED_SAMPLE} 215 0.012 [default-shop-80] [] 10.0.0.9:8080 {{size}} 0.012 {{status}} {{id}}",
        rf"{_COMBINED} [0-9]+ [0-9.]+ \[[^\]]*\](?: \[[^\]]*\])?.*",
    ),
    _create_access_log(
        "kong", "Kong gateway", f'{_COMBINED_SAMPLE} kong_request_id: "{{id}}"', rf"{_COMBINED} kong_request_id: .*"
    ),
    _create_access_log(
        "traefik",
        "Traefik, common log format",
        f'{_COMBINED_SAMPLE} 17 "shop@docker" "http://10.0.0.9:80" 12ms',
        rf'{_COMBINED} [0-9]+ "[^"]*" "[^"]*" [0-9]+ms',
    ),
    _create_access_log(
        "werkzeug",
        "Flask's development server, and http.server of Python",
        '{ip} - - [{local_time}] "{method} {url} HTTP/1.1" {status} -',
        "",
        rf"{_CLIENT} - - (?={_BLANK_TIME})",
    ),
    _create_access_log("gunicorn", "gunicorn: combined", _COMBINED_SAMPLE, "(?!)"),
    _create_access_log(
        "log", "other access logs: more fields or fewer than combined, in front or at the end", _COMBINED_SAMPLE
    ),
)


# --- proxies, load balancers and stores

_ISO = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(?:Z|[+-][0-9:]+)"
_NONBLANK = r"[^ \t\r\n]+"
_AMOUNT = r"(?:-1|-|[0-9]+(?:\.[0-9]+)?)"
_AWS_REQUEST = rf'(?: "(?P<request>{_QUOTED})" "(?P<agent>{_QUOTED})")?'

_ENVOY_START = (
    rf'\[(?P<time>{_ISO})\] "(?P<method>[^ "]+) (?P<path>[^ "]*) [^"]*" (?P<status>[0-9]{{1,3}}) [^ ]+ '
)  # fmt: skip
_ENVOY_AMOUNTS = rf"{_AMOUNT} (?P<bytes>{_AMOUNT}) {_AMOUNT} {_AMOUNT}"
_ENVOY_END = rf'"(?P<forwarded>[^"]*)" "(?P<agent>{_QUOTED})" "[^"]*" "(?P<host>[^"]*)" "[^"]*"'


def _create_heroku_shape(head: str) -> Shape:
    """Return the shape of lines with this pattern before the time."""
    return Shape(
        rf"{head}(?P<time>{_ISO}) h(?:ost h)?eroku(?:\[router\]:| router -) at=[^ ]+ "
        rf'(?:code=[^ ]+ )?(?:desc="[^"]*" )?method=(?P<method>[^ ]+) path="(?P<path>[^"]*)" '
        rf'host=(?P<host>[^ ]+) (?:request_id=[^ ]+ )?fwd="(?P<forwarded>[^"]*)"',
        rf"(?: dyno=[^ ]* (?:{_NONBLANK} )*?status=(?P<status>[0-9]+)(?: bytes=(?P<bytes>[0-9]+))?)?",
    )


TEXT_FORMATS = (
    *_ACCESS_LOGS,
    TextFormat(
        "istio",
        "Istio and Envoy with the long default format",
        (
            Shape(
                rf'{_ENVOY_START}[^ ]+ [^ ]+ "[^"]*" {_ENVOY_AMOUNTS} {_ENVOY_END}'
                rf" [^ ]+ [^ ]+ [^ ]+ (?P<ip>{_NONBLANK})"
            ),
        ),
        '[{iso_time}] "{method} {url} HTTP/1.1" {status} - via_upstream - "-" 0 {size} 12 11 "{ip}" "{agent}" "{id}" '
        '"shop.example" "10.0.0.9:8080" outbound|80||shop.default.svc 10.0.0.5:41234 10.0.0.5:8443 10.0.0.4:50000 '
        "- default",
        default_key="forwarded",
        expected="it is not a line of the default format of Istio",
    ),
    TextFormat(
        "envoy",
        "Envoy, default format",
        (Shape(rf"{_ENVOY_START}{_ENVOY_AMOUNTS} {_ENVOY_END}"),),
        '[{iso_time}] "{method} {url} HTTP/1.1" {status} - 0 {size} 12 11 "{ip}" "{agent}" "{id}" "shop.example" '
        '"10.0.0.9:8080"',
        default_key="forwarded",
        expected="it is not a line of the default format of Envoy",
    ),
    TextFormat(
        "haproxy",
        "HAProxy, option httplog",
        (
            Shape(
                rf"(?P<ip>{ADDRESS}) \[(?P<time>[^\]]+)\] [^ ]+ [^ ]+ [0-9+/-]+ (?P<status>[0-9]{{3}}|-1) "
                r"(?P<bytes>[0-9+]+) [^ ]+ [^ ]+ [^ ]{4} [0-9+/]+ [0-9+/]+",
                rf'(?:(?: \{{[^}}]*\}}){{0,2}} "(?P<request>{_QUOTED})")?',
            ),
        ),
        "{ip}:40000 [{log_time_ms}] web~ shop/s1 0/0/0/12/12 {status} {size} - - ---- 5/4/0/1/0 0/0 "
        '"{method} {url} HTTP/1.1"',
        expected="it is not a line of option httplog",
    ),
    TextFormat(
        "aws-alb",
        "AWS Application Load Balancer",
        (
            Shape(
                rf"(?:https?|h2|wss?|grpcs?) (?P<time>{_ISO}) [^ ]+ (?P<ip>[^ ]+) [^ ]+ {_AMOUNT} {_AMOUNT} {_AMOUNT} "
                rf"(?P<status>[0-9]+|-) [^ ]+ {_AMOUNT} (?P<bytes>{_AMOUNT})",
                _AWS_REQUEST,
            ),
        ),
        "https {iso_time} app/shop/1 {ip}:40000 10.0.0.9:80 0.000 0.012 0.000 {status} {status} 215 {size} "
        '"{method} https://shop.example:443{url} HTTP/1.1" "{agent}" ECDHE-RSA-AES128-GCM-SHA256 TLSv1.2 '
        'arn:aws:elasticloadbalancing:eu-central-1:1:targetgroup/shop/1 "Root=1-{id}" "shop.example" "-" 0 '
        '{iso_time} "forward" "-" "-" "10.0.0.9:80" "{status}" "-" "-"',
        expected="it is not a line of an Application Load Balancer",
    ),
    TextFormat(
        "aws-elb",
        "AWS Classic Load Balancer",
        (
            Shape(
                rf"(?P<time>{_ISO}) [^ ]+ (?P<ip>{ADDRESS}) [^ ]+ {_AMOUNT} {_AMOUNT} {_AMOUNT} (?P<status>[0-9]+|-) "
                rf"[^ ]+ {_AMOUNT} (?P<bytes>{_AMOUNT})",
                _AWS_REQUEST,
            ),
        ),
        "{iso_time} shop {ip}:40000 10.0.0.9:80 0.000073 0.001048 0.000057 {status} {status} 0 {size} "
        '"{method} http://shop.example:80{url} HTTP/1.1" "{agent}" - -',
        expected="it is not a line of a Classic Load Balancer",
    ),
    TextFormat(
        "aws-s3",
        "AWS S3 server access log",
        (
            Shape(
                rf"[0-9a-f-]+ [^ ]+ \[(?P<time>[^\]]+)\] (?P<ip>[^ ]+) (?P<user>[^ ]+) [^ ]+ [A-Z0-9_.]+ [^ ]+ "
                rf'(?:"(?P<request>{_QUOTED})"|-) (?P<status>[0-9]{{3}}|-) [^ ]+ (?P<bytes>[^ ]+) [^ ]+ [^ ]+ '
                rf"{_NONBLANK}",
                rf'(?: (?:"(?P<referer>{_QUOTED})"|-) (?:"(?P<agent>{_QUOTED})"|-))?',
            ),
        ),
        "79a59df900b949e55d96a1e698fbaced shop [{log_time}] {ip} - {id} REST.GET.OBJECT item "
        '"{method} {url} HTTP/1.1" {status} - {size} {size} 12 11 "{referer}" "{agent}" -',
        expected="it is not a line of an S3 server access log",
    ),
    TextFormat(
        "squid",
        "Squid, native format",
        (
            Shape(
                r"(?P<time>[0-9]{9,10}\.[0-9]{3}) +-?[0-9]+ (?P<ip>[^ ]+) [A-Z_]+/(?P<status>[0-9]{3}) "
                r"(?P<bytes>[0-9]+) (?P<method>[A-Z_-]+) (?P<path>[^ ]+) (?P<user>[^ ]+) [A-Z_]+/[^ \t\r\n]+"
            ),
        ),
        "{epoch_ms}     12 {ip} TCP_MISS/{status} {size} {method} http://shop.example{url} - HIER_DIRECT/10.0.0.9 "
        "text/html",
        expected="it is not a line of Squid's native format",
    ),
    TextFormat(
        "heroku",
        "Heroku router",
        (
            _create_heroku_shape(""),
            _create_heroku_shape("(?:[0-9]+ )?(?:<[0-9]+>)?(?:[0-9]+ )?"),
        ),
        '{iso_time} heroku[router]: at=info method={method} path="{url}" host=shop.example request_id={id} fwd="{ip}" '
        "dyno=web.1 connect=0ms service=12ms status={status} bytes={size} protocol=https",
        default_key="forwarded",
        expected="it is not a line of the Heroku router",
    ),
    TextFormat(
        "uvicorn",
        "uvicorn, with a time in front, as by docker logs --timestamps",
        (
            Shape(rf'(?P<time>{_ISO}) INFO: +(?P<ip>{ADDRESS}) - "(?P<request>{_QUOTED})" (?P<status>[0-9]{{3}})'),
            Shape(
                rf'(?:[^ "|]+ *\| +)?(?:[^ "]+ )??\[?(?P<time>{DATE_TIME})[^"]*? (?P<ip>{ADDRESS}) - '
                rf'"(?P<request>{_QUOTED})" (?P<status>[0-9]{{3}})'
            ),
            Shape(rf'INFO:? +(?P<ip>{ADDRESS}) - "(?P<request>{_QUOTED})" (?P<status>[0-9]{{3}})'),
        ),
        '{iso_time} INFO:     {ip}:40000 - "{method} {url} HTTP/1.1" {status} OK',
        expected="it is not an access log line of uvicorn",
    ),
)
"""The formats of text lines, in the order in which they are tried."""
