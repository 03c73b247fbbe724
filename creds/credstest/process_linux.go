package credstest

import (
	"os/exec"
	"syscall"
)

// endWithThread has the kernel kill the process when the thread that starts it
// ends: a frozen one does not notice that its standard input has.
func endWithThread(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
