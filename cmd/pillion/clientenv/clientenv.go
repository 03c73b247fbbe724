// Package clientenv is the table of docs/clients.md: the variables that make a
// client use pillion and trust it. `pillion env` prints them for a shell, and
// package inject writes them into containers.
package clientenv

import (
	"net"
	"path"
	"slices"
	"strings"

	"pillion/proxy"
)

// Place is where a client finds pillion.
type Place struct {
	Proxy   string // host:port
	Publish string // the published folder, as the client sees it
	NoProxy string // what it asks directly: Direct
}

// Variable is one variable, and whose it is: names of Clients.
type Variable struct {
	Name, Value string
	Clients     []string
}

// Java is the client that needs to be asked for: its variable makes every Java
// virtual machine print a line.
const Java = "java"

// Clients are those that Trust and Options know, Java apart.
var Clients = []string{"aws", "curl", "git", "go", "node", "openssl", "python"}

// ProxyNames are the variables that name the proxy, in both cases, since some
// clients obey only one.
var ProxyNames = []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"}

// Direct returns what clients ask without the proxy: this machine, and more, a
// list with commas.
func Direct(more string) string {
	direct := "localhost,127.0.0.1,::1"
	if more != "" {
		direct += "," + more
	}
	return direct
}

// User returns what stands before the address in a proxy's URL to choose a
// credential. With a name alone wget, urllib and requests send no
// Proxy-Authorization: they need a password as well, which is looked at only where
// a token is asked for.
func User(credential string) string {
	if credential == "" {
		return ""
	}
	return credential + ":-@"
}

// Exceptions returns the variables beside the proxies': who is asked directly, and
// that Node shall obey them all.
func Exceptions(p Place) []Variable {
	return []Variable{
		{"NO_PROXY", p.NoProxy, nil},
		{"no_proxy", p.NoProxy, nil},
		{"NODE_USE_ENV_PROXY", "1", []string{"node"}},
	}
}

// Trust returns the variables that name certificates: the bundle of the system's
// authorities and ours, since most of them replace what a client trusts; Node's
// adds.
func Trust(p Place) []Variable {
	bundle := path.Join(p.Publish, "ca-bundle.crt")
	return []Variable{
		{"SSL_CERT_FILE", bundle, []string{"curl", "go", "openssl", "python"}},
		{"CURL_CA_BUNDLE", bundle, []string{"curl", "python"}},
		{"REQUESTS_CA_BUNDLE", bundle, []string{"aws", "python"}},
		{"AWS_CA_BUNDLE", bundle, []string{"aws"}},
		{"GIT_SSL_CAINFO", bundle, []string{"git"}},
		{"NODE_EXTRA_CA_CERTS", path.Join(p.Publish, "ca.crt"), []string{"node"}},
	}
}

// Login returns the variable without which git sends no proxy login unasked.
func Login() Variable {
	return Variable{"GIT_HTTP_PROXY_AUTHMETHOD", "basic", []string{"git"}}
}

// JavaOptions is JAVA_TOOL_OPTIONS: proxy and truststore. Basic login to a proxy
// is refused on CONNECT unless the list of disabled schemes is emptied.
func JavaOptions(p Place) Variable {
	host, port, _ := net.SplitHostPort(p.Proxy)
	var direct []string
	for h := range strings.SplitSeq(p.NoProxy, ",") {
		if strings.HasPrefix(h, ".") {
			h = "*" + h
		}
		direct = append(direct, h)
	}
	options := []string{
		"-Dhttp.proxyHost=" + host, "-Dhttp.proxyPort=" + port, "-Dhttps.proxyHost=" + host, "-Dhttps.proxyPort=" + port,
		"-Dhttp.nonProxyHosts=" + strings.Join(direct, "|"),
		"-Djdk.http.auth.tunneling.disabledSchemes=",
		"-Djavax.net.ssl.trustStore=" + path.Join(p.Publish, "truststore.p12"),
		"-Djavax.net.ssl.trustStoreType=PKCS12",
		"-Djavax.net.ssl.trustStorePassword=" + proxy.TruststorePassword,
	}
	for i, o := range options {
		if strings.ContainsAny(o, " \t") {
			options[i] = `"` + o + `"`
		}
	}
	return Variable{"JAVA_TOOL_OPTIONS", strings.Join(options, " "), []string{Java}}
}

// For reports whether one of clients reads the variable.
func (v Variable) For(clients []string) bool {
	return len(v.Clients) == 0 || slices.ContainsFunc(v.Clients, func(c string) bool { return slices.Contains(clients, c) })
}
