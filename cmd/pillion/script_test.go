package main

import "github.com/rogpeppe/go-internal/testscript"

func scriptCommands() map[string]func(*testscript.TestScript, bool, []string) { return nil }
func askMain()                                                                {}
func writerMain()                                                             {}
