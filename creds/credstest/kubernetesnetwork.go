package credstest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// clusterNetwork is the way from the API server into its cluster, as the proxy that
// an EgressSelectorConfiguration names: there is one address at its end.
type clusterNetwork struct {
	config string // the file for --egress-selector-config-file
	to     atomic.Pointer[string]
}

func newClusterNetwork(t testing.TB, dir string) *clusterNetwork {
	t.Helper()
	n := &clusterNetwork{config: filepath.Join(dir, "egress.yaml")}
	socket := filepath.Join(dir, "egress.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	if err := os.WriteFile(n.config, fmt.Appendf(nil, `apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection: {proxyProtocol: HTTPConnect, transport: {uds: {udsName: %q}}}
`, socket), 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			go n.carry(conn)
		}
	}()
	return n
}

// Route has the API server reach address, whatever Service it calls.
func (k *Kubernetes) Route(address string) { k.network.to.Store(&address) }

// carry serves one CONNECT.
func (n *clusterNetwork) carry(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	request, err := http.ReadRequest(in)
	if err != nil || request.Method != http.MethodConnect {
		return
	}
	there, err := n.dial()
	if err != nil {
		fmt.Fprintf(conn, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	defer there.Close()
	fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		_, _ = io.Copy(there, in)
		there.Close()
	}()
	_, _ = io.Copy(conn, there)
}

func (n *clusterNetwork) dial() (net.Conn, error) {
	to := n.to.Load()
	if to == nil {
		return nil, errors.New("nothing runs in the cluster")
	}
	return net.Dial("tcp", *to)
}
