package creds

import "strings"

// Instance returns the origin of the credential's instance URL, and as Path its
// path prefix with a slash at both ends ("/" for none).
func (c *Credential) Instance() (Target, error) {
	u, err := splitURL(c.URL)
	if err != nil {
		return Target{}, err
	}
	if u.hasQuery || u.hasFragment {
		return Target{}, badTarget("has a query or a fragment (from the ? or # on): remove it")
	}
	if u.scheme != string(c.Protocol) {
		return Target{}, badTarget("does not begin with the protocol's own prefix, " + string(c.Protocol) + "://")
	}
	target, err := u.target()
	if err != nil {
		return Target{}, err
	}
	if target.Path, err = canonicalPrefix(target.Path); err != nil {
		return Target{}, err
	}
	if c.Protocol == SFTP && target.Path != "/" {
		return Target{}, badTarget("has a path: remove it; an SFTP instance URL ends after the port, such as sftp://host:22/")
	}
	return target, nil
}

// ProtocolOf returns the protocol that rawURL's prefix names, or "".
func ProtocolOf(rawURL string) Protocol {
	scheme, _, found := strings.Cut(rawURL, "://")
	switch p := Protocol(strings.ToLower(scheme)); {
	case found && (p == HTTPS || p == SFTP):
		return p
	}
	return ""
}

// prefixMarks are the characters of a path prefix beside letters and digits:
// those of RFC 3986 that stand for themselves everywhere.
const prefixMarks = "-._~!$&'()*+,=:@"

// canonicalPrefix is strict where requests are read leniently: what an
// administrator types once can be typed in the one form without second reading.
func canonicalPrefix(path string) (string, error) {
	if path == "/" {
		return path, nil
	}
	path = strings.TrimSuffix(path, "/")
	for segment := range strings.SplitSeq(path[1:], "/") {
		switch segment {
		case "":
			return "", badTarget("has an empty segment (//) in its path: remove it")
		case ".", "..":
			return "", badTarget("has a dot segment (/./ or /../) in its path: write the path without it")
		}
		for i := range len(segment) {
			c := segment[i]
			if !isLowerAlnum(c) && !(c >= 'A' && c <= 'Z') && strings.IndexByte(prefixMarks, c) < 0 {
				return "", badTarget("has a character in its path that a path prefix must not have: letters, digits and " + prefixMarks + " are taken, percent-encoding is not")
			}
		}
	}
	return path + "/", nil
}
