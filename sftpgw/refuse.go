package sftpgw

import (
	"encoding/binary"
	"errors"
	"io"
	"time"

	"golang.org/x/crypto/ssh"
)

// How a session ends: the label result of sftp_sessions_total, and the field
// error of the log line unless it is resultOK; those of dialError are the rest.
// The words are the proxy's where the matter is the same.
const (
	resultOK             = "ok"
	kindNoCredential     = "no-credential"
	kindAmbiguous        = "ambiguous-credential"
	kindStoreUnavailable = "store-unavailable"
	kindForbiddenClient  = "forbidden-client"
	kindOverloaded       = "overloaded"
	kindBadRequest       = "bad-request"   // a handshake that fails, or something other than the subsystem sftp
	kindLost             = "upstream-lost" // in mid-session
	kindClientGone       = "client-gone"   // before there was an upstream, or with requests unanswered
	kindInternal         = "internal"
)

// refusal is why a session is not set up.
type refusal struct {
	kind     string
	sentence string // for the client: names no other credential
	detail   string // for the log, where it says more than sentence
}

func (r *refusal) Error() string { return r.kind + ": " + r.sentence }

// refusalOf turns what dialling or opening returned into one refusal.
func refusalOf(err error) *refusal {
	var known *refusal
	var dial *dialError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &dial):
		return &refusal{dial.kind, dial.sentence, dial.detail}
	}
	return &refusal{kindInternal, "the session cannot be set up; the log of pillion says why.", err.Error()}
}

// say is how a sentence begins that a client shows to people: who speaks.
func say(sentence string) string { return "pillion: " + sentence }

// refusedLinger is how long a refused session goes on after its first answer.
// Clients ask twice before they give up, and show the sentence then.
const refusedLinger = 2 * time.Second

// maxPacket bounds what a client may send: the 256 KiB of OpenSSH's sftp-server,
// and its overhead.
const maxPacket = 256<<10 + 1024

// Packet types of SFTP, draft-ietf-secsh-filexfer-02 section 3.
const (
	fxpInit    = 1
	fxpVersion = 2
	fxpOpen    = 3
	fxpStat    = 17
	fxpStatus  = 101
	fxFailure  = 4
)

// refuse answers every request on an accepted channel with the sentence. It
// returns true when the client has closed the channel, and false some time after
// the first answer, or for what is no SFTP: then the connection has to end.
//
//	client  -> INIT        REALPATH "."              ...
//	pillion <- VERSION 3   STATUS 4 "pillion: ..."   STATUS 4 "pillion: ..."
//
// It is the one place where OpenSSH, lftp, rclone and paramiko all show what
// went wrong; a refused login or channel they report in words of their own, and
// curl waits forever for what an exit status does not bring. scp alone shows no
// words of a status but those on stderr: it begins with a file, others do not.
func refuse(ch ssh.Channel, sentence string) (left bool) {
	defer ch.Close()
	var timer *time.Timer
	for {
		packet, err := readPacket(ch)
		if err != nil {
			return errors.Is(err, io.EOF) && (timer == nil || timer.Stop())
		}
		answer := refuseOne(packet, say(sentence))
		if answer == nil {
			return false
		}
		if timer == nil && packet[0] != fxpInit {
			timer = time.AfterFunc(refusedLinger, func() { ch.Close() })
			defer timer.Stop()
			if packet[0] == fxpOpen || packet[0] == fxpStat {
				_, _ = io.WriteString(ch.Stderr(), say(sentence)+"\r\n") // besides
			}
		}
		if _, err := ch.Write(answer); err != nil {
			return false
		}
	}
}

// refuseOne returns the answer to one packet, or nil for what is none.
func refuseOne(packet []byte, sentence string) []byte {
	if packet[0] == fxpInit {
		return []byte{0, 0, 0, 5, fxpVersion, 0, 0, 0, 3}
	}
	if len(packet) < 5 {
		return nil
	}
	id := packet[1:5]
	answer := binary.BigEndian.AppendUint32(nil, uint32(1+4+4+4+len(sentence)+4+2))
	answer = append(answer, fxpStatus)
	answer = append(answer, id...)
	answer = binary.BigEndian.AppendUint32(answer, fxFailure)
	answer = binary.BigEndian.AppendUint32(answer, uint32(len(sentence)))
	answer = append(answer, sentence...)
	answer = binary.BigEndian.AppendUint32(answer, 2)
	return append(answer, "en"...)
}

var errPacketSize = errors.New("a packet of SFTP has no type, or is longer than 257 KiB")

// readPacket returns a packet from its type on.
func readPacket(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size == 0 || size > maxPacket {
		return nil, errPacketSize
	}
	packet := make([]byte, size)
	_, err := io.ReadFull(r, packet)
	return packet, err
}
