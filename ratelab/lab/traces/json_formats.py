"""JSON formats by name: the paths of their fields."""

from __future__ import annotations

from ratelab.lab.traces.jsonl import JsonFormat

JSON_FORMATS = (
    JsonFormat(
        "caddy",
        "Caddy",
        {
            "ip": ("request.client_ip", "request.remote_ip", "request.remote_addr"),
            "forwarded": ("request.headers.X-Forwarded-For",),
            "time": ("ts",),
            "user": ("user_id",),
            "method": ("request.method",),
            "path": ("request.uri",),
            "host": ("request.host",),
            "agent": ("request.headers.User-Agent",),
            "referer": ("request.headers.Referer",),
        },
        ("request.uri", "ts"),
        '{"level":"info","ts":<epoch>,"logger":"http.log.access.log0","msg":"handled request","request":{"remote_ip":'
        '"<ip>","remote_port":"40000","client_ip":"<ip>","proto":"HTTP/2.0","method":"<method>","host":"shop.example",'
        '"uri":"<url>","headers":{"User-Agent":["<agent>"]}},"bytes_read":0,"user_id":"","duration":0.012,"size":<size>,'
        '"status":<status>}',
    ),
    JsonFormat(
        "traefik-json",
        "Traefik, JSON",
        {
            "ip": ("ClientHost", "ClientAddr"),
            "forwarded": ("request_X-Forwarded-For",),
            "time": ("StartUTC", "StartLocal", "time"),
            "user": ("ClientUsername",),
            "method": ("RequestMethod",),
            "path": ("RequestPath",),
            "host": ("RequestHost",),
            "status": ("DownstreamStatus",),
            "agent": ("request_User-Agent",),
        },
        ("ClientAddr", "RequestMethod"),
        '{"ClientAddr":"<ip>:40000","ClientHost":"<ip>","ClientPort":"40000","ClientUsername":"-","DownstreamStatus":'
        '<status>,"Duration":12000000,"RequestHost":"shop.example","RequestMethod":"<method>","RequestPath":"<url>",'
        '"StartUTC":"<iso_time>","level":"info","msg":"","time":"<iso_second>"}',
    ),
    JsonFormat(
        "gcp-lb",
        "Google Cloud load balancer",
        {
            "ip": ("httpRequest.remoteIp",),
            "time": ("timestamp", "receiveTimestamp"),
            "method": ("httpRequest.requestMethod",),
            "path": ("httpRequest.requestUrl",),
            "status": ("httpRequest.status",),
            "agent": ("httpRequest.userAgent",),
            "referer": ("httpRequest.referer",),
        },
        ("httpRequest.remoteIp", "logName"),
        '{"httpRequest":{"latency":"0.012s","remoteIp":"<ip>","requestMethod":"<method>","requestSize":"215","requestUrl":'
        '"https://shop.example<url>","responseSize":"<size>","status":<status>,"userAgent":"<agent>"},"insertId":"<id>",'
        '"logName":"projects/shop/logs/requests","resource":{"type":"http_load_balancer"},"timestamp":"<iso_time>"}',
    ),
    JsonFormat(
        "azure-front-door",
        "Azure Front Door",
        {
            "ip": ("properties.clientIp",),
            "forwarded": ("properties.xForwardedFor",),
            "time": ("time",),
            "method": ("properties.httpMethod",),
            "path": ("properties.requestUri",),
            "host": ("properties.hostName", "properties.host"),
            "status": ("properties.httpStatusCode",),
            "agent": ("properties.userAgent",),
            "referer": ("properties.referrer", "properties.referer"),
        },
        ("properties.clientIp", "time"),
        '{"category":"FrontDoorAccessLog","operationName":"Microsoft.Cdn/Profiles/AccessLog/Write","properties":{"clientIp":'
        '"<ip>","clientPort":"40000","hostName":"shop.example","httpMethod":"<method>","httpStatusCode":"<status>",'
        '"requestUri":"https://shop.example:443<url>","socketIp":"<ip>","userAgent":"<agent>"},"time":"<iso_time>"}',
    ),
    JsonFormat(
        "cloudflare",
        "Cloudflare Logpush, HTTP requests",
        {
            "ip": ("ClientIP",),
            "time": ("EdgeStartTimestamp", "EdgeEndTimestamp"),
            "method": ("ClientRequestMethod",),
            "path": ("ClientRequestPath", "ClientRequestURI"),
            "host": ("ClientRequestHost",),
            "status": ("EdgeResponseStatus",),
            "agent": ("ClientRequestUserAgent",),
            "referer": ("ClientRequestReferer",),
        },
        ("ClientIP",),
        '{"ClientIP":"<ip>","ClientRequestHost":"shop.example","ClientRequestMethod":"<method>","ClientRequestURI":"<url>",'
        '"ClientRequestUserAgent":"<agent>","EdgeResponseBytes":<size>,"EdgeResponseStatus":<status>,'
        '"EdgeStartTimestamp":"<iso_time>","RayID":"<id>"}',
    ),
    JsonFormat(
        "api-gateway",
        "AWS API Gateway, JSON",
        {
            "ip": ("ip", "sourceIp", "identity.sourceIp"),
            "time": ("requestTimeEpoch", "requestTime"),
            "method": ("httpMethod",),
            "path": ("path", "resourcePath", "routeKey"),
            "agent": ("userAgent",),
        },
        ("requestId", "requestTime"),
        '{"requestId":"<id>","ip":"<ip>","caller":"-","user":"-","requestTime":"<log_time>","httpMethod":"<method>",'
        '"resourcePath":"<url>","status":"<status>","protocol":"HTTP/1.1","responseLength":"<size>"}',
    ),
    JsonFormat(
        "istio-json",
        "Istio and Envoy, JSON",
        {
            "ip": ("downstream_remote_address", "downstream_direct_remote_address"),
            "forwarded": ("x_forwarded_for",),
            "time": ("start_time",),
            "host": ("authority",),
            "status": ("response_code",),
        },
        ("start_time", "response_code"),
        '{"authority":"shop.example","bytes_sent":<size>,"downstream_remote_address":"<ip>:40000","duration":12,"method":'
        '"<method>","path":"<url>","protocol":"HTTP/1.1","response_code":<status>,"start_time":"<iso_time>","user_agent":'
        '"<agent>","x_forwarded_for":"<ip>"}',
        default_key="forwarded",
    ),
    JsonFormat(
        "ecs",
        "Elastic Common Schema",
        {
            "ip": ("client.ip", "source.ip", "source.address", "client.address"),
            "forwarded": ("http.request.headers.x-forwarded-for", "network.forwarded_ip"),
            "time": ("@timestamp",),
            "user": ("user.name", "user.id"),
            "method": ("http.request.method",),
            "path": ("url.path", "url.original"),
            "host": ("url.domain",),
            "status": ("http.response.status_code",),
            "agent": ("user_agent.original",),
            "referer": ("http.request.referrer",),
        },
        ("@timestamp", "http.request.method"),
        '{"@timestamp":"<iso_time>","ecs.version":"1.6.0","http":{"request":{"method":"<method>"},"response":{"status_code":'
        '<status>}},"log.level":"info","source":{"ip":"<ip>"},"url":{"path":"<path>"},"user_agent":{"original":"<agent>"}}',
    ),
    JsonFormat(
        "bunyan",
        "bunyan, with the serializer of requests",
        {
            "ip": ("req.remoteAddress", "remoteAddress", "req.ip", "client_req.address"),
            "forwarded": ("req.headers.x-forwarded-for",),
            "time": ("time",),
            "method": ("req.method",),
            "path": ("req.url",),
            "status": ("res.statusCode",),
            "agent": ("req.headers.user-agent",),
        },
        ("v", "req.method"),
        '{"name":"shop","hostname":"web1","pid":7,"level":30,"req":{"method":"<method>","url":"<url>","headers":{"user-agent":'
        '"<agent>"},"remoteAddress":"<ip>","remotePort":40000},"res":{"statusCode":<status>},"msg":"request finished",'
        '"time":"<iso_time>","v":0}',
    ),
    JsonFormat(
        "pino",
        "pino-http, and Fastify",
        {
            "ip": ("req.remoteAddress", "req.ip"),
            "forwarded": ("req.headers.x-forwarded-for",),
            "time": ("time",),
            "method": ("req.method",),
            "path": ("req.url",),
            "host": ("req.host", "req.hostname"),
            "status": ("res.statusCode",),
            "agent": ("req.headers.user-agent",),
        },
        ("level", "req.method"),
        '{"level":30,"time":<epoch_millis>,"pid":7,"hostname":"web1","req":{"id":1,"method":"<method>","url":"<url>",'
        '"headers":{"host":"shop.example","user-agent":"<agent>"},"remoteAddress":"<ip>","remotePort":40000},"res":'
        '{"statusCode":<status>},"responseTime":12,"msg":"request completed"}',
    ),
    JsonFormat(
        "jsonl",
        "JSON objects with fields such as time and ip",
        sample='{"time":<epoch>,"ip":"<ip>","method":"<method>","path":"<url>","status":<status>,"agent":"<agent>"}',
    ),
)
"""The formats of JSON objects, in the order in which they are tried."""
