package filestore

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

func TestFullDiskLeavesTheOldContent(t *testing.T) {
	cmd := part(t.Context(), t, "full disk", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		// Who is not root may mount in a user namespace, where that is allowed.
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS
		cmd.SysProcAttr.Unshareflags = 0
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	mustRun(t, cmd)
}

func TestFileSizeLimitLeavesTheOldContent(t *testing.T) {
	mustRun(t, part(t.Context(), t, "size limit", state(t)))
}

func mustRun(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
