package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// reissueConfig is what the bench tells the relay that speaks SFTP itself.
type reissueConfig struct {
	Listen  string
	Servers map[string]string // by the client's user name
	User    string
	Key     string // file
	HostKey string
}

// serveReissue is the subcommand "reissue": the other way to build such a gateway. It serves SFTP by pkg/sftp, and does with another client of
// pkg/sftp what it is asked for. Its servers work on eight requests at a time, and know only what the library knows.
func serveReissue(stdin io.Reader) error {
	decoder := json.NewDecoder(stdin)
	var c reissueConfig
	if err := decoder.Decode(&c); err != nil {
		return fmt.Errorf("reading the relay's configuration: %w", err)
	}
	upstream, err := clientConfig(c.User, c.Key, c.HostKey)
	if err != nil {
		return err
	}
	signer, err := readSigner(c.Key) // as its host key, too: nobody looks
	if err != nil {
		return err
	}
	own := &ssh.ServerConfig{NoClientAuth: true}
	own.AddHostKey(signer)
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listening as the relay: %w", err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				if err := reissue(conn, own, c.Servers, upstream); err != nil && !errors.Is(err, io.EOF) {
					fmt.Fprintln(os.Stderr, "reissue:", err)
				}
			}()
		}
	}()
	_, err = io.Copy(io.Discard, io.MultiReader(decoder.Buffered(), stdin))
	return err
}

// reissue serves one client connection, with one connection to the server.
func reissue(conn net.Conn, own *ssh.ServerConfig, servers map[string]string, upstream *ssh.ClientConfig) error {
	defer conn.Close()
	client, channels, requests, err := ssh.NewServerConn(conn, own)
	if err != nil {
		return err
	}
	go ssh.DiscardRequests(requests)
	server, err := ssh.Dial("tcp", servers[client.User()], upstream)
	if err != nil {
		return err
	}
	defer server.Close()
	for offered := range channels {
		if offered.ChannelType() != "session" {
			_ = offered.Reject(ssh.UnknownChannelType, "")
			continue
		}
		channel, requests, err := offered.Accept()
		if err != nil {
			return err
		}
		go func() {
			for r := range requests {
				_ = r.Reply(r.Type == "subsystem", nil)
			}
		}()
		if err := reissueSession(channel, server); err != nil {
			return err
		}
	}
	return nil
}

func reissueSession(channel ssh.Channel, server *ssh.Client) error {
	defer channel.Close()
	client, err := sftp.NewClient(server)
	if err != nil {
		return err
	}
	defer client.Close()
	h := &handlers{client}
	return sftp.NewRequestServer(channel, sftp.Handlers{FileGet: h, FilePut: h, FileCmd: h, FileList: h}, sftp.WithRSAllocator()).Serve()
}

// handlers do what a request asks for, on another server.
type handlers struct{ *sftp.Client }

// Fileread opens a file for reading.
func (h *handlers) Fileread(r *sftp.Request) (io.ReaderAt, error) { return h.Open(r.Filepath) }

// Filewrite opens one for writing.
func (h *handlers) Filewrite(r *sftp.Request) (io.WriterAt, error) {
	flags, asked := os.O_WRONLY, r.Pflags()
	for flag, wanted := range map[int]bool{os.O_CREATE: asked.Creat, os.O_TRUNC: asked.Trunc, os.O_EXCL: asked.Excl} {
		if wanted {
			flags |= flag
		}
	}
	return h.OpenFile(r.Filepath, flags)
}

// Filecmd does what needs no open file.
func (h *handlers) Filecmd(r *sftp.Request) error {
	switch r.Method {
	case "Setstat":
		if r.AttrFlags().Permissions {
			return h.Chmod(r.Filepath, r.Attributes().FileMode().Perm())
		}
		return nil
	case "Mkdir":
		return h.Mkdir(r.Filepath)
	case "Remove", "Rmdir":
		return h.Remove(r.Filepath)
	case "Rename":
		return h.Rename(r.Filepath, r.Target)
	default:
		return sftp.ErrSSHFxOpUnsupported
	}
}

// Filelist lists a directory, or tells of one file.
func (h *handlers) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	if r.Method == "List" {
		list, err := h.ReadDir(r.Filepath)
		return infos(list), err
	}
	info, err := h.Stat(r.Filepath)
	return infos{info}, err
}

type infos []os.FileInfo

// ListAt is io.ReaderAt for entries.
func (l infos) ListAt(to []os.FileInfo, offset int64) (int, error) {
	n := 0
	if offset < int64(len(l)) {
		n = copy(to, l[offset:])
	}
	if n < len(to) {
		return n, io.EOF
	}
	return n, nil
}
