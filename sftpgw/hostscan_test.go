package sftpgw

import (
	"net"
	"slices"
	"strings"
	"testing"

	"pillion/creds/credstest"
)

func TestScanHostKeys(t *testing.T) {
	for _, types := range [][]string{nil, {"rsa"}} {
		server := credstest.StartSSHD(t, credstest.SSHDOptions{HostKeys: types})
		found, err := ScanHostKeys(t.Context(), (&net.Dialer{}).DialContext, server.Addr)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, key := range found {
			lines = append(lines, key.String())
			if !strings.HasPrefix(key.SHA256, "SHA256:") || key.Type != key.Key.Type() {
				t.Errorf("%+v", key)
			}
		}
		slices.Sort(lines)
		want := slices.Clone(server.HostKeys)
		slices.Sort(want)
		if !slices.Equal(lines, want) {
			t.Errorf("found %q, want %q", lines, want)
		}
		for _, attempt := range []string{"Failed", "Accepted", "Invalid user", "userauth", server.Username} {
			if strings.Contains(server.Log(), attempt) {
				t.Errorf("the server has seen %q:\n%s", attempt, server.Log())
			}
		}
	}
	closed := listen(t)
	closed.Close()
	if _, err := ScanHostKeys(t.Context(), (&net.Dialer{}).DialContext, closed.Addr().String()); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Error(err)
	}
	web := answering(t, func(_ int, conn net.Conn) {
		_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
		conn.Close()
	})
	if _, err := ScanHostKeys(t.Context(), (&net.Dialer{}).DialContext, web); err == nil || !strings.Contains(err.Error(), "HTTP/1.1 400") {
		t.Error(err)
	}
}
