package sftpgw

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// docs/sftp.md has the command lines that TestClients runs, word for word, and
// every way in which a session ends.
func TestPage(t *testing.T) {
	text, err := os.ReadFile("../docs/sftp.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	standard := strings.NewReplacer("$PORT", "2022", "$PROXY", "127.0.0.1:3128", "'$KH'", "'/var/lib/pillion/public/known_hosts'")
	for _, row := range clientCommands {
		if row.name == "sftp by localhost" {
			continue
		}
		command := standard.Replace(row.command)
		lines := []string{command}
		if row.name == "paramiko" {
			lines = strings.Split(command, "\n")[2:]
			lines = lines[:len(lines)-1]
		}
		for _, line := range lines {
			if !strings.Contains(page, "    "+line+"\n") {
				t.Errorf("the page lacks: %s", line)
			}
		}
	}
	for _, result := range slices.Concat(matchedResults, unmatchedResults) {
		if result != resultOK && !strings.Contains(page, "`"+result+"`") {
			t.Errorf("the page lacks the result %s", result)
		}
	}
}
