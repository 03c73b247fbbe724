//go:build !linux

package credstest

import "os/exec"

func endWithThread(*exec.Cmd) {}
