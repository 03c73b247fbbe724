package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
)

// squidConfig is squid as a proxy that ends TLS: certificates made as needed, the origin's verified, the header added, nothing cached, an access log in a
// file. It bumps at step 1, since a bump after a look at the origin pins one origin connection to each client connection and costs more.
// Plain requests go to the origin over TLS by a cache_peer.
const squidConfig = `http_port %[1]s ssl-bump tls-cert=%[2]s tls-key=%[3]s generate-host-certificates=on dynamic_cert_mem_cache_size=4MB
sslcrtd_program %[4]s -s %[5]s/certificates -M 4MB
sslcrtd_children 2 startup=1 idle=1
ssl_bump bump all
tls_outgoing_options cafile=%[2]s
hosts_file %[5]s/hosts
acl plain proto http
cache_peer %[6]s parent %[7]s 0 no-query no-digest no-netdb-exchange originserver name=origin tls tls-cafile=%[2]s ssldomain=%[6]s
cache_peer_access origin allow plain
cache_peer_access origin deny all
never_direct allow plain
http_access allow all
request_header_access Authorization deny all
request_header_add Authorization "%[8]s" all
cache deny all
cache_mem 8 MB
via off
forwarded_for delete
access_log stdio:%[5]s/access.log
cache_log %[5]s/cache.log
cache_store_log none
pid_filename none
coredump_dir %[5]s
shutdown_lifetime 0 seconds
pinger_enable off
netdb_filename none
visible_hostname bench.example
client_persistent_connections on
server_persistent_connections on
pconn_timeout 5 minutes
`

func startSquid(ctx context.Context, l *lab, dir string) (*running, error) {
	program, err := findProgram("squid")
	if err != nil {
		return nil, err
	}
	listen, err := freePort()
	if err != nil {
		return nil, err
	}
	helper, err := prepareSquid(dir)
	if err != nil {
		return nil, err
	}
	host, port := splitAuthority(l.addrs.HTTP1)
	config := fmt.Sprintf(squidConfig, listen, l.pki.CACert, l.pki.CAKey, helper, dir, host, port, l.authorization())
	file := filepath.Join(dir, "squid.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	p, err := start(dir, peerSquid, []string{program, "-N", "-f", file})
	if err != nil {
		return nil, err
	}
	r := &running{process: p, proxy: listen, ca: l.pki.CACert, injects: true}
	if err := r.await(ctx, func() bool { return accepts(listen) }); err != nil {
		p.stop()
		return nil, fmt.Errorf("%w; its log: %s", err, tail(filepath.Join(dir, "cache.log")))
	}
	return r, nil
}

// prepareSquid makes what squid wants to find: names, and a folder for certificates. Started by root it becomes the user proxy, whose the folder must be.
func prepareSquid(dir string) (helper string, err error) {
	for _, helper = range []string{"/usr/lib/squid/security_file_certgen", "/usr/lib64/squid/security_file_certgen", "/usr/libexec/squid/security_file_certgen"} {
		if _, err = os.Stat(helper); err == nil {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("squid has no security_file_certgen here; install squid-openssl")
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts"), []byte("127.0.0.1 "+originName+"\n"), 0o600); err != nil {
		return "", err
	}
	folder := filepath.Join(dir, "certificates")
	if out, err := exec.Command(helper, "-c", "-s", folder, "-M", "4MB").CombinedOutput(); err != nil {
		return "", fmt.Errorf("making squid's certificate folder: %w: %s", err, out)
	}
	if os.Getuid() != 0 {
		return helper, nil
	}
	proxy, err := user.Lookup("proxy")
	if err != nil {
		return "", fmt.Errorf("looking up the user that squid becomes: %w", err)
	}
	uid, _ := strconv.Atoi(proxy.Uid)
	gid, _ := strconv.Atoi(proxy.Gid)
	return helper, filepath.Walk(dir, func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, uid, gid)
	})
}

func tail(file string) string {
	text, _ := os.ReadFile(file)
	return fmt.Sprintf("%q", text[max(0, len(text)-600):])
}
