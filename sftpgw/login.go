package sftpgw

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"pillion/creds"
)

// login proves who we are, once a connection.
//
//	the server offers       the credential has     sent
//	publickey               private key            a signature
//	password                password               the password
//	keyboard-interactive    password               the password to one hidden prompt
//	anything else                                  nothing: an error says what is offered
//
// After a refusal nothing else is tried: servers count attempts, and lock
// accounts. After a partial success the next of them is sent. The password goes
// out at most once a connection, so that it never answers a prompt for a new
// password or a one-time code.
type login struct {
	username string
	password creds.Secret
	signer   ssh.Signer // nil without a private key
	account  *account

	banner       strings.Builder // what the server said before the login was over
	sent         string          // the method under way, "" before the first
	passwordSent bool
	prompt       string // the second prompt, which was not answered
	offered      []string
	known        *dialError // an earlier refusal, found when it was our turn
	release      func()     // of the account's turn
}

// newLogin reads the credential's private key.
func newLogin(c *creds.Credential, a *account) (*login, error) {
	l := &login{username: c.Username, password: c.Password, account: a, release: func() {}}
	if c.PrivateKey.IsZero() {
		return l, nil
	}
	signer, err := ssh.ParsePrivateKey([]byte(c.PrivateKey.Reveal()))
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) && !c.Password.IsZero() {
		signer, err = ssh.ParsePrivateKeyWithPassphrase([]byte(c.PrivateKey.Reveal()), []byte(c.Password.Reveal()))
	}
	if err != nil {
		return nil, &dialError{kind: dialConfig, sentence: "the private key of credential " + c.Name + " cannot be read: set it again, in the OpenSSH or PEM form and without a passphrase."}
	}
	l.signer = withoutSHA1(signer)
	return l, nil
}

// withoutSHA1 keeps an RSA key from signing with SHA-1, which x/crypto falls
// back to where a server does not name its algorithms.
func withoutSHA1(signer ssh.Signer) ssh.Signer {
	algorithms, ok := signer.(ssh.AlgorithmSigner)
	if !ok || signer.PublicKey().Type() != ssh.KeyAlgoRSA {
		return signer
	}
	restricted, err := ssh.NewSignerWithAlgorithms(algorithms, []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256})
	if err != nil {
		return signer
	}
	return restricted
}

var (
	errRefused   = errors.New("the login is refused")
	errNoMethod  = errors.New("no method of login in common")
	errSecondAsk = errors.New("the server asks for more than a password")
)

// next chooses the method: an ssh.ClientAuthCallback, called after "none" and
// after each answer.
func (l *login) next(ctx context.Context, state *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
	l.offered = state.AllowedMethods
	if l.sent != "" && !slices.Contains(state.PartialSuccessMethods, l.sent) {
		return nil, errRefused
	}
	offers := func(method string) bool { return slices.Contains(state.AllowedMethods, method) }
	var name string
	var method ssh.AuthMethod
	switch canPassword := !l.password.IsZero() && !l.passwordSent; {
	case l.signer != nil && l.sent == "" && offers("publickey"):
		name, method = "publickey", ssh.PublicKeys(l.signer)
	case canPassword && offers("password"):
		name, method = "password", ssh.PasswordCallback(l.reveal)
	case canPassword && offers("keyboard-interactive"):
		name, method = "keyboard-interactive", ssh.KeyboardInteractive(l.answer)
	default:
		return nil, errNoMethod
	}
	if err := l.turn(ctx); err != nil {
		return nil, err
	}
	l.sent = name
	return method, nil
}

// turn waits until no other connection tries an account that is not known to
// be good: one that has just been refused must not be tried ten times at once.
func (l *login) turn(ctx context.Context) error {
	if l.sent != "" {
		return nil // it is ours, since the first of several methods
	}
	release, known, err := l.account.turn(ctx)
	if err != nil {
		return err
	}
	if known != nil {
		release()
		l.known = known
		return known
	}
	l.release = release
	return nil
}

func (l *login) reveal() (string, error) {
	l.passwordSent = true
	return l.password.Reveal(), nil
}

// answer gives the password to the first hidden prompt, and nothing to a
// message without one.
func (l *login) answer(_, instruction string, questions []string, echos []bool) ([]string, error) {
	if instruction != "" && l.banner.Len() < maxQuote {
		l.banner.WriteString(instruction + "\n")
	}
	switch {
	case len(questions) == 0:
		return nil, nil
	case len(questions) > 1 || echos[0] || l.passwordSent:
		l.prompt = questions[len(questions)-1]
		if len(questions) > 1 || echos[0] {
			l.prompt = strings.Join(questions, " ")
		}
		return nil, errSecondAsk
	}
	l.passwordSent = true
	return []string{l.password.Reveal()}, nil
}

// keepBanner is the ssh.BannerCallback: an expired password shows only there.
func (l *login) keepBanner(message string) error {
	if l.banner.Len() < maxQuote {
		l.banner.WriteString(message)
	}
	return nil
}

// refused is the error of a login that was not accepted, or nil if none was
// tried: then err has another cause.
func (l *login) refused(addr string, err error) *dialError {
	var sentence string
	switch {
	case l.known != nil:
		return l.known
	case l.prompt != "" && l.passwordSent:
		sentence = fmt.Sprintf("%s asks user %q for more than the password: %q", addr, quote(l.username, l.password), quote(l.prompt, l.password))
	case l.prompt != "":
		sentence = fmt.Sprintf("%s asks user %q for something else than a password: %q", addr, quote(l.username, l.password), quote(l.prompt, l.password))
	case l.sent != "" && isTimeout(err):
		return &dialError{kind: dialTimeout, err: err, sentence: full(fmt.Sprintf("%s did not answer the login of user %q by %s in time", addr, quote(l.username, l.password), l.sent))}
	case l.sent != "":
		sentence = fmt.Sprintf("%s refused the login of user %q by %s", addr, quote(l.username, l.password), l.sent)
		if !errors.Is(err, errRefused) && !errors.Is(err, errNoMethod) {
			sentence += ", and " + lost(err)
		}
	case errors.Is(err, errNoMethod):
		has := "a password"
		if l.signer != nil {
			has = "a private key"
			if !l.password.IsZero() {
				has += " and a password"
			}
		}
		offered := quote(strings.Join(l.offered, ", "), l.password)
		if offered == "" {
			offered = "nothing at all"
		}
		sentence = fmt.Sprintf("%s lets user %q log in by %s only, and the credential has %s", addr, quote(l.username, l.password), offered, has)
	default:
		return nil
	}
	if said := quote(l.banner.String(), l.password); said != "" {
		sentence += fmt.Sprintf(" (it says: %s)", said)
	}
	return &dialError{kind: dialLogin, sentence: full(sentence), err: err}
}
