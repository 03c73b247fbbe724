package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes this test binary the program itself for the scripts, so that
// what they drive was built with the race detector when the tests were.
func TestMain(m *testing.M) {
	noPauseAtExit()
	testscript.Main(m, map[string]func(){
		"pillion": main,
		"ask":     askMain,
		"writer":  writerMain,
	})
}

// noPauseAtExit spares whatever we start, if it was built with the race detector, the
// second that it waits before its end: scripts run hundreds of commands.
func noPauseAtExit() { _ = os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")) }

// TestScripts runs testdata/script: one script a promise.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			state := env.WorkDir + "/state"
			env.Setenv("PILLION_STATE", state)
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("PILLION_SFTP_LISTEN", "off") // its port may be taken; scripts about it choose one
			env.Setenv("KUBERNETES_SERVICE_HOST", "")
			env.Setenv("GORACE", os.Getenv("GORACE"))
			for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "NO_PROXY", "no_proxy"} {
				env.Setenv(name, "")
			}
			return os.MkdirAll(env.WorkDir+"/tmp", 0o700)
		},
		Cmds: scriptCommands(),
	})
}
