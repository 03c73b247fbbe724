package filestore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"
)

// keys is what the key file holds: identities in the format of age-keygen.
type keys struct {
	text       []byte // to notice that the file was changed
	identities []age.Identity
	recipients []age.Recipient
}

// maxKeyFile is far above what any number of identities needs.
const maxKeyFile = 1 << 20

// allowedMode is what the mode of a key file may have. Where root has lent the file
// to the group of a service, its members are root's choice: systemd's credentials
// and Kubernetes' secrets come so.
func allowedMode(info fs.FileInfo, euid int) fs.FileMode {
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid == 0 && euid != 0 {
		return 0o740
	}
	return 0o700
}

// readKeys reads the key file, anew for every write, so that an identity that is
// added reaches running processes. Whoever else could read it could read
// everything, so a key file that others may read is refused, not corrected.
func readKeys(path string) (*keys, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, unavailable("the key file %s is missing: put it back from a backup, for without it the store cannot be read", path)
	case err != nil:
		return nil, unavailable("the key file %s cannot be read by uid %d (%w): make that user its owner", path, os.Geteuid(), cause(err))
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, unavailable("the key file %s cannot be read (%w): look after its disk", path, cause(err))
	case !info.Mode().IsRegular():
		return nil, unavailable("the key file %s is not a regular file: name another one", path)
	case info.Mode().Perm()&^allowedMode(info, os.Geteuid()) != 0:
		return nil, unavailable("the key file %s can be read or written by others (mode %04o): chmod 600 %s, and consider its key known", path, info.Mode().Perm(), path)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxKeyFile+1))
	if err != nil || len(text) > maxKeyFile {
		return nil, unavailable("the key file %s cannot be read or is larger than a key file can be: put it back from a backup", path)
	}
	return parseKeys(path, text)
}

// parseKeys goes line by line, to say which is wrong without age's own words,
// which quote characters of it.
func parseKeys(path string, text []byte) (*keys, error) {
	k := &keys{text: text}
	for n, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		found, err := age.ParseIdentities(strings.NewReader(line))
		if err != nil {
			return nil, unavailable("line %d of the key file %s is not an age identity: put the file back from a backup", n+1, path)
		}
		for _, identity := range found {
			switch i := identity.(type) {
			case *age.X25519Identity:
				k.recipients = append(k.recipients, i.Recipient())
			case *age.HybridIdentity:
				k.recipients = append(k.recipients, i.Recipient())
			default:
				return nil, unavailable("line %d of the key file %s is a kind of identity that pillion does not know: use age-keygen's", n+1, path)
			}
		}
		k.identities = append(k.identities, found...)
	}
	if len(k.identities) == 0 {
		return nil, unavailable("the key file %s holds no age identity: put it back from a backup", path)
	}
	return k, nil
}

// parseRecipients does not say the text of one that it does not understand: it
// may be an identity by mistake.
func parseRecipients(texts []string) ([]age.Recipient, error) {
	var all []age.Recipient
	for n, text := range texts {
		found, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil {
			return nil, unavailable("recipient %d is not an age public key: give the one that age-keygen prints, age1...", n+1)
		}
		all = append(all, found...)
	}
	return all, nil
}

// makeKey writes a new key file, in the words of age-keygen. It is linked into
// place, which fails where a rename would replace a key that somebody else has
// just put there.
func makeKey(path string, now time.Time) error {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return unavailable("making the key: %w: try again", err)
	}
	text := fmt.Sprintf("# key of the pillion store; keep a copy elsewhere, without it the store is lost\n# created: %s\n# public key: %s\n%s\n",
		now.Format(time.RFC3339), identity.Recipient(), identity)
	tmp := tmpOf(path)
	file, err := writeFile(tmp, []byte(text))
	if err != nil {
		return cannotWrite(path, err)
	}
	_ = file.Close()
	err = os.Link(tmp, path)
	_ = os.Remove(tmp)
	if err != nil {
		return cannotWrite(path, err)
	}
	return syncDirectory(path)
}

// seal encrypts the document to everyone who may read the store.
func seal(plain []byte, recipients []age.Recipient) ([]byte, error) {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, recipients...)
	if err != nil {
		// age's words name recipient types only, as for a post-quantum key among others.
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

const (
	intro   = "age-encryption.org/"
	armored = "-----BEGIN AGE ENCRYPTED FILE-----"
)

// unseal decrypts a store. Its errors complete the sentence "STORE ...".
func unseal(sealed []byte, k *keys, keyPath string) ([]byte, error) {
	switch {
	case len(sealed) == 0:
		return nil, errors.New("is empty: restore it from a backup")
	case bytes.HasPrefix(sealed, []byte(armored)):
		return nil, errors.New("is an armored age file: encrypt it again without -a")
	case !bytes.HasPrefix(sealed, []byte(intro)):
		return nil, errors.New("is not an age file: name another file, or restore the store from a backup")
	}
	var wrongKey *age.NoIdentityMatchError
	r, err := age.Decrypt(bytes.NewReader(sealed), k.identities...)
	if errors.As(err, &wrongKey) {
		return nil, fmt.Errorf("was not encrypted to the key in %s: put back the key file that belongs to it", keyPath)
	}
	if err == nil {
		var plain []byte
		if plain, err = io.ReadAll(r); err == nil {
			return plain, nil
		}
	}
	return nil, errors.New("is damaged: restore it from a backup")
}
