package main

import (
	"bytes"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A whole comparison of SFTP, with the ways that need no more than OpenSSH.
func TestAComparisonOfSFTP(t *testing.T) {
	for _, program := range []string{"sftp", "/usr/sbin/sshd", "unshare"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no OpenSSH: %v (scripts/deps.sh installs it)", err)
		}
	}
	t.Setenv("TMPDIR", t.TempDir())
	lab, err := openLab(t.Context(), "none")
	if err != nil {
		t.Fatal(err)
	}
	defer lab.close()
	plan := sftpPlan{Rounds: 1, MiB: smallestMiB, Loads: sftpLoads(), Peers: pick(sftpPeers(), sftpPeerName, "direct,tcp,reissue")}
	r, err := compareSFTP(t.Context(), lab, plan, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if want := (len(plan.Loads) - 1) * len(plan.Peers); len(r.results.Transfers) != want {
		t.Errorf("%d transfers, want %d", len(r.results.Transfers), want)
	}
	for _, s := range r.results.Transfers {
		switch {
		case s.Err != "":
			t.Errorf("%s by %s: %s", s.Load, s.Peer, s.Err)
		case s.Peer == peerDirect:
			if !math.IsNaN(s.CPU) || !math.IsNaN(s.Peak) {
				t.Errorf("%s: direct has CPU %v and memory %v", s.Load, s.CPU, s.Peak)
			}
		case !(s.CPU > 0 && s.Peak >= 0 && s.Anonymous >= 0):
			t.Errorf("%s by %s: CPU %v, memory %v, anonymous %v", s.Load, s.Peer, s.CPU, s.Peak, s.Anonymous)
		}
		if s.Wall <= 0 || strings.HasPrefix(s.Load, "far-") && s.Wall < 5*2*lineDelay.Seconds() { // a login alone is more
			t.Errorf("%s by %s took %v s", s.Load, s.Peer, s.Wall)
		}
	}
	for _, want := range []string{"| 16 MiB up | direct |", "| 2 MiB down, 40ms line | TCP relay |", "| 156 files of 4 KiB up, 16 at once | re-issuing relay (pkg/sftp) |", "OpenSSH_"} {
		if !strings.Contains(r.markdown(), want) {
			t.Errorf("the table lacks %q:\n%s", want, r.markdown())
		}
	}
	lab.close()
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), "pillion-bench-*"))
	if len(left) > 0 || len(children(os.Getpid())) > 0 {
		t.Errorf("left behind: %v, processes %v", left, children(os.Getpid()))
	}
}

func TestWhatArrivesOtherwiseIsNoticed(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	long := strings.Repeat("x", 1<<20)
	for _, row := range []struct {
		sent, arrived string
		same          bool
	}{
		{"", "", true},
		{"abc", "abc", true},
		{"abc", "abd", false},
		{"abc", "ab", false},
		{"abc", "", false},
		{long, long, true},
		{long, long + "y", false},
		{long + "y", long, false},
	} {
		err := sameContent(write("sent", row.sent), write("arrived", row.arrived))
		if (err == nil) != row.same {
			t.Errorf("%d bytes sent, %d arrived: error %v", len(row.sent), len(row.arrived), err)
		}
	}
	s := smallFiles{Dir: dir, Files: 2, Size: fileSize}
	write("file-00000", string(s.content(0)))
	write("file-00001", string(s.content(0)))
	if err := s.check(); err == nil {
		t.Error("one small file in the place of another is not noticed")
	}
	write("file-00001", string(s.content(1)))
	if err := s.check(); err != nil {
		t.Error(err)
	}
}

func TestALineDelaysAndLosesNothing(t *testing.T) {
	const delay = 50 * time.Millisecond
	far, near := net.Pipe()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	begin := time.Now()
	go func() {
		_, _ = far.Write(sent)
		far.Close()
	}()
	var arrived bytes.Buffer
	delayed(&arrived, near, delay)
	if !bytes.Equal(arrived.Bytes(), sent) {
		t.Errorf("%d bytes arrived, %d were sent", arrived.Len(), len(sent))
	}
	if took := time.Since(begin); took < delay {
		t.Errorf("took %v", took)
	}
}

// madeUpSFTP has pillion at twice the CPU and 1.1 times the time of a relay.
func madeUpSFTP() *sftpReport {
	r := &sftpReport{plan: sftpPlan{Rounds: 3, MiB: wholeMiB, Loads: sftpLoads(), Peers: sftpPeers()}}
	r.results.Missing = map[string]string{peerSocat: "socat is not | installed"}
	r.results.Idle = map[string][]float64{peerPillion: {20 << 20}}
	for round := 1; round <= 3; round++ {
		for _, s := range r.plan.Loads {
			scale := float64(round)
			peak := float64(10 * bytesOfMiB)
			if s.Clients == 16 {
				peak = 60 * bytesOfMiB
			}
			r.results.Transfers = append(r.results.Transfers,
				transfer{Round: round, Load: s.Name, Peer: peerDirect, Wall: 4.3 * scale, CPU: nan, Peak: nan, Anonymous: nan},
				transfer{Round: round, Load: s.Name, Peer: peerTCP, Wall: 4 * scale, CPU: 1 * scale, Peak: 1 << 20, Anonymous: 1 << 19},
				transfer{Round: round, Load: s.Name, Peer: peerPillion, Wall: 4.4 * scale, CPU: 2 * scale, Peak: peak + 10*bytesOfMiB, Anonymous: peak})
		}
	}
	r.results.Transfers = append(r.results.Transfers, transfer{Round: 3, Load: "up", Peer: peerReissue, Err: "no\nspace"})
	return r
}

func TestBarsOfSFTP(t *testing.T) {
	for _, b := range sftpBars(&madeUpSFTP().results, wholeMiB) {
		if b.verdict() != keptBar {
			t.Errorf("%s", b)
		}
	}
	for _, row := range []struct {
		name   string
		change func(*transfer)
		bar    string
	}{
		{"more CPU", func(t *transfer) { t.CPU *= 1.2 }, "1 GiB down: CPU, to a TCP relay"},
		{"more time", func(t *transfer) { t.Wall *= 1.06 }, "1 GiB up: time, to a TCP relay"},
		{"more time at the end of the line", func(t *transfer) { t.Wall *= 1.06 }, "128 MiB up, 40ms line: time, to direct"},
		{"more memory", func(t *transfer) { t.Anonymous += 3 << 20 }, "1 GiB up: anonymous memory beyond idle"},
		{"more memory for sixteen", func(t *transfer) { t.Anonymous += 11 << 20 }, "16 times 64 MiB at once up: anonymous memory beyond idle"},
	} {
		r := madeUpSFTP().results
		for i := range r.Transfers {
			if r.Transfers[i].Peer == peerPillion {
				row.change(&r.Transfers[i])
			}
		}
		found := false
		for _, b := range sftpBars(&r, wholeMiB) {
			if b.Name == row.bar {
				found = true
				if b.verdict() != missedBar {
					t.Errorf("%s: %s", row.name, b)
				}
			}
		}
		if !found {
			t.Errorf("no bar %q", row.bar)
		}
	}
}

func TestTablesOfSFTP(t *testing.T) {
	text := madeUpSFTP().markdown()
	for _, want := range []string{
		"| 1 GiB up | pillion | 8.80 ± 50 % | 1.02 | 1.10 | 4.00 ± 50 % | 2.00 | 20.0 | 10.0 |",
		"| 1 GiB up by pillion put | pillion | 8.80 ± 50 % | 1.02 | 1.10 | 4.00 ± 50 % | 2.00 | 20.0 | 10.0 |",
		"| 1 GiB up | direct | 8.60 ± 50 % | 1.00 | 1.07 |  |  |  |  |",
		"| 10000 files of 4 KiB up, 16 at once | TCP relay |",
		"| 1 GiB up | re-issuing relay (pkg/sftp) | failed |",
		"socat (TCP relay) was left out: socat is not / installed.",
		"reissue, up, round 3: failed: no space.",
		"Idle memory: pillion 20.0 MiB.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the tables lack %q:\n%s", want, text)
		}
	}
	columns := 0
	for line := range strings.Lines(text) {
		if n := strings.Count(line, "|"); strings.HasPrefix(line, "|") {
			if columns != 0 && n != columns {
				t.Errorf("a row of %d cells in a table of %d: %s", n-1, columns-1, line)
			}
			columns = n
		}
	}
}

// Either half of the page is written without the other.
func TestSectionsOfThePageAreApart(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "performance.md")
	page := "# Above\n\n" + beginMark + "\nold\n" + endMark + "\n\nBetween\n\n" + sftpBeginMark + "\nold of SFTP\n" + sftpEndMark + "\n\nBelow\n"
	if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := publish(dir, io.Discard, madeUpSFTP().section()); err != nil {
		t.Fatal(err)
	}
	text := read(t, file)
	if !strings.HasPrefix(text, "# Above\n\n"+beginMark+"\nold\n"+endMark+"\n\nBetween\n\n"+sftpBeginMark+"\n") || !strings.HasSuffix(text, sftpEndMark+"\n\nBelow\n") || strings.Contains(text, "old of SFTP") {
		t.Errorf("the page became:\n%s", text)
	}
	if svg := read(t, filepath.Join(dir, "performance-sftp.svg")); strings.Contains(svg, "NaN") || !strings.Contains(svg, "1 GiB up: CPU, s") {
		t.Errorf("the plot became:\n%s", svg)
	}
}
