package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// nginxConfig is nginx as a careful administrator sets it up for this one job: one worker, kept-alive and verified TLS to the origin, bodies streamed
// upwards, buffers that hold a whole answer so that none goes to disk, an access log in a file whose lines are gathered as long as pillion gathers its own.
const nginxConfig = `daemon off;
worker_processes 1;
%[1]spid nginx.pid;
error_log stderr warn;
worker_rlimit_nofile 8192;
events { worker_connections 4096; }
http {
	access_log access.log combined buffer=32k flush=50ms;
	client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp; uwsgi_temp_path temp; scgi_temp_path temp;
	keepalive_requests 100000000;
	keepalive_timeout 300s;
	client_max_body_size 0;
	tcp_nodelay on;
	upstream origin { server %[2]s; keepalive 64; keepalive_requests 100000000; keepalive_timeout 300s; }
	server {
		listen %[3]s ssl http2;
		listen %[4]s;
		server_name %[5]s;
		ssl_certificate %[6]s;
		ssl_certificate_key %[7]s;
		ssl_protocols TLSv1.2 TLSv1.3;
		ssl_session_cache shared:bench:4m;
		location / {
			proxy_pass https://origin;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $http_host;
			proxy_set_header Authorization "%[8]s";
			proxy_request_buffering off;
			proxy_buffers 16 16k;
			proxy_buffer_size 16k;
			proxy_busy_buffers_size 64k;
			proxy_ssl_verify on;
			proxy_ssl_trusted_certificate %[9]s;
			proxy_ssl_name %[5]s;
			proxy_ssl_server_name on;
			proxy_ssl_protocols TLSv1.2 TLSv1.3;
		}
	}
}
`

func startNginx(ctx context.Context, l *lab, dir string) (*running, error) {
	program, err := findProgram("nginx")
	if err != nil {
		return nil, err
	}
	secure, err := freePort()
	if err != nil {
		return nil, err
	}
	plain, err := freePort()
	if err != nil {
		return nil, err
	}
	user := ""
	if os.Getuid() == 0 {
		user = "user root;\n"
	}
	config := fmt.Sprintf(nginxConfig, user, l.addrs.HTTP1, secure, plain, originName, l.pki.LeafCert, l.pki.LeafKey, l.authorization(), l.pki.CACert)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	p, err := start(dir, peerNginx, []string{program, "-p", dir, "-e", "stderr", "-c", file})
	if err != nil {
		return nil, err
	}
	r := &running{process: p, tls: secure, plain: plain, ca: l.pki.CACert, injects: true}
	if err := r.await(ctx, func() bool { return accepts(secure) }); err != nil {
		p.stop()
		return nil, err
	}
	return r, nil
}

// findProgram looks in PATH and where Debian keeps servers, which is not in everyone's PATH.
func findProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	if path, err := exec.LookPath("/usr/sbin/" + name); err == nil {
		return path, nil
	}
	return "", fmt.Errorf("%s is not installed", name)
}

// says runs a program for its version and returns the first line that holds the wanted word.
func says(want string, args ...string) string {
	text, _ := exec.Command(args[0], args[1:]...).CombinedOutput()
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, want) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}
