"""Log lines as real programs write them, with the client and the time that each records."""

from __future__ import annotations

# ruff: noqa: E501
from typing import NamedTuple

CLIENT = "203.0.113.1"
START_S = 1_793_613_600
"""2 November 2026, 10:00:00 UTC."""

_LOG = '203.0.113.1 - - [02/Nov/2026:10:00:00 +0000] "GET /a?b=c HTTP/1.1" 200 612'
_AGENT = '"https://www.example.com/" "Mozilla/5.0 (X11; Linux x86_64)"'


class RealLine(NamedTuple):
    """A line of a log; the client is `CLIENT`, the path `/a`, the status 200."""

    line: str
    milliseconds: int = 0
    """After `START_S`."""
    has_path: bool = True


REAL_LINES = {
    "common": RealLine(_LOG),
    "combined": RealLine(f"{_LOG} {_AGENT}"),
    "vhost_combined": RealLine(f"www.example.com:443 {_LOG} {_AGENT}"),
    "nginx-main": RealLine(f'{_LOG} {_AGENT} "-"'),
    "ingress-nginx": RealLine(
        f"{_LOG} {_AGENT} 475 0.004 [default-web-80] [] 10.244.1.7:8080 612 0.004 200 8dd6a1bd8a1f8b0d0e6b5f8f9a1b2c3d"
    ),
    "kong": RealLine(f'{_LOG} {_AGENT} kong_request_id: "3f0a2c1d5e6b7a8f9c0d1e2f3a4b5c6d"'),
    "traefik": RealLine(f'{_LOG} "-" "curl/8.5.0" 42 "web@docker" "http://172.18.0.3:80" 12ms'),
    "werkzeug": RealLine('203.0.113.1 - - [02/Nov/2026 10:00:00] "\x1b[33mGET /a?b=c HTTP/1.1\x1b[0m" 200 -'),
    "istio": RealLine(
        '[2026-11-02T10:00:00.250Z] "GET /a?b=c HTTP/1.1" 200 - via_upstream - "-" 0 135 4 3 "203.0.113.1" "curl/8.5.0" '
        '"84961386-6d84-929d-98bd-c5aee93b5c88" "httpbin:8000" "10.44.1.27:80" outbound|8000||httpbin.foo.svc.cluster.local '
        "10.44.1.23:37652 10.0.45.184:8000 10.44.1.23:46520 - default",
        250,
    ),
    "envoy": RealLine(
        '[2026-11-02T10:00:00.250Z] "GET /a?b=c HTTP/2" 200 - 0 154 0 226 100 "198.51.100.7, 203.0.113.1" "nsq2http" '
        '"cc21d9b0-cf5c-432b-8c7e-98aeb7988cd2" "locations" "tcp://10.0.2.1:80"'.replace(" 226 100", " 226"),
        250,
    ),
    "haproxy": RealLine(
        "203.0.113.1:33317 [02/Nov/2026:10:00:00.655] http-in~ static/srv1 10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0 "
        '{1wt.eu} {} "GET /a?b=c HTTP/1.1"',
        655,
    ),
    "aws-alb": RealLine(
        "http 2026-11-02T10:00:00.186000Z app/my-loadbalancer/50dc6c495c0c9188 203.0.113.1:2817 10.0.0.1:80 0.000 0.001 "
        '0.000 200 200 34 366 "GET http://www.example.com:80/a?b=c HTTP/1.1" "curl/7.46.0" - - '
        "arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/my-targets/73e2d6bc24d8a067 "
        '"Root=1-58337262-36d228ad5d99923122bbe354" "-" "-" 0 2026-11-02T09:59:59.000000Z "forward" "-" "-" "10.0.0.1:80" '
        '"200" "-" "-" TID_1234abcd5678ef90',
        186,
    ),
    "aws-elb": RealLine(
        "2026-11-02T10:00:00.945Z my-loadbalancer 203.0.113.1:2817 10.0.0.1:80 0.000073 0.001048 0.000057 200 200 0 29 "
        '"GET http://www.example.com:80/a?b=c HTTP/1.1" "curl/7.38.0" - -',
        945,
    ),
    "aws-s3": RealLine(
        "79a59df900b949e55d96a1e698fbacedfd6e09d98eacf8f8d5218e7cd47ef2be amzn-s3-demo-bucket1 "
        "[02/Nov/2026:10:00:00 +0000] 203.0.113.1 79a59df900b949e55d96a1e698fbacedfd6e09d98eacf8f8d5218e7cd47ef2be "
        '3E57427F3EXAMPLE REST.GET.OBJECT a "GET /a?b=c HTTP/1.1" 200 - 113 113 7 6 "-" "S3Console/0.4" - s9lzHYrFp76ZV '
        "SigV4 ECDHE-RSA-AES128-GCM-SHA256 AuthHeader amzn-s3-demo-bucket1.s3.us-west-1.amazonaws.com TLSV1.2 - -",
    ),
    "squid": RealLine(
        "1793613600.450    921 203.0.113.1 TCP_MISS/200 507 GET http://www.example.com/a?b=c - DIRECT/198.51.100.9 "
        "application/xml",
        450,
    ),
    "heroku": RealLine(
        '2026-11-02T10:00:00.020000+00:00 heroku[router]: at=info method=GET path="/a?b=c" host=www.example.com '
        'request_id=a0b1c2d3 fwd="198.51.100.7, 203.0.113.1" dyno=web.2 connect=0ms service=27ms status=200 bytes=1548 '
        "protocol=https",
        20,
    ),
    "uvicorn": RealLine('2026-11-02T10:00:00.500Z INFO:     203.0.113.1:52188 - "GET /a?b=c HTTP/1.1" 200 OK', 500),
    "caddy": RealLine(
        '{"level":"info","ts":1793613600.5241024,"logger":"http.log.access","msg":"handled request","request":{"remote_ip":'
        '"203.0.113.1","remote_port":"41342","client_ip":"203.0.113.1","proto":"HTTP/2.0","method":"GET","host":"localhost",'
        '"uri":"/a?b=c","headers":{"User-Agent":["curl/7.82.0"],"Accept":["*/*"]},"tls":{"resumed":false}},"bytes_read":0,'
        '"user_id":"","duration":0.000929675,"size":10900,"status":200,"resp_headers":{"Server":["Caddy"]}}',
        524,
    ),
    "traefik-json": RealLine(
        '{"ClientAddr":"203.0.113.1:41342","ClientHost":"203.0.113.1","ClientPort":"41342","ClientUsername":"-",'
        '"DownstreamContentSize":612,"DownstreamStatus":200,"Duration":1234567,"RequestAddr":"www.example.com",'
        '"RequestContentSize":0,"RequestCount":7,"RequestHost":"www.example.com","RequestMethod":"GET","RequestPath":"/a?b=c",'
        '"RequestPort":"-","RequestProtocol":"HTTP/1.1","StartLocal":"2026-11-02T10:00:00.125Z",'
        '"StartUTC":"2026-11-02T10:00:00.125Z","entryPointName":"web","level":"info","msg":"","time":"2026-11-02T10:00:01Z"}',
        125,
    ),
    "gcp-lb": RealLine(
        '{"httpRequest":{"latency":"0.043s","remoteIp":"203.0.113.1:41342","requestMethod":"GET","requestSize":"145",'
        '"requestUrl":"https://www.example.com/a?b=c","responseSize":"612","status":200,"userAgent":"curl/8.5.0"},'
        '"insertId":"1x2y","jsonPayload":{"@type":"type.googleapis.com/google.cloud.loadbalancing.type.LoadBalancerLogEntry"},'
        '"logName":"projects/p/logs/requests","resource":{"type":"http_load_balancer"},"timestamp":"2026-11-02T10:00:00.250Z"}',
        250,
    ),
    "azure-front-door": RealLine(
        '{"time":"2026-11-02T10:00:00.2500000Z","resourceId":"/SUBSCRIPTIONS/1","category":"FrontDoorAccessLog",'
        '"operationName":"Microsoft.Cdn/Profiles/AccessLog/Write","properties":{"trackingReference":"0abc","httpMethod":"GET",'
        '"httpVersion":"2.0.0.0","requestUri":"https://www.example.com:443/a?b=c","requestBytes":"145","userAgent":"curl",'
        '"clientIp":"203.0.113.1","clientPort":"41342","socketIp":"203.0.113.1","httpStatusCode":"200"}}',
        250,
    ),
    "cloudflare": RealLine(
        '{"ClientIP":"203.0.113.1","ClientRequestHost":"www.example.com","ClientRequestMethod":"GET","ClientRequestURI":'
        '"/a?b=c","EdgeEndTimestamp":"2026-11-02T10:00:01Z","EdgeResponseBytes":612,"EdgeResponseStatus":200,'
        '"EdgeStartTimestamp":"2026-11-02T10:00:00Z","RayID":"3a6050bcbe121a87"}',
    ),
    "api-gateway": RealLine(
        '{ "requestId":"c6af9ac6-7b61-11e6","ip": "203.0.113.1", "caller":"-", "user":"-","requestTime":'
        '"02/Nov/2026:10:00:00 +0000", "httpMethod":"GET","resourcePath":"/a", "status":"200","protocol":"HTTP/1.1", '
        '"responseLength":"612" }',
    ),
    "istio-json": RealLine(
        '{"start_time":"2026-11-02T10:00:00.250Z","method":"GET","path":"/a?b=c","protocol":"HTTP/1.1","response_code":200,'
        '"x_forwarded_for":"203.0.113.1","user_agent":"curl","downstream_remote_address":"203.0.113.1:46520",'
        '"authority":"www.example.com"}',
        250,
    ),
    "ecs": RealLine(
        '{"@timestamp":"2026-11-02T10:00:00.250Z","ecs.version":"1.6.0","log.level":"info","http":{"request":{"method":"GET"},'
        '"response":{"status_code":200}},"source":{"ip":"203.0.113.1","port":41342},"url":{"path":"/a"}}',
        250,
    ),
    "bunyan": RealLine(
        '{"name":"myapi","hostname":"web1","pid":7,"level":30,"req":{"method":"GET","url":"/a?b=c","headers":{"host":'
        '"www.example.com"},"remoteAddress":"203.0.113.1","remotePort":41342},"res":{"statusCode":200},"msg":"handled",'
        '"time":"2026-11-02T10:00:00.250Z","v":0}',
        250,
    ),
    "pino": RealLine(
        '{"level":30,"time":1793613600250,"pid":7,"hostname":"web1","req":{"id":1,"method":"GET","url":"/a?b=c","headers":'
        '{"host":"www.example.com"},"remoteAddress":"::ffff:203.0.113.1","remotePort":41342},"res":{"statusCode":200},'
        '"responseTime":4,"msg":"request completed"}',
        250,
    ),
    "jsonl": RealLine('{"timestamp":"2026-11-02T10:00:00Z","remote_addr":"203.0.113.1","uri":"/a?b=c","status":200}'),
    "logfmt": RealLine(
        't=2026 time="2026-11-02T10:00:00Z" level=info msg="Request Completed" method=GET path=/a?b=c status=200 '
        "remote_addr=203.0.113.1 time_ms=4"
    ),
    "w3c": RealLine(
        "#Software: Microsoft Internet Information Services 10.0\n#Version: 1.0\n#Date: 2026-11-02 10:00:00\n"
        "#Fields: date time s-ip cs-method cs-uri-stem cs-uri-query s-port cs-username c-ip cs(User-Agent) cs(Referer) "
        "sc-status sc-substatus sc-win32-status time-taken\n"
        "2026-11-02 10:00:00 10.0.0.5 GET /a b=c 443 - 203.0.113.1 Mozilla/5.0+(X11) - 200 0 0 15"
    ),
    "cloudfront": RealLine(
        "#Version: 1.0\n#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status cs(Referer) "
        "cs(User-Agent) cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header\n"
        "2026-11-02\t10:00:00\tLAX1\t2390282\t203.0.113.1\tGET\td111111abcdef8.cloudfront.net\t/a\t200\twww.example.com\t"
        "Mozilla/5.0%20(X11)\tb=c\t-\tHit\tMRVMF7KydIvxMWfJIglgwHQwZsbG2IhRJ07sn9AkKUFSHS9EXAMPLE==\twww.example.com"
    ),
    "zeek": RealLine(
        "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\thttp\n#open\t2026-11-02-10-00-00\n"
        "#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tmethod\thost\turi\tstatus_code\n"
        "#types\ttime\tstring\taddr\tport\taddr\tport\tstring\tstring\tstring\tcount\n"
        "1793613600.250000\tCH1\t203.0.113.1\t41342\t10.0.0.5\t80\tGET\twww.example.com\t/a?b=c\t200\n"
        "#close\t2026-11-02-11-00-00",
        250,
    ),
    "csv": RealLine('date,time,client_ip,path,status\n2026-11-02,10:00:00.250,203.0.113.1,"/a?b=c",200', 250),
}
"""By the name of the format. `gunicorn` writes `combined`, and `log` stands for access logs with other fields."""

WRAPPED = {
    "syslog": "Nov  2 10:00:00 web1 nginx: {}",
    "syslog with a process": "Nov 12 10:00:00 web1 nginx[123]: {}",
    "syslog with a priority": "<190>Nov  2 10:00:00 web1 nginx: {}",
    "syslog, RFC 5424": "<134>1 2026-11-02T10:00:00.003Z web1 nginx 123 - - {}",
    "rsyslog": "2026-11-02T10:00:00.123456+00:00 web1 nginx[7]: {}",
    "journald": "Nov 02 10:00:00 web1 nginx[123]: {}",
    "CRI": "2026-11-02T10:00:00.123456789Z stdout F {}",
    "docker logs --timestamps": "2026-11-02T10:00:00.123456789Z {}",
    "docker compose": "web-1  | {}",
    "kubectl logs --prefix": "[pod/web-5d4f/nginx] {}",
    "Heroku": "2026-11-02T10:00:00.123456+00:00 app[web.1]: {}",
    "pm2": "0|app  | {}",
    "foreman": "10:00:00 web.1   | {}",
    "journald with dates": "Mon 2026-11-02 10:00:00 UTC web1 nginx[123]: {}",
    "grep": "access.log.1:{}",
    "grep -n": "access.log:12:{}",
    "grep -n in one file": "12:{}",
    "logging.basicConfig": "INFO:werkzeug:{}",
    "logging with a time": "2026-11-02 10:00:00,123 - gunicorn.access - INFO - {}",
}
"""By the program that puts text in front of a line."""

WRAPPED_IN_JSON = {"docker": "log", "journald": "MESSAGE", "filebeat": "message", "Google Cloud": "textPayload"}
"""By the program that wraps a line in an object, the field that holds it."""
