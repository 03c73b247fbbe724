//go:build !linux

package main

// releaseProgram is for Linux: see there.
func releaseProgram() uintptr { return 0 }
