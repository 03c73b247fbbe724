// The benchmark is a module of its own so that what it compares with never becomes a dependency of pillion.
module pillion/bench

go 1.26.0

require (
	github.com/elazarl/goproxy v1.9.2 // the peer "goproxy as it comes"
	github.com/pkg/sftp v1.13.12 // the client of many small files, and the peer "reissue"
	golang.org/x/crypto v0.58.0 // ssh: under both, as under pillion
	golang.org/x/net v0.62.0 // http2.ClientConn: a client that offers h2 alone, a fixed number of connections; websocket: both ends of those in the soak
	golang.org/x/sys v0.49.0 // another process's CPU clock, in nanoseconds
)

require (
	github.com/kr/fs v0.1.0 // indirect
	golang.org/x/text v0.43.0 // indirect
)
